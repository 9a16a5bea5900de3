"""Rows and differences, applied, are what a GET answers: whatever is watched, whatever happens."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import sqlalchemy as sa
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from twisted.internet.defer import Deferred
from twisted.python.failure import Failure

from buildapi.data.api import AllUpdates
from buildapi.db.tables import (
    build_properties,
    buildrequest_claims,
    builds,
    logchunks,
    logs,
    steps,
)
from buildapi.db.transaction import Tx
from buildapi.errors import BuildAPIError
from buildapi.service import BuildAPI
from buildapi.testing import (
    WebSocketClient,
    Wire,
    a_build,
    a_step,
    result_of,
)
from test.www.watch.watching import Mirror, get

QUERIES = [
    "builds",
    "builds/1",
    "builds?complete=false&order=-buildid&limit=3",
    "builds?order=state_string&order=-number&limit=2&offset=1",
    "builds?builderid=1&field=state_string&field=builderid",
    "builds?builderid=2&builderid=1&complete=true",
    "builds?property=a&property=b&limit=5",
    "builds?builderid=1&property=*",
    "builds/1?property=*",
    "builds/2/property_list",
    "builds?limit=0",
    "builds/1/properties",
    "builds/1/property_list?order=name",
    "builders/1/builds?results=0",
    "builders/1/builds/1/steps",
    "builds/1/steps?order=-name",
    "builds/2/steps?complete=false",
    "steps/1/logs",
    "logs/1",
    "logs/1/contents",
    "builders?order=-name",
    "builders/1/buildrequests?order=-buildrequestid&limit=2",
    "buildrequests?claimed=false&limit=4",
    "buildrequests/1",
    "buildrequests?builderid=2&order=-claimed",
    "changes?branch=a&order=-changeid&limit=2",
    "changes?author=b&field=files&field=author",
    "changes/1",
    "buildsets?complete=false",
    "workers?paused=true",
    "schedulers",
    "forceschedulers",
    "masters",
    "/",
]


# By what a number and a text change something.
CHANGES: dict[str, Callable[[AllUpdates, int, str], Deferred[Any]]] = {
    "build": lambda u, n, _: u.newBuild(n, 1, 1),
    "finish": lambda u, n, t: u.finishBuild(n, len(t) % 3),
    "state": lambda u, n, t: u.setBuildStateString(n, t),
    "property": lambda u, n, t: u.setBuildProperty(n, "ab"[n % 2], t, "test"),
    "step": lambda u, n, t: u.addStep(n, "xyz"[len(t) % 3]),
    "step ends": lambda u, n, _: u.finishStep(n, 0, hidden=False),
    "log": lambda u, n, _: u.addLog(n, "stdio", "t"),
    "append": lambda u, n, t: u.appendLog(n, f"{t}\n"),
    "builder": lambda u, _, t: u.findBuilderId(f"builder {t[:1]}"),
    "describe": lambda u, n, t: u.updateBuilderInfo(n, t, None, None, None, [t[:1] or "tag"]),
    "request": lambda u, n, t: u.addBuildset(builderids=[n], sourcestamps=[], reason=t),
    "claim": lambda u, n, _: u.claimBuildRequests([n]),
    "unclaim": lambda u, n, _: u.unclaimBuildRequests([n]),
    "change": lambda u, n, t: u.addChange(author="ab"[n % 2], files=[t], branch=t[:1]),
    "log ends": lambda u, n, _: u.finishLog(n),
    "compress": lambda u, n, _: u.compressLog(n),
    "complete": lambda u, n, _: u.completeBuildRequests([n], 0),
    "pause": lambda u, n, _: u.set_worker_paused(1, n == 1),
    "scheduler": lambda u, n, _: u.findSchedulerId(f"scheduler {n}"),
}


# The same without a word to anybody.
SILENT: dict[str, Callable[[Tx, int, str], object]] = {
    "move": lambda tx, n, t: tx.change(builds, n, builderid=1 + len(t) % 2),
    "set": lambda tx, _, t: tx.run(sa.update(builds).values(state_string=t)),
    "forget": lambda tx, *_: tx.run(sa.delete(build_properties)),
    "cut": lambda tx, n, _: tx.run(sa.delete(logchunks).where(logchunks.c.logid == n)),
    "rename": lambda tx, n, t: tx.run(
        sa.update(build_properties).where(build_properties.c.buildid == n).values(source=t), only=n
    ),
    "unclaim all": lambda tx, *_: tx.run(sa.delete(buildrequest_claims)),
    "delete": lambda tx, n, _: tx.run(sa.delete(logs).where(logs.c.id == n)),
    "hide": lambda tx, n, t: tx.change(steps, n, hidden=1, name=t or "x"),
}


operations = st.tuples(
    st.sampled_from([*CHANGES, *SILENT]), st.integers(1, 2), st.text("abcé", max_size=4)
)


def make(api: BuildAPI, name: str, number: int, text: str) -> None:
    """Make a change; one that is refused is none."""
    if name in CHANGES:
        changed = CHANGES[name](api.data.updates, number, text)
    else:
        changed = api.data.transaction(lambda tx: SILENT[name](tx, number, text))
    refused: list[Failure] = []
    changed.addErrback(refused.append)
    assert [one for one in refused if not one.check(BuildAPIError, sa.exc.DBAPIError)] == []


@settings(
    # 50, or thousands with the profile "thorough".
    max_examples=settings().max_examples // 4,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(
    queries=st.lists(st.sampled_from(QUERIES), min_size=1, max_size=6, unique=True),
    changes=st.lists(operations, min_size=3, max_size=12),
)
def test_what_a_client_has_is_what_a_get_answers(
    api: BuildAPI, queries: list[str], changes: list[tuple[str, int, str]]
) -> None:
    """After every change, at its position, whatever changes and whatever is watched."""
    if not result_of(api.data.get("builds")):
        result_of(a_step(api))
        result_of(a_build(api, builder="docs"))
    wire = Wire(api)
    ws = WebSocketClient(wire)
    watches = [Mirror(ws, path, sub=n) for n, path in enumerate(queries) if get(api, path)[0]]
    for change in changes:
        make(api, *change)
        for watch in watches:
            watch.catch_up()
            rows, meta, seq = get(api, watch.path)
            assert (watch.rows, watch.meta) == (rows, meta), (watch.path, change)
            assert watch.seq <= seq
    wire.hang_up()

    assert len(api.watches) == 0
