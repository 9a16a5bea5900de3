"""
A master that builds as fast as it can, until it is ended.

    python -m soaking.master URL PORT FILE BUILDS

It appends to FILE what it has been told, at the moment when it is told: ``TABLE ID COLUMN VALUE``,
that this row has this value now. Each log's lines are numbered from 0. With 0 BUILDS at a time it
only serves. It prints a line when it is ready.
"""

from __future__ import annotations

import os
import random
import sys
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.task import react

from buildapi.errors import BuildAPIError
from buildapi.service import BuildAPI
from buildapi.settings import Database, Server, Settings

NAME = "soak:/master"


class Master:
    """Builds, one build after the other in each of its places."""

    def __init__(self, api: BuildAPI, file: int) -> None:
        self._api = api
        self._file = file

    async def build(self, place: int) -> None:
        """Build for ever."""
        updates = self._api.data.updates
        builderid = await updates.findBuilderId(f"builder {place}")
        workerid = await updates.findWorkerId(f"worker {place}")
        while True:
            bsid, requests = await updates.addBuildset(builderids=[builderid], reason="soak")
            request = requests[builderid]
            self._told("buildsets", bsid, "id", bsid)
            await updates.claimBuildRequests([request])
            buildid, _ = await updates.newBuild(builderid, request, workerid)
            self._told("builds", buildid, "buildrequestid", request)
            for name in ("configure", "compile", "test")[: random.randint(1, 3)]:
                await self._step(buildid, name)
            results = random.randint(0, 2)
            await updates.finishBuild(buildid, results)
            self._told("builds", buildid, "results", results)
            await updates.completeBuildRequests([request], results)
            self._told("buildrequests", request, "results", results)
            self._told("buildsets", bsid, "complete", 1)

    async def _step(self, buildid: int, name: str) -> None:
        updates = self._api.data.updates
        stepid, _, _ = await updates.addStep(buildid, name)
        self._told("steps", stepid, "buildid", buildid)
        await updates.startStep(stepid)
        logid = await updates.addLog(stepid, "stdio", "t")
        self._told("logs", logid, "stepid", stepid)
        written = 0
        for _ in range(random.randint(1, 20)):
            size = random.choice((1, 1, 1, 10, 1000))
            await updates.appendLog(logid, "".join(f"{written + n}\n" for n in range(size)))
            written += size
            self._told("logs", logid, "num_lines", written)
        await updates.finishLog(logid)
        self._told("logs", logid, "complete", 1)
        if random.random() < 0.5:  # noqa: PLR2004
            await updates.compressLog(logid)
        await updates.finishStep(stepid, 0, hidden=False)
        self._told("steps", stepid, "results", 0)

    def _told(self, *words: object) -> None:
        # At once, and whole: what the kernel has survives us.
        os.write(self._file, f"{' '.join(map(str, words))}\n".encode())


async def run(reactor: Any, url: str, port: str, path: str, builds: str) -> None:
    """Serve and build."""
    settings = Settings(
        server=Server(listen=f"tcp:{port}:interface=127.0.0.1"), database=Database(url=url)
    )
    api = BuildAPI(settings, master=NAME, reactor=reactor)
    reactor.addSystemEventTrigger("before", "shutdown", api.stopService)
    api.startService()
    await api.ready()
    assert api.masterid is not None
    # Builds that died with us end now, and their requests are for somebody else.
    await api.data.updates.masterStopped(NAME, api.masterid)
    await api.data.updates.masterActive(NAME, api.masterid)
    file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    master = Master(api, file)
    for place in range(int(builds)):
        building = Deferred.fromCoroutine(master.build(place))
        building.addErrback(lambda failure: failure.trap(BuildAPIError))
    print("ready", flush=True)
    await Deferred()


if __name__ == "__main__":
    react(run, sys.argv[1:])
