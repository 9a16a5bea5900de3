"""
The envelope of REST answers: ``{"<plural>": [...], "meta": {...}}`` as bytes, and errors.

Compact for who asks for ``application/json``, else indented for people.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import orjson

from buildapi.data.api import rows_of
from buildapi.data.fetch import Ask, Fetched, Portion
from buildapi.data.storedjson import shown_text

JSON = b"application/json; charset=utf-8"
TEXT = b"text/plain; charset=utf-8"
BYTES = b"application/octet-stream; charset=utf-8"


def compact_rows(ask: Ask) -> Callable[[Portion], bytes]:
    """Return what makes raw rows into the inside of a JSON list."""
    if ask.plan is None:
        return lambda rows: _in_one_line(rows)[1:-1]
    make = ask.plan.as_json
    return lambda rows: orjson.dumps([make(row) for row in rows], shown_text)[1:-1]


def compact(ask: Ask, answer: Fetched[bytes]) -> bytes:
    """Return the whole answer in one line."""
    meta = b"" if answer.total is None else b'"total":%d' % answer.total
    plural = ask.shape.resource.plural.encode()
    return b'{"%b":[%b],"meta":{%b}}' % (plural, b",".join(answer.parts), meta)


def indented_rows(ask: Ask) -> Callable[[Portion], bytes]:
    """Return what makes raw rows into the inside of a JSON list, for people."""
    make = rows_of(ask)

    def made(rows: Portion) -> bytes:
        # In a list in a list the rows are indented as they are in the whole answer.
        return _for_people([make(rows)])[len("[\n  [\n") : -len("\n  ]\n]")] if rows else b""

    return made


def indented(ask: Ask, answer: Fetched[bytes]) -> bytes:
    """Return the whole answer for people."""
    meta = b"{}" if answer.total is None else b'{\n    "total": %d\n  }' % answer.total
    parts = [part for part in answer.parts if part]
    rows = b"[\n%b\n  ]" % b", \n".join(parts) if parts else b"[]"
    plural = ask.shape.resource.plural.encode()
    return b'{\n  "%b": %b, \n  "meta": %b\n}' % (plural, rows, meta)


def error(sentence: str) -> bytes:
    """Return the body of a refused GET."""
    return json.dumps({"error": sentence}).encode()


def _in_one_line(value: Any) -> bytes:
    try:
        return orjson.dumps(value, shown_text)
    except orjson.JSONEncodeError:
        # A property may be an integer beyond 64 bits, or text that is half a character.
        return json.dumps(_plain(value), separators=(",", ":")).encode()


def _for_people(value: Any) -> bytes:
    try:
        # A newline inside a text is escaped: every one that follows a comma is ours.
        indented = orjson.dumps(value, shown_text, orjson.OPT_INDENT_2)
        return indented.replace(b",\n", b", \n")
    except orjson.JSONEncodeError:
        return json.dumps(_plain(value), indent=2, separators=(", ", ": ")).encode()


def _plain(value: Any) -> Any:
    """Return a value as JSON can say it, numbers of any size included: infinity is null."""
    return json.loads(json.dumps(value, default=shown_text), parse_constant=lambda _: None)
