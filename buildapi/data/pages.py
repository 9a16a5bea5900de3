"""
Pages of a list: how many rows one answer has at most, and what asks for those behind them (pure).

Pages are cut by ``offset``, in an order in which no two rows are equal: whoever follows them from
the first meets every row once.  Rows that come or go meanwhile may move the others by their number.
"""

from __future__ import annotations

from dataclasses import replace
from typing import NamedTuple
from urllib.parse import urlencode

from buildapi.data.query import Query, arguments

_WINDOW = ("limit", "offset")


class Page(NamedTuple):
    """
    What an answer is of a longer list.

    capped: no limit was asked for, there is one all the same.  following: the query string that
    asks for what comes behind.
    """

    capped: bool
    following: str


def capped(query: Query, most: int) -> Query:
    """Return the query with a limit: its own, or ``most``; 0 means none."""
    if query.limit is None and most > 0:
        return replace(query, limit=most)
    return query


def page(text: str, query: Query, *, capped: bool) -> Page | None:
    """
    Return which page of a list a query asks for; None if nothing can come behind it.

    text: its query string.  query: what that means, with the limit that the answer will have.
    """
    if not query.limit:
        return None
    found = arguments(text)
    left = [(name, value) for name in found if name not in _WINDOW for value in found[name]]
    # Who asked for no limit asks for none again: another server may have another cap.
    limit = [] if capped else [("limit", str(query.limit))]
    offset = ("offset", str(query.offset + query.limit))
    return Page(capped, urlencode([*left, *limit, offset], errors="surrogateescape"))
