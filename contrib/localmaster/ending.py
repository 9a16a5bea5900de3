"""The end of a build, in one transaction: nobody ever sees half of it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from buildapi import BuildAPI
from buildapi.data.results import RETRY
from buildapi.db.transaction import Tx


async def end_build(
    api: BuildAPI, build: Mapping[str, Any], results: int, state_string: str
) -> None:
    """
    Finish a build with all of its steps and logs that are still open, and answer its request.

    RETRY gives the request back, so that it is built again; all other results complete it.
    """
    updates = api.data.updates
    buildid, requests = build["buildid"], [build["buildrequestid"]]
    steps = await api.data.get(("builds", buildid, "steps"), filters={"complete": False})
    logids = [
        log["logid"]
        for step in steps
        for log in await api.data.get(
            ("steps", step["stepid"], "logs"), filters={"complete": False}
        )
    ]

    def end(tx: Tx) -> None:
        for logid in logids:
            updates.finishLog.within(tx, logid)
        for step in steps:
            updates.setStepStateString.within(tx, step["stepid"], state_string)
            updates.finishStep.within(tx, step["stepid"], results, hidden=False)
        updates.setBuildStateString.within(tx, buildid, state_string)
        updates.finishBuild.within(tx, buildid, results)
        if results == RETRY:
            updates.unclaimBuildRequests.within(tx, requests)
        else:
            updates.completeBuildRequests.within(tx, requests, results)

    await api.data.transaction(end)
