"""
From build requests to builds: who waits, who is free, who is told to stop.

A paused worker starts no builds; one that is to stop finishes its build and disconnects, until the
master starts again; one that is killed does so at once, and its request is given back.

A request is known from its events alone, each of which carries the whole object: it waits if it is
neither claimed nor complete.  Listen first, then read the requests that wait already, and none is
missed.  What is read may be out of date by the time it's used; the claim finds that out.
"""

from __future__ import annotations

from collections.abc import Coroutine, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from twisted.internet.defer import Deferred, DeferredList
from twisted.internet.task import deferLater
from twisted.logger import Logger
from twisted.python.failure import Failure

from buildapi import BuildAPI, Event
from buildapi.data.results import CANCELLED, RETRY
from buildapi.db.transaction import Tx
from buildapi.errors import Stopping
from buildapi.mq.listener import Listener

from .builds import BuildRun, Order
from .config import Builder
from .patience import insist
from .process import Reactor

# How long a clean stop waits for builds to end; what is left then is recovered at the next start.
STOP_WITHIN_S = 15.0

INTERRUPTED = "interrupted: the master was stopped"

_log = Logger()

Request = Mapping[str, Any]


@dataclass(frozen=True)
class Worker:
    """A place where one build can run at a time."""

    workerid: int
    name: str


@dataclass
class Bench:
    """A builder at work: the requests that wait for it, and its workers that are free."""

    builder: Builder
    builderid: int
    free: list[Worker]
    waiting: dict[int, Request] = field(default_factory=dict)

    def take(self) -> Request:
        """Take the most urgent request, among equals the oldest."""
        best = min(
            self.waiting.values(),
            key=lambda r: (-r["priority"], r["submitted_at"], r["buildrequestid"]),
        )
        return self.waiting.pop(best["buildrequestid"])


class Dispatcher:
    """Takes build requests, runs builds, obeys control messages."""

    def __init__(
        self, api: BuildAPI, reactor: Reactor, benches: Sequence[Bench], workspace: Path
    ) -> None:
        self._api = api
        self._reactor = reactor
        self._benches = {bench.builderid: bench for bench in benches}
        self._workspace = workspace
        self._runs: dict[int, BuildRun] = {}
        self._names = {w.workerid: w.name for bench in benches for w in bench.free}
        self._paused: set[int] = set()
        self._leaving: set[int] = set()
        self._claiming: list[int] = []
        self._unheard: list[Event] = []
        self._listeners: list[Listener] = []
        self._tasks: set[Deferred[None]] = set()
        self._stopping = False

    async def start(self) -> None:
        """Take the requests that wait already, and hear of all others."""
        self._listeners = [
            self._api.mq.listen("buildrequest.*.*", lambda event: self._consider(event.message)),
            self._api.mq.listen("worker.*.state_updated", lambda event: self._heed(event.message)),
            self._api.control.obey(self._obey),
        ]
        for worker in await self._api.data.get("workers"):
            self._heed(worker)
        waiting = await self._api.data.get(
            "buildrequests", filters={"claimed": False, "complete": False}
        )
        for request in waiting:
            self._consider(request)

    async def stop(self) -> None:
        """Stop all builds; they are given back, to be built again."""
        self._stopping = True
        for listener in self._listeners:
            listener.close()
        for run in self._runs.values():
            run.stop(RETRY, INTERRUPTED)
        deadline: Deferred[None] = deferLater(self._reactor, STOP_WITHIN_S)
        ended = DeferredList(list(self._tasks)).addCallback(lambda _: None)
        await DeferredList([ended, deadline], fireOnOneCallback=True, consumeErrors=True)
        deadline.cancel()

    def _consider(self, request: Request) -> None:
        bench = self._benches.get(request["builderid"])
        if bench is None:
            return
        if request["claimed"] or request["complete"]:
            bench.waiting.pop(request["buildrequestid"], None)
        else:
            bench.waiting[request["buildrequestid"]] = request
            self._start_builds(bench)

    def _heed(self, worker: Mapping[str, Any]) -> None:
        """Let a worker rest, or work again, as its flags say."""
        workerid = worker["workerid"]
        if worker["graceful"] and workerid in self._names and workerid not in self._leaving:
            self._leaving.add(workerid)
            if any(free.workerid == workerid for b in self._benches.values() for free in b.free):
                self._do(self._disconnect(workerid))
        if worker["paused"]:
            self._paused.add(workerid)
        elif workerid in self._paused:
            self._paused.remove(workerid)
            for bench in self._benches.values():
                self._start_builds(bench)

    async def _disconnect(self, workerid: int) -> None:
        updates = self._api.data.updates
        await insist(self._reactor, lambda: updates.workerDisconnected(workerid, updates.serving))

    def _start_builds(self, bench: Bench) -> None:
        resting = self._paused | self._leaving
        ready = [worker for worker in bench.free if worker.workerid not in resting]
        while ready and bench.waiting and not self._stopping:
            bench.free.remove(ready[0])
            self._do(self._serve(bench, ready.pop(0), bench.take()))

    async def _serve(self, bench: Bench, worker: Worker, request: Request) -> None:
        """Claim a request and build it; whatever happens, the worker is free again afterwards."""
        logids: list[int] = []
        try:
            order = await self._claim(bench, worker, request)
            if order is not None:
                logids = await self._build(order)
            else:
                self._hear_again()
        finally:
            bench.free.append(worker)
            if worker.workerid in self._leaving and not self._stopping:
                self._do(self._disconnect(worker.workerid))
            self._start_builds(bench)
        for logid in logids:
            if not self._stopping:
                await self._api.data.updates.compressLog(logid)

    async def _build(self, order: Order) -> list[int]:
        run = BuildRun(self._api, self._reactor, order)
        self._runs[order.build["buildrequestid"]] = run
        self._hear_again()
        if self._stopping:
            run.stop(RETRY, INTERRUPTED)
        try:
            return await run.run()
        finally:
            del self._runs[order.build["buildrequestid"]]

    async def _claim(self, bench: Bench, worker: Worker, request: Request) -> Order | None:
        updates, brid = self._api.data.updates, request["buildrequestid"]

        def claim(tx: Tx) -> tuple[int, int] | None:
            # One transaction: no claim without a build, no build without a claim.
            if not updates.claimBuildRequests.within(tx, [brid]):
                return None
            return updates.newBuild.within(tx, bench.builderid, brid, worker.workerid)

        self._claiming.append(brid)
        try:
            made = await insist(self._reactor, lambda: self._api.data.transaction(claim))
        finally:
            self._claiming.remove(brid)
        if made is None:
            return None
        buildid, number = made
        build = {"buildid": buildid, "number": number, "buildrequestid": brid}
        return Order(bench.builder, worker.name, build, request, self._workspace / worker.name)

    def _hear_again(self) -> None:
        """Obey what was asked between the commit of a claim and our hearing of it."""
        unheard, self._unheard = self._unheard, []
        for event in unheard:
            self._obey(event)

    def _obey(self, event: Event) -> None:
        """Obey ``control.build.10.stop``, ``….buildrequest.12.cancel``, ``….worker.3.kill``."""
        _, subject, ident, verb = event.topic.split(".")
        text = f"stopped: {event.message['reason']}"
        if subject == "build":
            self._stop_build(int(ident), text, event)
        elif subject == "buildrequest":
            self._cancel_request(int(ident), text, event)
        elif verb == "kill":  # a worker's other messages go with flags, which _heed is told of
            self._kill_worker(int(ident), f"worker killed: {event.message['reason']}", event)

    def _stop_build(self, buildid: int, text: str, event: Event) -> None:
        found = [run for run in self._runs.values() if run.buildid == buildid]
        for run in found:
            run.stop(CANCELLED, text)
        if not found and self._claiming:
            self._unheard.append(event)

    def _cancel_request(self, brid: int, text: str, event: Event) -> None:
        if brid in self._runs:
            self._runs[brid].stop(CANCELLED, text)
        elif brid in self._claiming:
            self._unheard.append(event)
        else:
            # It was claimed when somebody asked, and has been given back since.
            self._do(self._cancel_waiting(brid))

    def _kill_worker(self, workerid: int, text: str, event: Event) -> None:
        found = [run for run in self._runs.values() if run.worker == self._names.get(workerid)]
        for run in found:
            run.stop(RETRY, text)
        if not found and self._claiming:
            self._unheard.append(event)
        elif workerid in self._names:
            self._do(self._let_go(workerid))

    async def _let_go(self, workerid: int) -> None:
        updates = self._api.data.updates
        await insist(self._reactor, lambda: updates.set_worker_graceful(workerid, True))

    async def _cancel_waiting(self, brid: int) -> None:
        updates = self._api.data.updates
        await insist(self._reactor, lambda: updates.cancelBuildRequest(brid))

    def _do(self, work: Coroutine[Deferred[Any], Any, None]) -> None:
        """Let work go on by itself; what goes wrong in it is logged."""
        task = Deferred.fromCoroutine(work)
        self._tasks.add(task)
        task.addErrback(_tell_unexpected)
        task.addCallback(lambda _: self._tasks.discard(task))


def _tell_unexpected(failure: Failure) -> None:
    # What is cut off by the end of the service is recovered at the next start.
    if not failure.check(Stopping):
        _log.failure("a build could not be served", failure)
