"""
A master that builds without end, and serves: for tests that kill it.

    python building.py sqlite:////path/state.sqlite 0

It prints the port on which it listens.
"""

from __future__ import annotations

import sys
from itertools import count
from typing import Any

from twisted.internet.defer import Deferred, gatherResults
from twisted.internet.task import deferLater, react

from buildapi.service import BuildAPI
from buildapi.settings import Database, Server, Settings

BUILDERS = 3


async def building(reactor: Any, api: BuildAPI, name: str) -> None:
    """Run one build after the other."""
    updates = api.data.updates
    builderid = await updates.findBuilderId(name)
    workerid = await updates.findWorkerId(name)
    for number in count():
        _, requests = await updates.addBuildset(builderids=[builderid])
        await updates.claimBuildRequests([requests[builderid]])
        buildid, _ = await updates.newBuild(builderid, requests[builderid], workerid)
        await updates.setBuildProperty(buildid, "number", number, "building")
        stepid, _, _ = await updates.addStep(buildid, "compile")
        logid = await updates.addLog(stepid, "stdio", "t")
        for line in range(10):
            await updates.appendLog(logid, f"{line}\n")
            # A master has pauses, in which clients catch up.
            await deferLater(reactor, 0.01)
        await updates.finishStep(stepid, 0, hidden=False)
        await updates.finishBuild(buildid, 0)


async def run(reactor: Any, url: str, port: str) -> None:
    """Build until the end."""
    settings = Settings(
        server=Server(listen=f"tcp:{port}:interface=127.0.0.1"), database=Database(url=url)
    )
    async with BuildAPI(settings, master="test:/master", reactor=reactor) as api:
        assert api.port is not None
        address: Any = api.port.getHost()
        print(address.port, flush=True)  # noqa: T201  who started it reads that
        names = [f"builder{number}" for number in range(BUILDERS)]
        await gatherResults(
            [Deferred.fromCoroutine(building(reactor, api, name)) for name in names]
        )


if __name__ == "__main__":
    react(run, sys.argv[1:])
