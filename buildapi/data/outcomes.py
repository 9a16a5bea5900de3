"""
Waiting for an outcome: ``GET /api/v2/builds/7?until=complete&wait=60``.

It answers what the same GET without ``until`` and ``wait`` does, as soon as the object is complete;
at the latest after ``wait`` seconds, with the state of then. Whoever waits is woken by the batch
that may have changed the object, and costs the database nothing before. Where nobody tells of
changes, as another program writes the database, it is looked at every few seconds instead.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from twisted.internet.defer import Deferred, succeed
from twisted.internet.interfaces import IReactorTime

from buildapi.data.api import DataAPI, Gathered, Row, rows_of
from buildapi.data.fetch import Ask
from buildapi.data.gate import ANONYMOUS, Identity
from buildapi.data.query import Query, arguments
from buildapi.data.reach import Reach
from buildapi.data.values import seconds
from buildapi.db.groupcommit import Committed
from buildapi.errors import BadQuery, Unavailable
from buildapi.settings import Limits

DEFAULT_S = 30.0
# Where nobody tells of changes.
LOOK_EVERY_S = 2.0

_OURS = {"until", "wait"}
_COMPLETE = Query(fields=("complete",))


class _Waiter:
    """Who waits.  ``stale``: something may have changed since it looked."""

    def __init__(self) -> None:
        self.stale = False
        self._news: Deferred[None] | None = None

    def wake(self) -> None:
        """Have it look again."""
        self.stale = True
        news, self._news = self._news, None
        if news is not None:
            news.callback(None)

    def news(self, clock: IReactorTime, at_most_s: float) -> Deferred[None]:
        """Fire when there may be something new, or the time is over."""
        if self.stale:
            return succeed(None)
        self._news = news = Deferred[None](lambda _: setattr(self, "_news", None))
        over = clock.callLater(at_most_s, self.wake)

        def done(result: None) -> None:
            if over.active():
                over.cancel()
            return result

        return news.addBoth(done)


class Outcomes:
    """All who wait for something to be complete."""

    def __init__(self, data: DataAPI, clock: IReactorTime, limits: Limits) -> None:
        self._data = data
        self._clock = clock
        self._limits = limits
        self._reach: Reach[_Waiter] = Reach()
        self._waiters: set[_Waiter] = set()
        self._closed = False

    def __len__(self) -> int:
        """Return how many wait."""
        return len(self._waiters)

    async def awaited(self, path: str, text: str, identity: Identity = ANONYMOUS) -> str:
        """
        Wait as the query string ``text`` says; return what of it is left to be answered.

        Raises what a GET would raise; BadQuery if nothing like that can be waited for, Unavailable
        if too many wait already.
        """
        args = arguments(text)
        if "until" not in args:
            return text
        left = "&".join(part for part in text.split("&") if not _OURS & arguments(part).keys())
        wait_s = _seconds(args, self._limits.wait_s)
        ask = self._data.understood(path, left, identity)
        route = ask.match.route
        if route.kind != "one" or "complete" not in route.resource.fields:
            raise BadQuery(
                "until: only one object can be waited for, of a type that has the field complete"
            )
        if args["until"] != ["complete"]:
            raise BadQuery("until: complete is what can be waited for")
        if len(self._waiters) >= self._limits.waiting:
            raise Unavailable(
                f"{self._limits.waiting} requests wait for an outcome already; ask again later"
            )
        await self._until(self._data.asked(ask.match, _COMPLETE, ask.restriction), wait_s)
        return left

    def changed(self, committed: Committed) -> None:
        """Wake whom a batch, which is being published, may concern."""
        for waiter in self._reach.touched(committed):
            waiter.wake()

    def close(self) -> None:
        """Let go who waits: they are answered with the state of now."""
        self._closed = True
        for waiter in list(self._waiters):
            waiter.wake()

    async def _until(self, ask: Ask, wait_s: float) -> None:
        end = self._clock.seconds() + wait_s
        waiter = _Waiter()
        self._waiters.add(waiter)
        # Before the first look: what happens from now on is heard of.
        self._reach.add(ask, waiter)
        try:
            while True:
                waiter.stale = False
                complete = await self._complete(ask)
                left_s = end - self._clock.seconds()
                if complete or left_s <= 0 or self._closed:
                    return
                if not self._data.tells_versions:
                    left_s = min(left_s, LOOK_EVERY_S)
                await waiter.news(self._clock, left_s)
        finally:
            self._reach.remove(ask, waiter)
            self._waiters.discard(waiter)

    async def _complete(self, ask: Ask) -> bool:
        reading = self._data.fetch(ask, rows_of(ask), Gathered[list[Row]]())
        answer = await reading if isinstance(reading, Deferred) else reading
        ((row,),) = answer.parts
        return bool(row["complete"])


def _seconds(args: Mapping[str, Sequence[str]], most_s: float) -> float:
    if "wait" not in args:
        return min(DEFAULT_S, most_s)
    try:
        return min(seconds(args["wait"][0]), most_s)
    except ValueError:
        raise BadQuery("wait: a number of seconds is wanted") from None
