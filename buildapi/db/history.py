"""The event log as streams need it: read in a lane of its own, and where named consumers are."""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial

import sqlalchemy as sa
from twisted.internet.defer import Deferred

from buildapi.db import eventlog
from buildapi.db.connect import Reader
from buildapi.db.engine import EVENTS, Database
from buildapi.db.tables import buildapi_consumers
from buildapi.db.transaction import Tx
from buildapi.mq.history import Extent, Replay

_POSITION = sa.select(buildapi_consumers.c.seq, buildapi_consumers.c.log).where(
    buildapi_consumers.c.name == sa.bindparam("consumer")
)
_FORGET = sa.delete(buildapi_consumers).where(buildapi_consumers.c.name == sa.bindparam("consumer"))


class StoredEvents:
    """
    The history of a database's event log.

    control_ttl_s: after how many seconds control messages are told to nobody any more.  clock:
    seconds since the epoch.
    """

    def __init__(
        self, database: Database, control_ttl_s: float, clock: Callable[[], float] = time.time
    ) -> None:
        self._database = database
        self._control_ttl_s = control_ttl_s
        self._clock = clock

    def extent(self) -> Deferred[Extent]:
        """Say what the log has."""
        return self._database.read(_extent, EVENTS)

    def replayed(self, after: int, most: int) -> Deferred[Replay]:
        """Read at most ``most`` events after a position, without control messages that expired."""
        reading = partial(
            eventlog.replayed,
            after=after,
            most=most,
            now=self._clock(),
            control_ttl_s=self._control_ttl_s,
        )
        return self._database.read(reading, EVENTS)

    def consumed(self, consumer: str) -> Deferred[int | None]:
        """Read the position of a named consumer; None if it has none in this log."""
        return self._database.read(partial(_consumed, consumer=consumer), EVENTS)

    def consume(self, consumer: str, seq: int) -> Deferred[None]:
        """Store the position of a named consumer; it never moves back."""
        return self._database.write(partial(_consume, consumer=consumer, seq=seq))


def _extent(reader: Reader) -> Extent:
    with reader.snapshot():
        found = eventlog.counters(reader)
        return Extent(found.uuid, eventlog.oldest(reader), found.seq)


def _consumed(reader: Reader, consumer: str) -> int | None:
    row = reader.first(_POSITION, {"consumer": consumer})
    # A position of a log that was replaced by a backup means nothing here.
    known = row is not None and row[1] == eventlog.counters(reader).uuid
    return int(row[0]) if row is not None and known else None


def _consume(tx: Tx, consumer: str, seq: int) -> None:
    known = _consumed(tx, consumer)
    if known is not None and known >= seq:
        return
    tx.run(_FORGET, {"consumer": consumer})
    row = (consumer, eventlog.counters(tx).uuid, seq, tx.now)
    tx.insert_later(buildapi_consumers, row)
