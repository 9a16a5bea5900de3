"""
Events that another process writes, published here too: how a process that only reads hears of them.

The log is looked at again and again. While nobody listens only its end is, so that whoever comes
begins there; what came before is nobody's loss, as who names a position reads it from the log.
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
from buildapi.mq.history import PORTION, History

# A log says what happened, not which rows that changed: it may have been any.
_ANY_ROW = dict.fromkeys(metadata.tables)

_log = Logger()


class Feed:
    """
    Delivers what a log gets as if it had been committed here.

    deliver: publishes it on the bus.  wanted: says whether anybody listens.  interval_s: seconds
    between two looks.
    """

    def __init__(
        self,
        history: History,
        bus: Bus,
        deliver: Callable[[Committed], None],
        wanted: Callable[[], bool],
        interval_s: float,
        clock: IReactorTime,
    ) -> None:
        self._history = history
        self._bus = bus
        self._deliver = deliver
        self._wanted = wanted
        self._interval_s = interval_s
        self._stopped = False
        self._loop = LoopingCall(self._look)
        self._loop.clock = clock

    async def start(self) -> None:
        """Begin at the end of the log, and look from now on."""
        await self._skip()
        if not self._stopped:
            self._loop.start(self._interval_s, now=False)

    def stop(self) -> None:
        """Look no more."""
        self._stopped = True
        if self._loop.running:
            self._loop.stop()

    def _look(self) -> Deferred[None]:
        looking = Deferred.fromCoroutine(self._read() if self._wanted() else self._skip())
        return looking.addErrback(_later)

    async def _read(self) -> None:
        """Publish all that has come."""
        bus = self._bus
        while not self._stopped:
            found = await self._history.replayed(bus.last_seq, PORTION)
            if self._stopped or found.begin is None:
                return
            if found.begin > bus.last_seq + 1:
                self._missed(found.begin)
            self._deliver(Committed(found.events, _ANY_ROW, found.position))
            # Behind those that are told to nobody any more.
            bus.begin_after(found.position)

    async def _skip(self) -> None:
        """Go to the end of the log, as nobody listens."""
        newest = (await self._history.extent()).newest
        # Who came meanwhile wants to hear of all that follows the position where he came.
        if not self._wanted():
            self._bus.begin_after(newest)

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
