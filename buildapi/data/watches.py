"""
Watches: what a GET would answer, kept up to date.

    watch = await api.watches.watch("builds?builderid=3&complete=false&order=-buildid&limit=20")
    watch.content.rows, watch.position           # what it shows, up to which event
    async for delta in watch:                    # and how that changes, until watch.close()
        ...

A *view* is one query with what its asker may see.  It is read again when a batch may have changed
what it shows (``Reach``), once for all who watch it; a *watch* is one of them.  Nothing is missed:
a view waits for batches before it is read.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.python.failure import Failure

from buildapi.data.api import DataAPI
from buildapi.data.contents import ident
from buildapi.data.gate import MASTER, Identity, Restriction
from buildapi.data.reach import Reach
from buildapi.data.readings import Readings
from buildapi.data.views import Asked, View
from buildapi.data.waking import Waking
from buildapi.data.watch import Watch
from buildapi.db.groupcommit import Committed
from buildapi.errors import BadQuery, BadRequest, Conflict, Gone, NoSuchResource, Stopping
from buildapi.settings import Limits

# An idle watch has its position told at every second tick.
TICKS_PER_BOOKMARK = 2


class Watches:
    """All watches of a service."""

    def __init__(self, data: DataAPI, clock: IReactorTime, limits: Limits) -> None:
        self._data = data
        self._clock = clock
        self._limits = limits
        self._tick_s = limits.bookmark_s / TICKS_PER_BOOKMARK
        self._reach: Reach[View] = Reach()
        self._views: dict[Any, View] = {}
        self._watches: dict[Watch, None] = {}
        self._restrictions: dict[Identity, Restriction | None] = {}
        self._waking = Waking(clock)
        self._readings = Readings(data, clock, self._waking, limits.watch_bytes)
        self._ticking: IDelayedCall | None = None
        self._closed = False

    def __len__(self) -> int:
        """Return how many watches are open."""
        return len(self._watches)

    @property
    def reads(self) -> int:
        """How often something was read for them."""
        return self._readings.count

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
        watch = Watch(path.removeprefix("/") or path, query, identity, self._leave)
        view = self._join(watch)
        try:
            await self._readings.now(view)
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
        watch.start(view)
        return watch

    def changed(self, committed: Committed) -> None:
        """Have read again what a batch, which is being published, may have changed."""
        # Before anything is told: what is not marked here counts as up to date with this batch.
        for view in self._reach.touched(committed):
            if view.reading is not None:
                view.missed = committed
            elif not view.has(committed):
                self._readings.enqueue(view)
        self._heed_rights()
        self._readings.go_on()

    def refuse(self, error: Gone) -> None:
        """End all of them with an error: the positions that were told are none any more."""
        for watch in list(self._watches):
            watch.fail(Failure(error))

    def close(self) -> None:
        """End all of them."""
        self._closed = True
        for watch in list(self._watches):
            watch.close()
        self._readings.close()
        self._waking.close()

    def _join(self, watch: Watch) -> View:
        asked = self._asked(*watch.asks, watch.identity)
        view = self._views.get(asked.key)
        if view is None:
            view = self._views[asked.key] = View(asked, self._published)
            # Before it is read: what happens from now on is heard of.
            self._reach.add(asked.ask, view)
        view.watches[watch] = None
        watch.view = view
        self._watches[watch] = None
        self._restrictions[watch.identity] = asked.ask.restriction
        if self._ticking is None:
            self._ticking = self._clock.callLater(self._tick_s, self._tick)
        return view

    def _asked(self, path: str, text: str, identity: Identity) -> Asked:
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
        return Asked(self._data.asked(ask.match, query, ask.restriction), cut, shows_id)

    def _leave(self, watch: Watch) -> None:
        """Forget a watch, and its view if it was the last one."""
        view, watch.view = watch.view, None
        if view is None:
            return
        del self._watches[watch]
        del view.watches[watch]
        if not view.watches:
            self._reach.remove(view.asked.ask, view)
            del self._views[view.asked.key]
            if view.reading is not None:
                view.reading.cancel()
            view.let_go()
        if not self._watches:
            self._restrictions.clear()
            if self._ticking is not None:
                self._ticking.cancel()
                self._ticking = None

    def _heed_rights(self) -> None:
        """Have each watch show what its identity may see now."""
        gate = self._data.gate
        for identity, known in list(self._restrictions.items()):
            if gate.restriction(identity) == known:
                continue
            for watch in [one for one in self._watches if one.identity == identity]:
                self._leave(watch)
                view = self._join(watch)
                if view.current:
                    watch.wake()
                else:
                    self._readings.enqueue(view)

    def _tick(self) -> None:
        self._ticking = self._clock.callLater(self._tick_s, self._tick)
        known = {watch.identity for watch in self._watches}
        self._restrictions = {i: it for i, it in self._restrictions.items() if i in known}
        self._heed_rights()
        self._readings.go_on()
        for watch in self._watches:
            watch.overdue = watch.overdue or watch.idle
            watch.idle = True
        self._waking.wake(self._watches)

    def _published(self) -> int:
        return self._data.totals.published
