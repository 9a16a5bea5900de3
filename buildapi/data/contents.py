"""
What a query shows, and how it differs from what it showed before (pure).

Rows are kept as JSON text, by their id and in their order: little memory, quick to compare, and
sent as they are.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import cached_property
from typing import Any

import orjson

from buildapi.data.fetch import Ask, Plain, Portion
from buildapi.data.storedjson import in_one_line, shown_text

Ident = int | str
Pair = tuple[Ident, bytes]


class Content:
    """The rows that a query shows, by id, in their order; and the ``meta`` of the answer."""

    __slots__ = ("meta", "rows")

    def __init__(self, rows: Mapping[Ident, bytes], meta: Mapping[str, Any]) -> None:
        self.rows = rows
        self.meta = meta

    def same(self, other: Content) -> bool:
        """Say whether another one shows the same."""
        return (
            self.meta == other.meta
            and self.rows == other.rows
            and list(self.rows) == list(other.rows)
        )


NOTHING = Content({}, {})


class Delta:
    """
    What makes one content another.

    enter, update: rows, as JSON text, by id.  leave: ids.  order: the ids of all rows, if it is not
    enough to leave out what leaves and to put what enters at the end; else None.  meta: the new
    one, if it changed.
    """

    def __init__(self, old: Content, new: Content) -> None:
        self.enter = {i: row for i, row in new.rows.items() if i not in old.rows}
        self.update = {
            i: row for i, row in new.rows.items() if i in old.rows and old.rows[i] != row
        }
        self.leave = [i for i in old.rows if i not in new.rows]
        by_itself = [*(i for i in old.rows if i in new.rows), *self.enter]
        order = list(new.rows)
        self.order = None if by_itself == order else order
        self.meta = None if old.meta == new.meta else new.meta

    @cached_property
    def members(self) -> dict[str, orjson.Fragment]:
        """What it is as JSON, made once for all who get it."""
        found = {
            "enter": _pairs(self.enter),
            "update": _pairs(self.update),
            "leave": orjson.dumps(self.leave),
        }
        if self.order is not None:
            found["order"] = orjson.dumps(self.order)
        if self.meta is not None:
            found["meta"] = orjson.dumps(self.meta)
        return {name: orjson.Fragment(text) for name, text in found.items()}


def _pairs(rows: Mapping[Ident, bytes]) -> bytes:
    return b"[%b]" % b",".join(b"[%b,%b]" % (orjson.dumps(i), row) for i, row in rows.items())


class Rowing:
    """
    Makes raw rows into pairs of id and JSON text.

    hidden: the field of the id was not asked for; it is read all the same, and not shown.
    """

    def __init__(self, ask: Ask, *, hidden: bool) -> None:
        self._make = None if ask.plan is None else ask.plan.as_json
        self._ident = ident(ask)
        self._hidden = hidden

    def __call__(self, portion: Portion) -> list[Pair]:
        """Return the pairs."""
        return [self._pair(row if self._make is None else self._make(row)) for row in portion]

    def _pair(self, row: dict[str, Any]) -> Pair:
        if self._ident is None:
            return 0, in_one_line(row)
        found = row[self._ident]
        if self._hidden:
            row = {name: value for name, value in row.items() if name != self._ident}
        return found if isinstance(found, int) else shown_text(found), in_one_line(row)


def ident(ask: Ask) -> str | None:
    """Return the field that rows are told apart by: the integer id, else name or path, or none."""
    resource = ask.match.route.resource
    name: str | None = getattr(resource, "ident", None)
    if name is None or (issubclass(resource, Plain) and ask.single and not name.endswith("id")):
        return None
    return name


def content(pairs: Iterable[Pair], meta: Mapping[str, Any], before: Content) -> Content:
    """
    Return what was read; ``before`` itself if it is the same, and its rows as far as they are.

    Should two rows have one id, which only a damaged database can show, the later one is told by
    it and a number: ``name#2``.
    """
    rows: dict[Ident, bytes] = {}
    for found, row in pairs:
        known, number = found, 1
        while known in rows:
            number += 1
            known = f"{found}#{number}"
        # Who is slow keeps an old content: let it share with the new one what it can.
        old = before.rows.get(known)
        rows[known] = old if old == row else row
    new = Content(rows, meta)
    return before if new.same(before) else new
