"""
The reads that keep views up to date: as few as will do, and never all the time.

A view is read once for however many batches came meanwhile, and rests after it.  Nothing is missed:
a batch that is delivered while a view is read makes it be read again, save if what was read has
that batch already.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Any, Self

from twisted.internet.defer import Deferred, maybeDeferred, succeed
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure

from buildapi.data.api import DataAPI, Gathered
from buildapi.data.contents import Pair, content
from buildapi.data.fetch import Fetched
from buildapi.data.views import View
from buildapi.data.waking import Waking
from buildapi.db.groupcommit import Committed
from buildapi.errors import BadQuery, NoSuchResource, Unavailable
from buildapi.mq.rest import TURN_S

# A view rests so many times as long as its read took: one that is slow does not read all the time.
REST = 3
# How many reads may be under way in threads; others read, too.
READS_AT_ONCE = 4
# When the database was busy, or lost.
RETRY_S = 1.0
# A batch that no view has yet: it has to be read again.
AGAIN = Committed((), {}, 2**63)

_log = Logger()


class _Bounded(Gathered[list[Pair]]):
    """Takes rows, up to a number of bytes."""

    def __init__(self, most_bytes: int) -> None:
        super().__init__()
        self._most, self._size = most_bytes, 0

    def __enter__(self) -> Self:
        self._size = 0
        return super().__enter__()

    def append(self, part: list[Pair], /) -> None:
        self._size += sum(len(row) for _, row in part)
        if self._size > self._most:
            raise BadQuery(
                f"the rows have more than {self._most} bytes; watch less, by filters, limit or "
                "field"
            )
        super().append(part)


class Readings:
    """
    Reads views, one after the other.

    waking: wakes who watches a view that has been read.  most_bytes: what the rows of a view may
    have.  ``count``: how often something was read.
    """

    def __init__(self, data: DataAPI, clock: IReactorTime, waking: Waking, most_bytes: int) -> None:
        self.count = 0
        self._data = data
        self._clock = clock
        self._waking = waking
        self._most_bytes = most_bytes
        self._queue: deque[View] = deque()
        self._going = False
        self._away = 0
        self._later: set[IDelayedCall] = set()
        self._closed = False

    def close(self) -> None:
        """Begin no other read."""
        self._closed = True
        for call in self._later:
            call.cancel()
        self._later.clear()

    def now(self, view: View) -> Deferred[None]:
        """Fire when the view shows at least what is there now."""
        if view.current:
            return succeed(None)
        waiter: Deferred[None] = Deferred()
        view.waiting.append(waiter)
        self.enqueue(view)
        self.go_on()
        return waiter

    def enqueue(self, view: View) -> None:
        """Have a view read: what it shows is out of date."""
        view.current = False
        if view.queued or view.reading is not None:
            return
        view.queued = True
        rest = view.rests_until - self._clock.seconds()
        if rest > 0:
            self._call_later(rest, self._rested, view)
        else:
            self._queue.append(view)

    def _rested(self, view: View) -> None:
        self._queue.append(view)
        self.go_on()

    def _call_later(self, delay: float, function: Callable[..., object], *args: Any) -> None:
        def call() -> None:
            self._later.discard(delayed)
            function(*args)

        delayed = self._clock.callLater(delay, call)
        self._later.add(delayed)

    def go_on(self) -> None:
        """Read what has to be read; not here if it is being done already."""
        if self._going:
            return
        self._going = True
        began = self._clock.seconds()
        while self._queue and self._away < READS_AT_ONCE:
            spent = self._clock.seconds() - began
            if spent > TURN_S:
                # As long for others as for watches.
                self._call_later(spent, self._resume)
                return
            self._begin(self._queue.popleft())
        self._going = False

    def _resume(self) -> None:
        self._going = False
        self.go_on()

    def _begin(self, view: View) -> None:
        view.queued = False
        if not view.watches or self._closed:
            return
        self.count += 1
        self._away += 1
        # All that has been delivered by now will be in what is read.
        view.missed = None
        waiting, view.waiting = view.waiting, []
        began, at = self._clock.seconds(), self._data.totals.published
        parts = _Bounded(self._most_bytes)
        reading: Deferred[Any] = maybeDeferred(self._data.fetch, view.asked.ask, view.rowing, parts)
        view.reading = reading
        reading.addCallbacks(self._read, self._not_read, (view,), {}, (view, at))
        reading.addErrback(view.fail)
        reading.addBoth(self._done, view, began, waiting)

    def _read(self, answer: Fetched[list[list[Pair]]], view: View) -> None:
        meta: dict[str, Any] = {}
        # What is read at once is no _Bounded yet.
        parts = _Bounded(self._most_bytes)
        for part in answer.parts:
            parts.append(part)
        pairs = [pair for part in parts for pair in part]
        if answer.total is not None:
            meta["total"] = answer.total
            if view.asked.cut and (view.asked.ask.query.offset + len(pairs)) < answer.total:
                meta["truncated"] = True
        view.show(content(pairs, meta, view.content), answer.seq or 0)

    def _not_read(self, failure: Failure, view: View, at: int) -> None:
        if failure.check(NoSuchResource):
            # A single object that is gone, or must not be seen any more, leaves.
            view.show(content((), {}, view.content), at, there=False)
            return
        if failure.check(Unavailable) and view.ready:
            _log.info("a watch is read again later: {why}", why=failure.getErrorMessage())
            view.rests_until = self._clock.seconds() + RETRY_S
            view.missed = AGAIN
            return
        failure.raiseException()

    def _done(self, _: object, view: View, began: float, waiting: list[Deferred[None]]) -> None:
        self._away -= 1
        view.reading = None
        now = self._clock.seconds()
        view.rests_until = max(view.rests_until, now + REST * (now - began))
        missed, view.missed = view.missed, None
        again = view.waiting or (missed is not None and not view.has(missed))
        view.current = not again
        self._waking.wake(view.watches)
        for waiter in waiting:
            waiter.callback(None)
        if again:
            self.enqueue(view)
        self.go_on()
