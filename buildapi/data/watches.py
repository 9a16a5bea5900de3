"""
Watches: what a GET would answer, kept up to date.

    watch = await api.watches.watch("builds?builderid=3&complete=false&order=-buildid&limit=20")
    watch.content.rows, watch.position           # what it shows, up to which event
    async for delta in watch:                    # and how that changes, until watch.close()
        ...

A *view* is one query with what its asker may see. It holds what the query showed last, and reads
again when a batch may have changed that (``Reach``): once for however many batches came meanwhile,
and for however many watches it has. A *watch* is one reader of a view. It remembers what its reader
was given last, and makes the difference to what the view shows when the reader comes for it: so one
that is slow costs no queue, and finds one difference.

Nothing is missed: a view waits for batches before it reads, and a batch that is delivered while it
reads makes it read again, save if what it read has that batch already.
"""

from __future__ import annotations

from collections import deque
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from typing import Any, NamedTuple, Self

from twisted.internet.defer import Deferred, maybeDeferred, succeed
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure

from buildapi.data.api import DataAPI, Gathered
from buildapi.data.fetch import Ask, Fetched
from buildapi.data.gate import MASTER, Identity, Restriction
from buildapi.data.reach import Reach
from buildapi.data.views import NOTHING, Content, Delta, Pair, Rowing, content, ident
from buildapi.db.groupcommit import Committed
from buildapi.errors import BadQuery, BadRequest, Conflict, NoSuchResource, Stopping, Unavailable
from buildapi.settings import Limits

# An idle watch has its position told at every second tick: at least every 30 seconds, as promised.
TICK_S = 12.0
# After so much time spent reading on the reactor's thread, it is somebody else's turn.
SLICE_S = 0.005
# A view rests so many times as long as its read took: one that is slow does not read all the time.
REST = 3
# How many reads may be under way in threads; others read, too.
READS_AT_ONCE = 4
# When the database was busy, or lost.
RETRY_S = 1.0

_log = Logger()


class _Asked(NamedTuple):
    """What a view shows.  cut: the list may go on behind the last row.  shows_id: among others."""

    ask: Ask
    cut: bool
    shows_id: bool

    @property
    def key(self) -> Any:
        """What is the same for whoever asks the same and may see the same."""
        route, bound = self.ask.match
        return route, tuple(bound.items()), self.ask.query, self.ask.restriction, self.cut


class View:
    """One query: what it showed last, and all who watch it."""

    def __init__(self, asked: _Asked) -> None:
        self.asked = asked
        self.rowing = Rowing(asked.ask, hidden=not asked.shows_id)
        self.content = NOTHING
        # Whether it was read at all, and whether the single object that it is of was there.
        self.ready = self.there = False
        self.seq = 0
        self.current = False
        self.queued = False
        self.reading: Deferred[Any] | None = None
        # The last batch that came while it was read: its position, and whether it had events.
        self.missed: Committed | None = None
        self.rests_until = 0.0
        self.watches: dict[Watch, None] = {}
        self.waiting: list[Deferred[None]] = []
        self._last: tuple[Content, Delta] | None = None

    def delta(self, old: Content) -> Delta:
        """Return what makes ``old`` what it is now; made once for all who were given ``old``."""
        if self._last is None or self._last[0] is not old:
            self._last = old, Delta(old, self.content)
        return self._last[1]

    def show(self, new: Content) -> None:
        """Show something else from now on."""
        self.content, self._last = new, None

    def has(self, committed: Committed) -> bool:
        """Say whether what was read last shows this batch."""
        # A batch without events has the position of the one before it.
        return self.seq > committed.seq or (self.seq == committed.seq and bool(committed.events))

    def wake(self) -> None:
        """Tell who watches that there is something new."""
        for watch in list(self.watches):
            watch.wake()


class Watch(AsyncIterator[Delta]):
    """
    One reader of a view; for one task at a time.

    ``content``: what the reader was given last.  ``position``: the event up to which that is what
    a GET shows.
    """

    def __init__(self, watches: Watches, path: str, query: str, identity: Identity) -> None:
        self.content = NOTHING
        self.position = 0
        self.closed = False
        self.failure: Failure | None = None
        self.identity = identity
        self.asks = (path, query)
        self.idle = False
        self.overdue = False
        self._watches = watches
        self._news: Deferred[None] | None = None

    async def __anext__(self) -> Delta:
        """Wait for the next difference; StopAsyncIteration after close()."""
        while (delta := self.take()) is None:
            await self.news()
            if self.closed:
                raise StopAsyncIteration
        return delta

    def news(self) -> Deferred[None]:
        """Fire as soon as ``take`` has something, the position is due to be told, or it ends."""
        if self.closed or self.failure or self.overdue or self._watches.ahead(self):
            return succeed(None)

        def cancelled(_: Deferred[None]) -> None:
            self._news = None

        self._news = Deferred(cancelled)
        return self._news

    def take(self) -> Delta | None:
        """
        Return what has changed since the last time, whatever that is by now; None: nothing.

        Raises what has ended the watch.
        """
        if self.failure is not None:
            self.failure.raiseException()
        self.idle = self.overdue = False
        return self._watches.taken(self)

    def close(self) -> None:
        """End it: who waits is let go."""
        if not self.closed:
            self.closed = True
            self._watches.leave(self)
            self.wake()

    def fail(self, failure: Failure) -> None:
        """End it with an error, for whoever takes next."""
        self.failure = failure
        self._watches.leave(self)
        self.wake()

    def wake(self) -> None:
        """Let go who waits, if there is a reason."""
        if self._news is not None and (
            self.closed or self.failure or self.overdue or self._watches.ahead(self)
        ):
            news, self._news = self._news, None
            news.callback(None)


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


class Watches:
    """
    All watches of a service.

    ``reads``: how often something was read for them.
    """

    def __init__(self, data: DataAPI, clock: IReactorTime, limits: Limits) -> None:
        self.reads = 0
        self._data = data
        self._clock = clock
        self._limits = limits
        self._reach: Reach[View] = Reach()
        self._views: dict[Any, View] = {}
        self._of_watch: dict[Watch, View] = {}
        self._restrictions: dict[Identity, Restriction | None] = {}
        self._queue: deque[View] = deque()
        self._going = False
        self._away = 0
        self._later: set[IDelayedCall] = set()
        self._ticking: IDelayedCall | None = None
        self._closed = False

    def __len__(self) -> int:
        """Return how many watches are open."""
        return len(self._of_watch)

    async def watch(self, path: str, identity: Identity = MASTER) -> Watch:
        """
        Watch what a GET of ``path``, with its query, answers; ``field`` and window included.

        Raises what the GET would raise; Conflict where nobody tells of changes; BadQuery for more
        than the limits allow.
        """
        if self._closed:
            raise Stopping("the service is being stopped")
        if not self._data.logged:
            raise Conflict(
                "nothing can be watched here, as nobody tells of changes: another program writes "
                "the database, or it is one of Buildbot's that was opened for reading only"
            )
        path, _, query = path.partition("?")
        # The root's own path is a slash.
        watch = Watch(self, path.removeprefix("/") or path, query, identity)
        view = self._join(watch)
        try:
            await self._now(view)
        except BaseException:
            watch.close()
            raise
        if watch.failure is not None:
            watch.failure.raiseException()
        if watch.closed:
            raise Stopping("the service is being stopped")
        if not view.there:
            watch.close()
            raise NoSuchResource(f"not found while getting {path}")
        watch.content, watch.position = view.content, self._valid_to(view)
        return watch

    def changed(self, committed: Committed) -> None:
        """Have read again what a batch, which is being published, may have changed."""
        # Before anything is told: what is not marked here counts as up to date with this batch.
        for view in self._reach.touched(committed):
            if view.reading is not None:
                view.missed = committed
            elif not view.has(committed):
                self._enqueue(view)
        self._heed_rights()
        self._go_on()

    def close(self) -> None:
        """End all of them."""
        self._closed = True
        for watch in list(self._of_watch):
            watch.close()
        for call in self._later:
            call.cancel()
        self._later.clear()

    # What a watch asks of us.

    def ahead(self, watch: Watch) -> bool:
        """Say whether its view shows something else than its reader has been given."""
        view = self._of_watch.get(watch)
        if view is None or not view.ready:
            return False
        return view.content is not watch.content and self._valid_to(view) >= watch.position

    def taken(self, watch: Watch) -> Delta | None:
        """Return what its view shows as a difference, and take note that it is given."""
        view = self._of_watch.get(watch)
        if view is None or not view.ready or self._valid_to(view) < watch.position:
            return None
        if view.content is watch.content:
            watch.position = self._valid_to(view)
            return None
        delta = view.delta(watch.content)
        watch.content = view.content
        watch.position = max(watch.position, view.seq)
        return delta

    def leave(self, watch: Watch) -> None:
        """Forget a watch, and its view if it was the last one."""
        view = self._of_watch.pop(watch, None)
        if view is None:
            return
        del view.watches[watch]
        if not view.watches:
            self._reach.remove(view.asked.ask, view)
            del self._views[view.asked.key]
            if view.reading is not None:
                view.reading.cancel()
            _let_go(view)
        if not self._of_watch:
            self._restrictions.clear()
            if self._ticking is not None:
                self._ticking.cancel()
                self._ticking = None

    def _valid_to(self, view: View) -> int:
        """Return the event up to which what a view shows is what a GET shows."""
        return max(view.seq, self._data.totals.published) if view.current else view.seq

    # Views.

    def _join(self, watch: Watch) -> View:
        asked = self._asked(*watch.asks, watch.identity)
        view = self._views.get(asked.key)
        if view is None:
            view = self._views[asked.key] = View(asked)
            # Before it is read: what happens from now on is heard of.
            self._reach.add(asked.ask, view)
        view.watches[watch] = None
        self._of_watch[watch] = view
        self._restrictions[watch.identity] = asked.ask.restriction
        if self._ticking is None:
            self._ticking = self._clock.callLater(TICK_S, self._tick)
        return view

    def _asked(self, path: str, text: str, identity: Identity) -> _Asked:
        ask = self._data.understood(path, text, identity)
        if ask.match.route.kind not in ("one", "many"):
            raise BadRequest("a download cannot be watched; follow the log instead")
        query, most = ask.query, self._limits.watch_rows
        cut = not ask.single and (query.limit is None or bool(ask.page and ask.page.capped))
        if cut:
            query = replace(query, limit=min(query.limit or most, most))
        elif query.limit is not None and query.limit > most and not ask.single:
            raise BadQuery(f"limit: {most} rows can be watched at once, not more")
        name = ident(ask)
        shows_id = query.fields is None or name is None or name in query.fields
        if query.fields is not None and name is not None and not shows_id:
            query = replace(query, fields=(*query.fields, name))
        return _Asked(self._data.asked(ask.match, query, ask.restriction), cut, shows_id)

    def _now(self, view: View) -> Deferred[None]:
        """Fire when the view shows at least what is there now."""
        if view.current:
            return succeed(None)
        waiter: Deferred[None] = Deferred()
        view.waiting.append(waiter)
        self._enqueue(view)
        self._go_on()
        return waiter

    def _heed_rights(self) -> None:
        """Have each watch show what its identity may see now."""
        gate = self._data.gate
        for identity, known in list(self._restrictions.items()):
            if gate.restriction(identity) == known:
                continue
            for watch in [one for one in self._of_watch if one.identity == identity]:
                self.leave(watch)
                view = self._join(watch)
                if view.current:
                    watch.wake()
                else:
                    self._enqueue(view)

    def _tick(self) -> None:
        self._ticking = self._clock.callLater(TICK_S, self._tick)
        known = {watch.identity for watch in self._of_watch}
        self._restrictions = {i: it for i, it in self._restrictions.items() if i in known}
        self._heed_rights()
        self._go_on()
        for watch in list(self._of_watch):
            watch.overdue = watch.overdue or watch.idle
            watch.idle = True
            watch.wake()

    # Reading.

    def _enqueue(self, view: View) -> None:
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
        self._go_on()

    def _call_later(self, delay: float, function: Callable[..., object], *args: Any) -> None:
        def call() -> None:
            self._later.discard(delayed)
            function(*args)

        delayed = self._clock.callLater(delay, call)
        self._later.add(delayed)

    def _go_on(self) -> None:
        """Read what has to be read; not here if it is being done already."""
        if self._going:
            return
        self._going = True
        began = self._clock.seconds()
        while self._queue and self._away < READS_AT_ONCE:
            spent = self._clock.seconds() - began
            if spent > SLICE_S:
                # As long for others as for watches.
                self._call_later(spent, self._resume)
                return
            self._begin(self._queue.popleft())
        self._going = False

    def _resume(self) -> None:
        self._going = False
        self._go_on()

    def _begin(self, view: View) -> None:
        view.queued = False
        if not view.watches or self._closed:
            return
        self.reads += 1
        self._away += 1
        # All that has been delivered by now will be in what is read.
        view.missed = None
        waiting, view.waiting = view.waiting, []
        began, at = self._clock.seconds(), self._data.totals.published
        parts = _Bounded(self._limits.watch_bytes)
        reading: Deferred[Any] = maybeDeferred(self._data.fetch, view.asked.ask, view.rowing, parts)
        view.reading = reading
        reading.addCallbacks(self._read, self._not_read, (view,), {}, (view, at))
        reading.addErrback(self._broken, view)
        reading.addBoth(self._done, view, began, waiting)

    def _read(self, answer: Fetched[list[list[Pair]]], view: View) -> None:
        meta: dict[str, Any] = {}
        # What is read at once is no _Bounded yet.
        parts = _Bounded(self._limits.watch_bytes)
        for part in answer.parts:
            parts.append(part)
        pairs = [pair for part in parts for pair in part]
        if answer.total is not None:
            meta["total"] = answer.total
            if view.asked.cut and (view.asked.ask.query.offset + len(pairs)) < answer.total:
                meta["truncated"] = True
        self._shown(view, content(pairs, meta, view.content), answer.seq or 0)

    def _not_read(self, failure: Failure, view: View, at: int) -> None:
        if failure.check(NoSuchResource):
            # A single object that is gone, or must not be seen any more, leaves.
            self._shown(view, content((), {}, view.content), at, there=False)
            return
        if failure.check(Unavailable) and view.ready:
            _log.info("a watch is read again later: {why}", why=failure.getErrorMessage())
            view.rests_until = self._clock.seconds() + RETRY_S
            view.missed = _AGAIN
            return
        failure.raiseException()

    def _shown(self, view: View, new: Content, seq: int, *, there: bool = True) -> None:
        view.seq = max(view.seq, seq)
        view.ready, view.there = True, there
        if new is not view.content:
            view.show(new)

    def _broken(self, failure: Failure, view: View) -> None:
        for watch in list(view.watches):
            watch.fail(failure)

    def _done(self, _: object, view: View, began: float, waiting: list[Deferred[None]]) -> None:
        self._away -= 1
        view.reading = None
        now = self._clock.seconds()
        view.rests_until = max(view.rests_until, now + REST * (now - began))
        missed, view.missed = view.missed, None
        again = view.waiting or (missed is not None and not view.has(missed))
        view.current = not again
        view.wake()
        for waiter in waiting:
            waiter.callback(None)
        if again:
            self._enqueue(view)
        self._go_on()


def _let_go(view: View) -> None:
    """Let go who waits for a view to be read."""
    waiting, view.waiting = view.waiting, []
    for waiter in waiting:
        waiter.callback(None)


# A batch that no view has yet: it has to be read again.
_AGAIN = Committed((), {}, 2**63)
