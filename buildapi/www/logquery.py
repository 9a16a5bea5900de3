"""What a GET that follows a log asks for."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import NamedTuple

from buildapi.data.logchunks import LogChunk
from buildapi.data.loglines import Selection, selection
from buildapi.data.query import Query, arguments, parse
from buildapi.data.values import LARGEST, integer, seconds
from buildapi.docs.live import FOLLOWED
from buildapi.errors import BadQuery
from buildapi.settings import Limits

MOST_WAIT_S = 60.0

_POSITION = re.compile(r"[0-9]{1,18}", re.ASCII)
_TRUE = ("1", "true", "yes", "on")
# Those that only mean something here, and each of them once.
_ONCE = tuple(one.name for one in FOLLOWED)


class LogQuery(NamedTuple):
    """
    A parsed query.

    offset: the first line, from the end if negative; None if it is not given.
    limit, wait_s: of an answer that waits; wait_s is None for one that goes on.
    query: the rest, which every GET takes.
    """

    offset: int | None
    limit: int | None
    wait_s: float | None
    wanted: Selection
    query: Query


def parsed(text: str, limits: Limits, *, raw: bool) -> LogQuery | None:
    """
    Return what a query string means; None if it does not ask to follow.

    raw: whether it is that of a raw download.  BadQuery names the argument that is wrong.
    """
    given = arguments(text)
    if not given.keys() & {"follow", "wait"}:
        return None
    own = {name: _only(name, given.pop(name)) for name in _ONCE if name in given}
    offsets = given.pop("offset", None)
    rest = parse(LogChunk, given, single=True)
    wait_s = _wait_s(own, raw=raw)
    if rest.limit is not None and wait_s is None and not raw:
        raise BadQuery("limit: it means nothing with follow")
    wanted = selection(own.get("grep"), _context(own), own.get("streams"), limits)
    return LogQuery(_offset(offsets), rest.limit, wait_s, wanted, rest)


def resumed(query: LogQuery, last_event_id: str | None) -> LogQuery:
    """Return what a stream goes on with that was cut: its ``Last-Event-ID`` is the next line."""
    if not last_event_id:
        return query
    if not _POSITION.fullmatch(last_event_id):
        raise BadQuery("Last-Event-ID: the number of a line is wanted")
    return query._replace(offset=int(last_event_id))


def _only(name: str, values: Sequence[str]) -> str:
    if len(values) > 1:
        raise BadQuery(f"{name} is given {len(values)} times: once is enough")
    return values[0]


def _wait_s(own: dict[str, str], *, raw: bool) -> float | None:
    if "wait" not in own:
        if own["follow"].lower() not in _TRUE:
            raise BadQuery("follow: 1 is wanted, or leave it out")
        return None
    if raw or "follow" in own:
        raise BadQuery("wait: it means nothing on raw downloads, nor with follow")
    try:
        return min(seconds(own["wait"]), MOST_WAIT_S)
    except ValueError:
        raise BadQuery("wait: a number of seconds is wanted") from None


def _context(own: dict[str, str]) -> int:
    try:
        return integer(own.get("context", "0"))
    except ValueError:
        raise BadQuery("context: a whole number is wanted") from None


def _offset(values: Sequence[str] | None) -> int | None:
    if values is None:
        return None
    try:
        return max(-LARGEST, min(LARGEST, integer(values[0])))
    except ValueError:
        raise BadQuery("invalid offset: a whole number is wanted") from None
