"""The master: a Twisted service that embeds buildapi."""

from __future__ import annotations

import platform
from collections.abc import Sequence
from pathlib import Path

from twisted.application.service import MultiService
from twisted.internet.defer import Deferred, succeed
from twisted.internet.task import LoopingCall

from buildapi import BuildAPI, Settings
from buildapi.settings import Database, Server

from .config import Config, GitPoller
from .dispatch import Bench, Dispatcher
from .gitpoller import Poller
from .process import Reactor
from .register import own_scheduler, register

# Masters that have been silent for ten minutes are taken for lost.
SAY_ACTIVE_EVERY_S = 60.0


class LocalMaster(MultiService):
    """
    Builds what ``config`` says, and keeps everything about it in ``directory``.

    listen: where buildapi listens, as a Twisted endpoint.
    api: the embedded buildapi.  It is a child service, started first and stopped last.
    benches: the builders, once the master is ready.
    """

    def __init__(self, reactor: Reactor, config: Config, directory: Path, listen: str) -> None:
        MultiService.__init__(self)
        settings = Settings(
            server=Server(listen=listen),
            database=Database(url=f"sqlite:///{directory}/state.sqlite"),
            forcescheduler=config.forceschedulers,
        )
        self.master_name = f"{platform.node()}:{directory}"
        self.api = BuildAPI(settings, master=self.master_name, reactor=reactor)
        self.api.setServiceParent(self)  # type: ignore[no-untyped-call]  # only partly annotated
        self.benches: Sequence[Bench] = ()
        self._reactor = reactor
        self._config = config
        self._directory = directory
        self._dispatcher: Dispatcher | None = None
        self._pollers: list[Poller] = []
        self._alive = LoopingCall(lambda: Deferred.fromCoroutine(self._say_active()))
        self._alive.clock = reactor
        self._started: Deferred[None] = succeed(None)

    def startService(self) -> None:
        """Start buildapi, and when that's up, the master."""
        super().startService()  # type: ignore[no-untyped-call]
        self._started = Deferred.fromCoroutine(self._start())

    async def ready(self) -> None:
        """Wait until requests are built; fail as the start did."""
        await self._started

    def stopService(self) -> Deferred[None]:
        """Stop the master, and when its last word is stored, buildapi."""
        return Deferred.fromCoroutine(self._stop())

    async def _start(self) -> None:
        await self.api.ready()
        updates, masterid = self.api.data.updates, self.api.data.updates.serving
        # If the last run was killed, it says its farewell now: builds that it left unfinished end
        # as RETRY, and their requests are given back and will be built again.
        await updates.masterStopped(self.master_name, masterid)
        await self._say_active()
        self._alive.start(SAY_ACTIVE_EVERY_S, now=False)
        self.benches = await register(self.api, masterid, self._config)
        self._dispatcher = Dispatcher(
            self.api, self._reactor, self.benches, self._directory / "work"
        )
        await self._dispatcher.start()
        for one in self._config.gitpollers:
            await self._start_poller(one, masterid)

    async def _start_poller(self, config: GitPoller, masterid: int) -> None:
        schedulerid = await own_scheduler(self.api, masterid, config.name)
        wanted = [b.builderid for b in self.benches if b.builder.name in config.builder_names]
        poller = Poller(self.api, self._reactor, config, schedulerid, wanted)
        self._pollers.append(poller)
        await poller.start()

    async def _stop(self) -> None:
        await self._started.addErrback(lambda _: None)  # who asked ready() was told
        if self._alive.running:
            self._alive.stop()
        for poller in self._pollers:
            await poller.stop()
        if self._dispatcher is not None:
            await self._dispatcher.stop()
            await self.api.data.updates.masterStopped(
                self.master_name, self.api.data.updates.serving
            )
        await super().stopService()  # type: ignore[no-untyped-call]

    async def _say_active(self) -> None:
        updates = self.api.data.updates
        await updates.masterActive(self.master_name, updates.serving)
