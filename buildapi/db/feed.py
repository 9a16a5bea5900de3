"""
Events that another process writes, published here too: how a process that only reads hears of them.

The log is looked at again and again. While nobody listens only its end is, so that whoever comes
begins there; what came before is nobody's loss, as who names a position reads it from the log.

It may be replaced meanwhile, as a backup was restored: it has another identity then, or ends before
what was read already. Positions that were told are none of it, and whoever has one hears so.
"""

from __future__ import annotations

from collections.abc import Callable

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import LoopingCall
from twisted.logger import Logger
from twisted.python.failure import Failure

from buildapi.db.groupcommit import Committed
from buildapi.db.tables import metadata
from buildapi.errors import BuildAPIError
from buildapi.mq.bus import Bus
from buildapi.mq.history import PORTION, Extent, History

# A log says what happened, not which rows that changed: it may have been any.
_ANY_ROW = dict.fromkeys(metadata.tables)

_log = Logger()


class Feed:
    """
    Delivers what a log gets as if it had been committed here.

    log: its identity.  deliver: publishes it on the bus.  replaced: told of a log that takes its
    place, after the bus and before anything of it is delivered.  wanted: says whether anybody
    listens.  interval_s: seconds between two looks.
    """

    def __init__(
        self,
        history: History,
        log: str | None,
        bus: Bus,
        deliver: Callable[[Committed], None],
        replaced: Callable[[Extent], None],
        wanted: Callable[[], bool],
        interval_s: float,
        clock: IReactorTime,
    ) -> None:
        self._history = history
        self._log = log
        self._bus = bus
        self._deliver = deliver
        self._replaced = replaced
        self._wanted = wanted
        self._interval_s = interval_s
        self._stopped = False
        self._loop = LoopingCall(self._look)
        self._loop.clock = clock

    async def start(self) -> None:
        """Begin at the end of the log, and look from now on."""
        await self._looked()
        if not self._stopped:
            self._loop.start(self._interval_s, now=False)

    def stop(self) -> None:
        """Look no more."""
        self._stopped = True
        if self._loop.running:
            self._loop.stop()

    def _look(self) -> Deferred[None]:
        return Deferred.fromCoroutine(self._looked()).addErrback(_later)

    async def _looked(self) -> None:
        wanted = self._wanted()
        newest = await self._end()
        if wanted:
            await self._read()
        elif not self._wanted():
            # Who came meanwhile wants to hear of all that follows the position where he came.
            self._bus.begin_after(newest)

    async def _end(self) -> int:
        """Return where the log ends, having gone over to another one if it was replaced."""
        extent = await self._history.extent()
        if not self._stopped and (extent.log != self._log or extent.newest < self._bus.last_seq):
            _log.warn("the event log was replaced; it is {log} now", log=extent.log)
            self._log = extent.log
            self._bus.begin_anew(extent)
            self._replaced(extent)
            self._deliver(Committed((), _ANY_ROW, self._bus.last_seq))
        return extent.newest

    async def _read(self) -> None:
        """Publish all that has come."""
        bus = self._bus
        while not self._stopped:
            found = await self._history.replayed(bus.last_seq, PORTION)
            if self._stopped or found.begin is None:
                return
            if found.begin > bus.last_seq + 1:
                # Another log begins far above the old one.
                read = bus.last_seq
                await self._end()
                if self._stopped or bus.last_seq != read:
                    continue
                self._missed(found.begin)
            self._deliver(Committed(found.events, _ANY_ROW, found.position))
            # Behind those that are told to nobody any more.
            bus.begin_after(found.position)

    def _missed(self, begin: int) -> None:
        """Have the streams say that events were forgotten before they could be read here."""
        bus = self._bus
        _log.warn(
            "events {first} to {last} were forgotten before this process read them",
            first=bus.last_seq + 1,
            last=begin - 1,
        )
        bus.begin_after(begin - 1)
        for stream in bus.streams:
            stream.look_back()


def _later(failure: Failure) -> None:
    # The database is busy or lost: the next look may find it again.
    if not failure.check(BuildAPIError):
        _log.failure("the event log could not be read", failure)
