"""What a change costs the watches that it does not concern: nothing."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
from twisted.internet.defer import Deferred

from buildapi.data.api import AllUpdates
from buildapi.service import BuildAPI
from buildapi.testing import (
    WebSocketClient,
    Wire,
    a_build,
    a_log,
    a_step,
    result_of,
)
from test.www.watch.watching import Mirror, builderid_of


def read_by(
    api: BuildAPI, monkeypatch: pytest.MonkeyPatch, change: Callable[[], Deferred[Any]]
) -> list[str]:
    """Return the patterns of the paths that are read while something changes."""
    read: list[str] = []
    fetch = api.data.fetch

    def noting(ask: Any, *args: Any) -> Any:
        read.append(ask.match.route.pattern)
        return fetch(ask, *args)

    with monkeypatch.context() as patch:
        patch.setattr(api.data, "fetch", noting)
        result_of(change())
    return sorted(read)


def test_a_change_costs_only_those_whom_it_may_concern(
    api: BuildAPI, ws: WebSocketClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By table, by row, by parent; whoever asks the same is answered by one read."""
    updates = api.data.updates
    logid = result_of(a_log(api))
    other = result_of(a_build(api, builder="docs"))
    mine = builderid_of(api, "runtests")
    paths = [
        "masters",
        "builds/1",
        f"builds?builderid={mine}",
        f"builders/{mine}/builds",
        "builds?complete=false",
        "builds/1/steps",
        "steps/1/logs",
        f"logs/{logid}",
        f"builds/{other}/steps?order=name",
    ]
    second = WebSocketClient(Wire(api))
    for number, path in enumerate(paths):
        Mirror(ws, path, sub=number)
        Mirror(second, path, sub=number)
    read = partial(read_by, api, monkeypatch)

    assert read(lambda: updates.appendLog(logid, "x\n")) == ["logs/n:logid", "steps/n:stepid/logs"]
    assert read(lambda: updates.setBuildStateString(other, "x")) == ["builds"]
    assert read(lambda: updates.addStep(other, "x")) == ["builds/n:buildid/steps"]
    assert read(lambda: updates.findWorkerId("somebody")) == []
    assert read(lambda: updates.setBuildStateString(1, "x")) == [
        *("builders/n:builderid/builds", "builds", "builds", "builds/n:buildid"),
    ]


# What is asked about the first builder, its builds, and what else the other one has no part in.
MINE = [
    "builders/1",
    "builders/1/builds",
    "builds?builderid=1&complete=false&order=-buildid&limit=20",
    "builds?builderid=1&property=*",
    "builds/1",
    "builds/1?property=*",
    "builds/1/properties",
    "builds/1/steps",
    "builds/1/steps/0",
    "builds/1/data",
    "steps/1",
    "steps/1/logs",
    "logs/1",
    "logs/1/contents",
    "builders/1/buildrequests",
    "buildrequests?builderid=1",
    "buildrequests/1",
    "changes?branch=main&author=a",
    "workers/1",
    "masters/1",
    "changesources",
]


# What happens to the build 2 of another builder, whose step is 2, its log 2 and its request 2.
OTHERS: dict[str, Callable[[AllUpdates], Deferred[Any]]] = {
    "state": lambda u: u.setBuildStateString(2, "busy"),
    "property": lambda u: u.setBuildProperty(2, "a", 1, "test"),
    "property again": lambda u: u.setBuildProperty(2, "a", 2, "test"),
    "step": lambda u: u.addStep(2, "another"),
    "step state": lambda u: u.setStepStateString(2, "busy"),
    "log": lambda u: u.addLog(2, "more", "s"),
    "append": lambda u: u.appendLog(2, "oline\n"),
    "log ends": lambda u: u.finishLog(2),
    "compress": lambda u: u.compressLog(2),
    "step ends": lambda u: u.finishStep(2, 0, hidden=False),
    "build ends": lambda u: u.finishBuild(2, 0),
    "build": lambda u: u.newBuild(2, 2, 1),
    "builder": lambda u: u.findBuilderId("new"),
    "worker": lambda u: u.findWorkerId("new"),
    "scheduler": lambda u: u.findSchedulerId("new"),
    "unclaim": lambda u: u.unclaimBuildRequests([2]),
    "claim": lambda u: u.claimBuildRequests([2]),
    "complete": lambda u: u.completeBuildRequests([2], 0),
}


def test_what_happens_to_others_costs_no_read(
    api: BuildAPI, ws: WebSocketClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever is watched of one builder's builds, and whatever becomes of another's."""
    result_of(a_log(api, "line\n"))
    other = result_of(a_build(api, builder="docs"))
    stepid = result_of(api.data.updates.addStep(other, "compile"))[0]
    assert (other, stepid) == (2, 2)
    assert result_of(api.data.updates.addLog(stepid, "stdio", "s")) == 2
    for number, path in enumerate(MINE):
        ws.send({"cmd": "watch", "path": path, "_id": number})
    ws.sync()

    assert len(api.watches) == len(MINE)
    for name, change in OTHERS.items():
        before = api.seq()
        assert read_by(api, monkeypatch, lambda: change(api.data.updates)) == [], name  # noqa: B023
        assert name == "compress" or api.seq() != before, name


@pytest.mark.systems("sqlite")
def test_who_is_not_concerned_costs_no_sql(api: BuildAPI, ws: WebSocketClient) -> None:
    """The database gets the same statements as if nobody watched."""
    result_of(a_step(api))
    buildid = result_of(a_build(api, builder="docs"))
    reader = api.database._inline
    assert reader is not None

    def traced(change: Callable[[], Deferred[Any]]) -> list[str]:
        found: list[str] = []
        reader.connection.set_trace_callback(found.append)
        result_of(change())
        reader.connection.set_trace_callback(None)
        return [statement.split(" ")[0] for statement in found]

    updates = api.data.updates
    changes = [
        lambda: updates.setBuildStateString(buildid, "same"),
        lambda: updates.setBuildProperty(buildid, "a", 1, "test"),
    ]
    # The first time is another one: of a property, an insertion.
    for change in changes:
        traced(change)
    alone = [traced(change) for change in changes]
    for path in MINE:
        ws.ask("watch", path=path)

    assert len(api.watches) > 10
    assert [traced(change) for change in changes] == alone
