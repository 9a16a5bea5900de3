"""
The envelope of REST answers: ``{"<plural>": [...], "meta": {...}}`` as bytes, and errors.

Compact for who asks for ``application/json``, else indented for people.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import orjson

from buildapi.data.api import rows_of
from buildapi.data.fetch import Ask, Portion
from buildapi.data.storedjson import in_one_line, plain, shown_text

JSON = b"application/json; charset=utf-8"
TEXT = b"text/plain; charset=utf-8"
BYTES = b"application/octet-stream; charset=utf-8"


@dataclass(frozen=True)
class Form:
    """
    A form that an answer can have.

    letter: what tells it from others.  rows: gives what makes raw rows into the inside of a list.
    opening, between, closing: what stands around the portions; of an answer without any, empty.
    meta: made of the total, if it is a list, and of the next page's URL, if a cap cut it.
    """

    letter: bytes
    content_type: bytes
    rows: Callable[[Ask], Callable[[Portion], bytes]]
    opening: bytes
    between: bytes
    closing: bytes
    empty: bytes
    meta: Callable[[int | None, bytes | None], bytes]

    def whole(
        self, ask: Ask, parts: Iterable[bytes], total: int | None, cut: bytes | None
    ) -> bytes:
        """Return the whole answer.  cut: the URL of the next page, if a cap cut it."""
        rows = self.between.join(parts)
        plural = ask.shape.resource.plural.encode()
        if not rows:
            return self.empty % (plural, self.meta(total, cut))
        return b"%b%b%b" % (self.opening % plural, rows, self.closing % self.meta(total, cut))

    def ends(self, ask: Ask, total: int | None, cut: bytes | None) -> tuple[bytes, bytes]:
        """Return what stands before and behind all rows of an answer that has some."""
        plural = ask.shape.resource.plural.encode()
        return self.opening % plural, self.closing % self.meta(total, cut)

    def around(self, ask: Ask, row: dict[str, Any]) -> tuple[bytes, bytes]:
        """Return what stands before and behind the text of a row that ends with an empty one."""
        before, empty, behind = self.rows(ask)([row]).rpartition(b'""')
        return (before + b'"', b'"' + behind) if empty else (behind, b"")


def _compact_rows(ask: Ask) -> Callable[[Portion], bytes]:
    if ask.plan is None:
        return lambda rows: in_one_line(rows)[1:-1]
    make = ask.plan.as_json
    return lambda rows: orjson.dumps([make(row) for row in rows], shown_text)[1:-1]


def _compact_meta(total: int | None, cut: bytes | None) -> bytes:
    if total is None:
        return b"{}"
    if cut is None:
        return b'{"total":%d}' % total
    return b'{"total":%d,"truncated":true,"next":"%b"}' % (total, cut)


def _indented_rows(ask: Ask) -> Callable[[Portion], bytes]:
    make = rows_of(ask)

    def made(rows: Portion) -> bytes:
        # In a list in a list the rows are indented as they are in the whole answer.
        return for_people([make(rows)])[len("[\n  [\n") : -len("\n  ]\n]")] if rows else b""

    return made


def _indented_meta(total: int | None, cut: bytes | None) -> bytes:
    if total is None:
        return b"{}"
    if cut is None:
        return b'{\n    "total": %d\n  }' % total
    return b'{\n    "total": %d, \n    "truncated": true, \n    "next": "%b"\n  }' % (total, cut)


COMPACT = Form(
    letter=b"c",
    content_type=JSON,
    rows=_compact_rows,
    opening=b'{"%b":[',
    between=b",",
    closing=b'],"meta":%b}',
    empty=b'{"%b":[],"meta":%b}',
    meta=_compact_meta,
)
INDENTED = Form(
    letter=b"i",
    content_type=TEXT,
    rows=_indented_rows,
    opening=b'{\n  "%b": [\n',
    between=b", \n",
    closing=b'\n  ], \n  "meta": %b\n}',
    empty=b'{\n  "%b": [], \n  "meta": %b\n}',
    meta=_indented_meta,
)


def error(sentence: str) -> bytes:
    """Return the body of a refused GET."""
    return json.dumps({"error": sentence}).encode()


def for_people(value: Any) -> bytes:
    """Return any value as indented JSON."""
    try:
        # A newline inside a text is escaped: every one that follows a comma is ours.
        indented = orjson.dumps(value, shown_text, orjson.OPT_INDENT_2)
        return indented.replace(b",\n", b", \n")
    except orjson.JSONEncodeError:
        return json.dumps(plain(value), indent=2, separators=(", ", ": ")).encode()
