"""The arguments of ``GET /api/v2/events`` (pure)."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import NamedTuple

from buildapi.data.query import arguments
from buildapi.data.values import seconds
from buildapi.docs.live import EVENTS
from buildapi.errors import BadQuery
from buildapi.mq.topic import parse_pattern

MOST_TOPICS = 100
# An answer has so many events if nobody says how many.
USUAL_LIMIT = 1_000
# Nobody waits longer: proxies take a connection for dead after a minute.
MOST_WAIT_S = 60.0

_KNOWN = tuple(one.name for one in EVENTS)
_POSITION = re.compile(r"[0-9]{1,18}", re.ASCII)


class EventQuery(NamedTuple):
    """
    What is wanted.

    since: None if no position was given.  log: the identity of the log that it is of.
    limit, wait_s: of an answer that is no stream.
    """

    topics: tuple[str, ...] = ("#",)
    since: int | None = None
    log: str | None = None
    limit: int = USUAL_LIMIT
    wait_s: float = 0.0


def parsed(text: str) -> EventQuery:
    """
    Return what a query string means; BadQuery names the argument that is wrong.

    >>> parsed("topic=build.%23&after=12")
    EventQuery(topics=('build.#',), since=12, log=None, limit=1000, wait_s=0.0)
    """
    given = arguments(text)
    for name in given:
        if name not in _KNOWN:
            raise BadQuery(f"unknown argument '{name}': there are {', '.join(_KNOWN)}")
    if "since" in given and "after" in given:
        raise BadQuery("since and after are two names of one argument; give one")
    topics = tuple(dict.fromkeys(given.pop("topic", ["#"])))
    if len(topics) > MOST_TOPICS:
        raise BadQuery(f"topic is given {len(topics)} times: at most {MOST_TOPICS}")
    for topic in topics:
        parse_pattern(topic)
    one = {name: _only(name, values) for name, values in given.items()}
    since = _position(one, "since" if "since" in one else "after")
    limit = _position(one, "limit")
    if limit == 0:
        raise BadQuery("limit must be 1 at least")
    return EventQuery(topics, since, one.get("log"), limit or USUAL_LIMIT, _wait_s(one))


def resumed(query: EventQuery, last_event_id: str | None) -> EventQuery:
    """Return what a stream goes on with that was cut: its ``Last-Event-ID`` is the position."""
    if not last_event_id:
        return query
    return query._replace(since=_position({"Last-Event-ID": last_event_id}, "Last-Event-ID"))


def _only(name: str, values: list[str]) -> str:
    if len(values) > 1:
        raise BadQuery(f"{name} is given {len(values)} times: once is enough")
    return values[0]


def _position(given: Mapping[str, str], name: str) -> int | None:
    text = given.get(name)
    if text is None:
        return None
    if not _POSITION.fullmatch(text):
        raise BadQuery(f"{name} must be a number, 0 or more, not '{text}'")
    return int(text)


def _wait_s(given: Mapping[str, str]) -> float:
    text = given.get("wait", "0")
    try:
        return min(seconds(text), MOST_WAIT_S)
    except ValueError:
        raise BadQuery(f"wait must be a number of seconds, not '{text}'") from None
