"""
``BuildAPI``: the service that a build master embeds.

    api = BuildAPI(Settings(), master="ci.example.org:/srv/ci")
    api.setServiceParent(master)
    await api.ready()
    buildid, number = await api.data.updates.newBuild(builderid, buildrequestid, workerid)

It owns the database, the bus, the data API and the web. It starts in that order and stops in the
opposite one: it accepts no more requests, finishes the work that it accepted within a deadline, and
closes.
"""

from __future__ import annotations

from collections.abc import Callable
from types import TracebackType
from typing import Any, Self

from twisted.application.service import MultiService
from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.defer import TimeoutError as DeadlinePassed
from twisted.internet.endpoints import serverFromString
from twisted.internet.error import CannotListenError
from twisted.internet.interfaces import IListeningPort
from twisted.logger import Logger
from twisted.python.failure import Failure

from buildapi.data.announce import announced
from buildapi.data.api import DataAPI
from buildapi.data.control import Control
from buildapi.data.gate import Gate
from buildapi.data.outcomes import Outcomes
from buildapi.data.state import State
from buildapi.data.watches import Watches
from buildapi.db.engine import Database
from buildapi.db.feed import Feed
from buildapi.db.groupcommit import Committed
from buildapi.db.history import StoredEvents
from buildapi.db.retention import Retention
from buildapi.errors import BuildAPIError, CannotOpen, Stopping
from buildapi.mq.bus import Bus
from buildapi.mq.history import Extent, replaced
from buildapi.settings import Settings
from buildapi.www.app import Web
from buildapi.www.channel import Site
from buildapi.www.listening import is_loopback, with_room
from buildapi.www.openfiles import shortage

# What each part of the service has at least to come to its end.
LEAST_S = 1.0

_log = Logger()


class BuildAPI(MultiService):
    """
    The data API and message bus of one build master.

    settings: see ``buildapi.settings``.  master: the name of the master that this process is,
    ``host:/base/directory``; else the setting server.master; a process without one only serves.
    reactor: Twisted's, if None.  gate: makes the gate that is asked from the first request on what
    everybody may see and do, told whether the server listens on loopback addresses only.

    After ``ready()``: ``masterid`` (None without a name), ``mq`` the bus, ``data`` the data API
    with its ``updates``, ``control``, ``state`` a key-value store, ``watches`` of queries, ``port``
    where it listens.
    """

    def __init__(
        self,
        settings: Settings,
        master: str | None = None,
        reactor: Any = None,
        gate: Callable[[bool], Gate] = Gate,
    ) -> None:
        MultiService.__init__(self)
        if reactor is None:
            from twisted.internet import reactor  # noqa: PLC0415  importing it installs it
        self.settings = settings
        self.master = master if master is not None else settings.server.master
        self.masterid: int | None = None
        self.port: IListeningPort | None = None
        self.reactor = reactor
        self.mq = Bus(clock=reactor)
        holder = self.master or "buildapi serve"
        self.database = Database(
            settings.database, reactor, self._committed, announced, holder, settings.events
        )
        listen = settings.server.listen
        self.data = DataAPI(
            self.database,
            gate(listen is None or is_loopback(listen)),
            settings.forcescheduler,
            most_rows=settings.limits.rows,
        )
        self.watches = Watches(self.data, reactor, settings.limits)
        self.outcomes = Outcomes(self.data, reactor, settings.limits)
        self.control = Control(self.data, self.mq, settings.control)
        self._retention = Retention(self.control.trims, self.data.transaction, reactor)
        self._feed: Feed | None = None
        self.state = State(self.database)
        self.web: Web | None = None
        self._waiting: list[Deferred[BuildAPI]] = []
        self._outcome: BuildAPI | Failure | None = None
        self._starting = False
        self._stopping: Deferred[None] | None = None

    def startService(self) -> None:
        """Begin to open the database; ``ready`` tells when everything works.  It starts once."""
        super().startService()  # type: ignore[no-untyped-call]  # only partly annotated
        self._starting = True
        Deferred.fromCoroutine(self._start()).addBoth(self._started)

    def ready(self) -> Deferred[BuildAPI]:
        """
        Fire with this service once it works.

        Fails with CannotOpen if the database or the address cannot be used.
        """
        if isinstance(self._outcome, Failure):
            return fail(self._outcome)
        if self._outcome is not None:
            return succeed(self._outcome)
        waiter: Deferred[BuildAPI] = Deferred()
        self._waiting.append(waiter)
        return waiter

    def reason_not_ready(self) -> str | None:
        """Return why requests are not served now, as a sentence; None if they are."""
        if not self.running:
            return "the service is being stopped"
        if isinstance(self._outcome, Failure):
            return str(self._outcome.value)
        return "the database is being opened" if self._outcome is None else None

    def seq(self) -> int | None:
        """Return the newest position of the event log, as far as its events have been delivered."""
        if not self.data.logged or self.database.writer is None:
            return None
        return self.data.totals.published

    async def _start(self) -> None:
        await self.database.open()
        try:
            await self._find_log()
            await self._find_master()
            self.web = Web(
                self.settings,
                self.data,
                self.control,
                self.mq,
                self.watches,
                self.outcomes,
                self.seq,
                self.reason_not_ready,
                self.reactor,
            )
            if self.settings.server.listen is not None:
                self.port = await self._listening(self.settings.server.listen, self.web.site)
            if self.database.writer is not None:
                self._retention.start()
        except BaseException:
            self._stop_feed()
            await self.database.close()
            raise

    def _stop_feed(self) -> None:
        if self._feed is not None:
            self._feed.stop()

    async def _find_log(self) -> None:
        """Have streams go back to the event log; follow it, if somebody else writes it."""
        if not self.data.logged:
            return
        events = self.settings.events
        history = StoredEvents(self.database, events.control_ttl_s, self.reactor.seconds)
        self.mq.history = history
        if self.database.writer is None:
            self._feed = Feed(
                history,
                self.database.identity,
                self.mq,
                self._committed,
                self._replaced,
                lambda: bool(self.mq.listeners or len(self.watches)),
                events.poll_interval_s,
                self.reactor,
            )
            await self._feed.start()

    async def _find_master(self) -> None:
        if self.database.writer is not None:
            self.mq.begin_after(self.database.writer.seq)
            self.data.totals.published = self.database.writer.seq
            if self.master is not None:
                self.masterid = await self.data.updates.findMasterId(self.master)
                self.data.updates.masterid = self.masterid
        elif self.master is not None:
            found = await self.data.get("masters", filters={"name": self.master})
            self.masterid = found[0]["masterid"] if found else None

    async def _listening(self, description: str, site: Site) -> IListeningPort:
        if (sentence := shortage(self.settings.limits)) is not None:
            _log.warn(sentence)
        try:
            listening: Deferred[IListeningPort]
            listening = serverFromString(self.reactor, with_room(description)).listen(site)
            return await listening
        except CannotListenError as error:
            reason = getattr(error.socketError, "strerror", None) or error.socketError
            raise CannotOpen(f"cannot listen on {description}: {reason}") from None
        except OSError as error:
            raise CannotOpen(f"cannot listen on {description}: {error.strerror}") from None
        except (ValueError, TypeError, RuntimeError, OverflowError) as error:
            raise CannotOpen(f"{description} is no endpoint to listen on: {error}") from None

    def _started(self, result: Any) -> None:
        if isinstance(result, Failure):
            if not result.check(BuildAPIError):
                _log.failure("buildapi did not start", result)
            elif not self._waiting:
                _log.error("{sentence}", sentence=result.getErrorMessage())
            self._settle(result)
        else:
            self._settle(self)

    def _settle(self, outcome: BuildAPI | Failure) -> None:
        self._outcome = outcome
        waiting, self._waiting = self._waiting, []
        for waiter in waiting:
            waiter.callback(outcome)  # a Failure makes it an errback

    def _committed(self, committed: Committed) -> None:
        self.data.changed(committed.touched, committed.seq)
        self.watches.changed(committed)
        self.outcomes.changed(committed)
        self.mq.publish(committed.events)

    def _replaced(self, extent: Extent) -> None:
        """Go over to an event log that another process has put in the place of ours."""
        self.database.identity = extent.log
        self.watches.refuse(replaced(self.data.totals.published, extent))

    def stopService(self) -> Deferred[None]:
        """
        Accept no more work, finish what was accepted within the deadline, close.

        Fires when that is done, for who stops it a second time too.
        """
        if self._stopping is None:
            self._stopping = Deferred.fromCoroutine(self._stop())
        stopped: Deferred[None] = Deferred()
        self._stopping.addBoth(_passed_on, stopped)
        return stopped

    async def _stop(self) -> None:
        await (super().stopService() or succeed(None))  # type: ignore[no-untyped-call]
        if self._starting and self._outcome is None:
            await self.ready().addErrback(lambda _: None)
        if isinstance(self._outcome, Failure):
            return
        self._retention.stop()
        self._stop_feed()
        if self.web is not None:
            await self._wind_down(self.web)
        self.watches.close()
        self.mq.close()
        self._settle(Failure(Stopping("the service has been stopped")))

    async def _wind_down(self, web: Web) -> None:
        end = self.reactor.seconds() + self.settings.server.stop_deadline_s
        if self.port is not None:
            await (self.port.stopListening() or succeed(None))
        sockets = web.sockets.close()
        self.outcomes.close()
        web.streams.close()
        web.events.close()
        web.hubs.close()
        # The database after the requests: a download that is under way still reads.
        await self._by(end, web.site.close())
        await self._by(end, self.database.close())
        await self._by(end, sockets)
        web.site.cut()

    async def _by(self, end: float, ending: Deferred[Any]) -> None:
        # Who comes last has a moment, even if others have used up the time.
        ending.addTimeout(max(LEAST_S, end - self.reactor.seconds()), self.reactor)
        try:
            await ending
        except DeadlinePassed:
            _log.warn("what was accepted took longer than the deadline; it was given up")

    async def __aenter__(self) -> Self:
        """Start, and wait until everything works."""
        self.startService()
        await self.ready()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        where: TracebackType | None,
    ) -> None:
        """Stop, whatever happened inside."""
        await self.stopService()


def _passed_on(result: Any, waiter: Deferred[None]) -> Any:
    waiter.callback(None)
    return result
