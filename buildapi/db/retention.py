"""
How long the event log remembers (``events.keep_days`` and ``events.keep_count``), and other tables
whose rows are numbered in the order of their time, which is in the column ``at``.

Old rows go a slice at a time, each slice a transaction of its own, so that no other write waits
for more than one. Whole beginnings go, never rows from the middle, and never the newest one.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any

import sqlalchemy as sa
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import LoopingCall
from twisted.logger import Logger

from buildapi.db.transaction import Tx
from buildapi.errors import Unavailable

DAY_S = 86_400
EVERY_S = 60.0
# A slice takes 4 to 8 milliseconds, and at most 20 with a checkpoint of the WAL.
SLICE = 1_000

_log = Logger()


def trim(tx: Tx, table: sa.Table, keep_s: float, keep_count: int, most: int = SLICE) -> int:
    """Forget the oldest rows that are too old or too many, ``most`` at most; return how many."""
    ((first, newest),) = tx.rows(_ends(table), {})
    if first is None:
        return 0
    end = min(first + most, newest)
    bounds = {"too_many": newest - keep_count, "before": tx.at - keep_s}
    ((kept,),) = tx.rows(_first_kept(table), {"first": first, "end": end, **bounds})
    if kept is not None:
        end = kept
    return tx.run(_forget(table), {"end": end}) if first < end else 0


@lru_cache(maxsize=16)
def _ends(table: sa.Table) -> sa.Select[Any]:
    (number,) = table.primary_key.columns
    return sa.select(sa.func.min(number), sa.func.max(number))


@lru_cache(maxsize=16)
def _first_kept(table: sa.Table) -> sa.Select[Any]:
    (number,) = table.primary_key.columns
    return sa.select(sa.func.min(number)).where(
        number >= sa.bindparam("first"),
        number < sa.bindparam("end"),
        number > sa.bindparam("too_many"),
        table.c.at >= sa.bindparam("before"),
    )


@lru_cache(maxsize=16)
def _forget(table: sa.Table) -> sa.Delete:
    (number,) = table.primary_key.columns
    return sa.delete(table).where(number < sa.bindparam("end"))


class Retention:
    """
    Trims once a minute.

    trims: each forgets a slice, and returns SLICE if there may be more.  write: runs a body in a
    transaction.  ``forgotten``: how many rows went, since the start.
    """

    def __init__(
        self,
        trims: Sequence[Callable[[Tx], int]],
        write: Callable[[Callable[[Tx], int]], Deferred[int]],
        clock: IReactorTime,
    ) -> None:
        self._trims = trims
        self._write = write
        self._minutely = LoopingCall(lambda: Deferred.fromCoroutine(self._trimmed()))
        self._minutely.clock = clock
        self.forgotten = 0

    def start(self) -> None:
        """Begin, in a minute."""
        self._minutely.start(EVERY_S, now=False)

    def stop(self) -> None:
        """Trim no more."""
        if self._minutely.running:
            self._minutely.stop()

    async def _slice(self, one: Callable[[Tx], int]) -> int:
        number = await self._write(one)
        self.forgotten += number
        return number

    async def _trimmed(self) -> None:
        try:
            for one in self._trims:
                while await self._slice(one) == SLICE:
                    pass
        except Unavailable as error:
            _log.debug("nothing is forgotten now: {error}", error=error)
        except Exception:  # noqa: BLE001  there is a next minute
            _log.failure("what is old was not forgotten")
