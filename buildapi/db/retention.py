"""
How long the event log remembers: ``events.keep_days`` and ``events.keep_count``.

Old events go a slice at a time, each slice a transaction of its own, so that no other write waits
for more than one. Whole beginnings of the log go, never events from its middle, and never the
newest one.
"""

from __future__ import annotations

from collections.abc import Callable

import sqlalchemy as sa
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import LoopingCall
from twisted.logger import Logger

from buildapi.db import eventlog
from buildapi.db.tables import buildapi_events
from buildapi.db.transaction import Tx
from buildapi.errors import Unavailable
from buildapi.settings import Events

DAY_S = 86_400
EVERY_S = 60.0
# A slice takes 4 to 8 milliseconds, and at most 20 with a checkpoint of the WAL.
SLICE = 1_000

_log = Logger()

_FIRST_KEPT = sa.select(sa.func.min(buildapi_events.c.seq)).where(
    buildapi_events.c.seq >= sa.bindparam("first"),
    buildapi_events.c.seq < sa.bindparam("end"),
    buildapi_events.c.seq > sa.bindparam("too_many"),
    buildapi_events.c.at >= sa.bindparam("before"),
)
_FORGET = sa.delete(buildapi_events).where(buildapi_events.c.seq < sa.bindparam("end"))


def trim(tx: Tx, settings: Events, most: int = SLICE) -> int:
    """Forget the oldest events that are too old or too many, ``most`` at most; return how many."""
    first = eventlog.oldest(tx)
    end = min(first + most, tx.seq)
    bounds = {
        "too_many": tx.seq - settings.keep_count,
        "before": tx.at - settings.keep_days * DAY_S,
    }
    row = tx.first(_FIRST_KEPT, {"first": first, "end": end, **bounds})
    if row is not None and row[0] is not None:
        end = row[0]
    return tx.run(_FORGET, {"end": end}) if first < end else 0


class Retention:
    """Trims the event log once a minute.  write: runs a body in a transaction."""

    def __init__(
        self,
        settings: Events,
        write: Callable[[Callable[[Tx], int]], Deferred[int]],
        clock: IReactorTime,
    ) -> None:
        self._settings = settings
        self._write = write
        self._minutely = LoopingCall(lambda: Deferred.fromCoroutine(self._trimmed()))
        self._minutely.clock = clock

    def start(self) -> None:
        """Begin, in a minute."""
        self._minutely.start(EVERY_S, now=False)

    def stop(self) -> None:
        """Trim no more."""
        if self._minutely.running:
            self._minutely.stop()

    async def _trimmed(self) -> None:
        try:
            while await self._write(lambda tx: trim(tx, self._settings)) == SLICE:
                pass
        except Unavailable as error:
            _log.debug("the event log is not trimmed now: {error}", error=error)
        except Exception:  # noqa: BLE001  there is a next minute
            _log.failure("the event log was not trimmed")
