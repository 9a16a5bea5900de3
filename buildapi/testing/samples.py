"""Builds to test with: each function makes what it needs besides."""

from __future__ import annotations

from collections.abc import Coroutine
from typing import Any, TypeVar

from twisted.internet.defer import Deferred

from buildapi.service import BuildAPI

T = TypeVar("T")


def a_request(api: BuildAPI, builder: str = "runtests") -> Deferred[int]:
    """Make a build request that nobody has claimed; fire with its id."""
    return _made(_request(api, builder))


def a_build(api: BuildAPI, builder: str = "runtests", worker: str = "linux") -> Deferred[int]:
    """Make a running build of a claimed request; fire with its id."""
    return _made(_build(api, builder, worker))


def a_step(api: BuildAPI, name: str = "compile", buildid: int | None = None) -> Deferred[int]:
    """Make a running step, of a new build if none is given; fire with its id."""
    return _made(_step(api, name, buildid))


def a_log(
    api: BuildAPI,
    text: str = "",
    *,
    name: str = "stdio",
    kind: str = "t",
    stepid: int | None = None,
    finished: bool = False,
) -> Deferred[int]:
    """
    Make a log with this text, of a new step if none is given; fire with its id.

    kind: "s" for lines that begin with the letter of their stream, "t" for text, "h" for HTML.
    """
    return _made(_log(api, text, name, kind, stepid, finished=finished))


def a_commit(api: BuildAPI, revision: str, parent: int | None = None) -> Deferred[int]:
    """Make a commit in the codebase ``core`` of the project ``app``; fire with its id."""
    return _made(_commit(api, revision, parent))


def _made(making: Coroutine[Any, Any, T]) -> Deferred[T]:
    return Deferred.fromCoroutine(making)


async def _request(api: BuildAPI, builder: str) -> int:
    updates = api.data.updates
    builderid = await updates.findBuilderId(builder)
    _, brids = await updates.addBuildset(
        scheduler="force", reason="a test", builderids=[builderid], sourcestamps=[]
    )
    return brids[builderid]


async def _build(api: BuildAPI, builder: str, worker: str) -> int:
    updates = api.data.updates
    brid = await _request(api, builder)
    await updates.claimBuildRequests([brid])
    workerid = await updates.findWorkerId(worker)
    buildid, _ = await updates.newBuild(await updates.findBuilderId(builder), brid, workerid)
    return buildid


async def _step(api: BuildAPI, name: str, buildid: int | None) -> int:
    updates = api.data.updates
    stepid, _, _ = await updates.addStep(buildid or await a_build(api), name)
    await updates.startStep(stepid)
    return stepid


async def _log(
    api: BuildAPI, text: str, name: str, kind: str, stepid: int | None, *, finished: bool
) -> int:
    updates = api.data.updates
    logid = await updates.addLog(stepid or await a_step(api), name, kind)
    if text:
        await updates.appendLog(logid, text)
    if finished:
        await updates.finishLog(logid)
    return logid


async def _commit(api: BuildAPI, revision: str, parent: int | None) -> int:
    updates = api.data.updates
    projectid = await updates.find_project_id("app")
    assert projectid is not None  # noqa: S101  it has been made, if it was not there
    codebaseid = await updates.find_codebase_id(projectid=projectid, name="core")
    assert codebaseid is not None  # noqa: S101  so has this
    return await updates.add_commit(
        codebaseid=codebaseid,
        author="alice",
        comments="a commit",
        when_timestamp=0,
        revision=revision,
        parent_commitid=parent,
    )
