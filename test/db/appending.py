"""
A master that appends to the logs of 20 builds as fast as it can, until it is ended.

    python appending.py sqlite:////path/state.sqlite

It prints what it has been told, at the moment when it is told: ``line LOGID FIRST LAST`` for every
append that was acknowledged, ``event SEQ`` for every event that was delivered. Each log's lines are
numbered from 0.
"""

from __future__ import annotations

import os
import sys
from typing import Any

from twisted.internet.defer import Deferred, gatherResults
from twisted.internet.task import react

from buildapi.errors import Stopping
from buildapi.mq.event import Event
from buildapi.service import BuildAPI
from buildapi.settings import Database, Server, Settings

BUILDS = 20
# Of every fifth build the lines come in texts so long that they are compressed in the pool.
MANY = 500


def say(*words: object) -> None:
    """Print a line at once, and whole."""
    os.write(1, f"{' '.join(map(str, words))}\n".encode())


async def appending(api: BuildAPI, number: int) -> None:
    """Run a build that never ends."""
    updates = api.data.updates
    builderid = await updates.findBuilderId(f"builder {number}")
    workerid = await updates.findWorkerId(f"worker {number}")
    _, requests = await updates.addBuildset(builderids=[builderid])
    await updates.claimBuildRequests([requests[builderid]])
    buildid, _ = await updates.newBuild(builderid, requests[builderid], workerid)
    stepid, _, _ = await updates.addStep(buildid, "compile")
    logid = await updates.addLog(stepid, "stdio", "t")
    size, line = (MANY if number % 5 == 0 else 1), 0
    while True:
        text = "".join(f"{n}\n" for n in range(line, line + size))
        say("line", logid, *await updates.appendLog(logid, text))
        line += size


async def run(reactor: Any, url: str) -> None:
    """Append until SIGTERM, or SIGKILL."""
    say("opening")
    settings = Settings(server=Server(listen=None), database=Database(url=url))
    api = BuildAPI(settings, master="test:/master", reactor=reactor)
    reactor.addSystemEventTrigger("before", "shutdown", api.stopService)

    def delivered(event: Event) -> None:
        say("event", event.seq)

    api.mq.listen("#", delivered)
    api.startService()
    await api.ready()
    builds = [Deferred.fromCoroutine(appending(api, number)) for number in range(BUILDS)]
    for build in builds:
        build.addErrback(lambda failure: failure.trap(Stopping))
    await gatherResults(builds, consumeErrors=True)
    await Deferred()


if __name__ == "__main__":
    react(run, sys.argv[1:])
