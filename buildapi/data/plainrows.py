"""
A query on rows that are not in a table: force schedulers, the property list of one object.

The same rules as in SQL, in plain Python, for short lists only.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Sequence
from typing import Any

from buildapi.data.query import Filter, Query

Row = dict[str, Any]

_COMPARE: dict[str, Callable[[Any, Any], bool]] = {
    "lt": operator.lt,
    "le": operator.le,
    "gt": operator.gt,
    "ge": operator.ge,
}


def matching(rows: Sequence[Row], query: Query) -> list[Row]:
    """Return the rows that pass the filters, in the order that is asked for."""
    found = [row for row in rows if all(_passes(row[one.field], one) for one in query.filters)]
    for name, up in reversed(query.order):
        # null comes first ascending and last descending; equal rows keep their order.
        nulls = [row for row in found if row[name] is None]
        rest = [row for row in found if row[name] is not None]
        rest.sort(key=lambda row, name=name: row[name], reverse=not up)  # type: ignore[misc]
        found = nulls + rest if up else rest + nulls
    return found


def window(rows: Sequence[Row], query: Query) -> list[Row]:
    """Return the page that is asked for, with the fields that are asked for."""
    end = None if query.limit is None else query.offset + query.limit
    return [cut(row, query) for row in rows[query.offset : end]]


def cut(row: Row, query: Query) -> Row:
    """Return the row with the fields that are asked for."""
    if query.fields is None:
        return row
    return {name: value for name, value in row.items() if name in query.fields}


def _passes(value: Any, one: Filter) -> bool:
    match one.op:
        case "eq" | "in":
            return value in one.values
        case "ne" | "notin":
            return value not in one.values
        case "contains":
            return value is not None and any(wanted in value for wanted in one.values)
        case _:
            return value is not None and _COMPARE[one.op](value, one.values[0])
