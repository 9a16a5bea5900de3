"""
The durable, totally ordered event log.

Events are rows of ``buildapi_events``, written in the transaction of the change that caused them.
``seq`` counts from 1 without gaps; the counters (``seq`` and a number that is new with each
committed batch) are the one row of ``buildapi_log``, which also carries the identity of the log.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import orjson
import sqlalchemy as sa

from buildapi.db.tables import buildapi_events, buildapi_log
from buildapi.mq.event import Event
from buildapi.mq.history import Replay

if TYPE_CHECKING:
    from buildapi.db.connect import Reader


# What is read at a time for somebody who comes back.
FEW = 100
MOST_BYTES = 512 * 1024


class Draft(NamedTuple):
    """An event before its commit: all but its position and time."""

    topic: str
    keys: tuple[str, ...]
    body: bytes
    builderid: int | None = None
    projectid: int | None = None


@dataclass(frozen=True)
class Counters:
    """The one row of the log: who it is, its newest position, its last committed batch."""

    uuid: str
    seq: int
    batch: int


COLUMNS = ("seq", "at", "topic", "keys", "body", "builderid", "projectid")


def rows(events: Iterable[Event]) -> list[tuple[Any, ...]]:
    """Return the events as rows of ``buildapi_events``, in the order of ``COLUMNS``."""
    return [
        (
            event.seq,
            event.at,
            event.topic,
            orjson.dumps(event.keys).decode(),
            event.body.decode(),
            event.builderid,
            event.projectid,
        )
        for event in events
    ]


def event(row: Sequence[Any]) -> Event:
    """Return a stored row as the event it was."""
    seq, at, topic, keys, body, builderid, projectid = row
    return Event(seq, topic, at, tuple(orjson.loads(keys)), body.encode(), builderid, projectid)


_AFTER = (
    sa.select(*(buildapi_events.c[name] for name in COLUMNS))
    .where(buildapi_events.c.seq > sa.bindparam("after"))
    .order_by(buildapi_events.c.seq)
    .limit(sa.bindparam("most"))
)
_COUNTERS = sa.select(buildapi_log.c.uuid, buildapi_log.c.seq, buildapi_log.c.batch)

_LOCKED = _COUNTERS.with_for_update()


def stored(reader: Reader, after: int, most: int) -> list[Event]:
    """Read at most ``most`` events whose ``seq`` is above ``after``, in order."""
    return [event(row) for row in reader.rows(_AFTER, {"after": after, "most": most})]


def replayed(reader: Reader, after: int, most: int, now: float, control_ttl_s: float) -> Replay:
    """
    Read, for somebody who comes back, what follows ``after``: at most ``most`` events.

    Every road on which stored events are told reads them here: control messages that are older than
    ``control_ttl_s`` seconds at ``now`` are not among them.
    """
    found = _some(reader, after, most)
    told = [event for event in found if event.is_current(now, control_ttl_s)]
    if not found:
        return Replay([], None, after)
    return Replay(told, found[0].seq, found[-1].seq)


def _some(reader: Reader, after: int, most: int) -> list[Event]:
    """Read at most ``most`` events, and not many more than MOST_BYTES of their messages."""
    found: list[Event] = []
    size = 0
    while len(found) < most and size < MOST_BYTES:
        some = stored(reader, found[-1].seq if found else after, min(FEW, most - len(found)))
        found += some
        size += sum(len(event.body) for event in some)
        if len(some) < FEW:
            break
    return found


def counters(reader: Reader) -> Counters:
    """Read the one row of the log."""
    return Counters(*reader.rows(_COUNTERS, {})[0])


def locked(reader: Reader) -> Counters:
    """Read the one row of the log, and keep others from it until the transaction ends."""
    return Counters(*reader.rows(_LOCKED, {})[0])


def newest(reader: Reader) -> int:
    """Read the position of the newest event."""
    seq: int = reader.connection.execute(_NEWEST).fetchone()[0]
    return seq


_NEWEST = f"SELECT seq FROM {buildapi_log.name}"


def oldest(reader: Reader) -> int:
    """
    Read the position of the oldest event that is still there; of the next one, if there is none.

    All events after ``oldest(reader) - 1`` can be read.
    """
    seq: int = reader.connection.execute(_OLDEST).fetchone()[0]
    return seq


_OLDEST = (
    f"SELECT coalesce((SELECT min(seq) FROM {buildapi_events.name}), seq + 1)"
    f" FROM {buildapi_log.name}"
)
