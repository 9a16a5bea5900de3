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

JSON = b"application/json; charset=utf-8"
TEXT = b"text/plain; charset=utf-8"


def compact_rows(ask: Ask) -> Callable[[Portion], bytes]:
    """Return what makes raw rows into the inside of a JSON list."""
    if ask.plan is None:
        return lambda rows: orjson.dumps(rows)[1:-1]
    make = ask.plan.as_json
    return lambda rows: orjson.dumps([make(row) for row in rows])[1:-1]


def compact(ask: Ask, answer: Fetched[bytes]) -> bytes:
    """Return the whole answer in one line."""
    meta = b"" if answer.total is None else b'"total":%d' % answer.total
    plural = ask.shape.resource.plural.encode()
    return b'{"%b":[%b],"meta":{%b}}' % (plural, b",".join(answer.parts), meta)


indented_rows: Callable[[Ask], Callable[[Portion], list[dict[str, Any]]]] = rows_of


def indented(ask: Ask, answer: Fetched[list[dict[str, Any]]]) -> bytes:
    """Return the whole answer for people."""
    meta = {} if answer.total is None else {"total": answer.total}
    rows = [row for part in answer.parts for row in part]
    whole = {ask.shape.resource.plural: rows, "meta": meta}
    return json.dumps(whole, indent=2, separators=(", ", ": ")).encode()


def error(sentence: str) -> bytes:
    """Return the body of a refused GET."""
    return json.dumps({"error": sentence}).encode()
