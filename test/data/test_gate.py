"""The gate: what it hides cannot be reached on any road."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import pytest
import sqlalchemy as sa

from buildapi import testing
from buildapi.data.api import ROUTER
from buildapi.data.builddata import value_of
from buildapi.data.forcefields import ForceScheduler
from buildapi.data.gate import ANONYMOUS, MASTER, Action, Gate, Identity, Restriction, Scope
from buildapi.data.logchunks import raw_log
from buildapi.data.router import Route
from buildapi.db.tables import builds
from buildapi.errors import Conflict, FieldErrors, Forbidden, NoSuchResource
from buildapi.service import BuildAPI
from buildapi.testing import RecordingSubscriber, a_commit, in_memory_api, result_of

OPEN, SECRET = 1, 2


@dataclass(frozen=True)
class HidingGate(Gate):
    """Shows everything of the secret builder to the master alone."""

    def restriction(self, identity: Identity) -> Restriction | None:
        """Return what strangers must not see."""
        return None if identity.trusted else Restriction(frozenset({SECRET}))


@dataclass(frozen=True)
class GuardingGate(Gate):
    """Lets everybody see the secret builder, and nobody control it."""

    def refusal(self, identity: Identity, action: Action, scope: Scope) -> str | None:
        """Return why not."""
        if action is Action.CONTROL and scope.builderid == SECRET:
            return f"{identity.name} may not control it"
        return None


@pytest.fixture
def api() -> BuildAPI:
    """A site of the test's own."""
    return a_site()


@pytest.fixture(scope="module")
def shown() -> BuildAPI:
    """One site for all tests that only look."""
    api = a_site()
    api.data.gate = HidingGate()
    both = ForceScheduler(name="force", builder_names=("open", "secret"))
    api.data.forceschedulers["force"] = both
    return api


def a_site() -> BuildAPI:
    """Return an API with an open and a secret builder, and a build of each: all ids are 1 and 2."""
    api = in_memory_api()
    result_of(api.data.updates.updateBuilderList(1, ["open", "secret"]))
    workerid = result_of(api.data.updates.findWorkerId("worker"))
    result_of(api.data.updates.workerConfigured(workerid, 1, [OPEN, SECRET]))
    result_of(api.data.updates.addChange(author="alice", codebase="app", revision="abc"))
    result_of(a_commit(api, "abc"))
    for builderid in (OPEN, SECRET):
        a_build(api, builderid)
    return api


def a_build(api: BuildAPI, builderid: int) -> None:
    """Make a build of what the change changed, with one of everything that a build can have."""
    updates = api.data.updates
    bsid, brids = result_of(
        updates.addBuildset(
            builderids=[builderid], sourcestamps=[1], properties={"asked": (builderid, "test")}
        )
    )
    assert bsid == builderid
    buildid, _ = result_of(updates.newBuild(builderid, brids[builderid], 1))
    result_of(updates.setBuildProperty(buildid, "p", builderid, "test"))
    stepid, _, _ = result_of(updates.addStep(buildid, "compile"))
    logid = result_of(updates.addLog(stepid, "stdio", "s"))
    result_of(updates.appendLog(logid, "oline\n"))
    result_of(updates.finishLog(logid))
    result_of(updates.setBuildData(buildid, "worker", b"secret", "test"))
    setid = result_of(updates.addTestResultSet(builderid, buildid, stepid, None, "kind", "unit"))
    result = {"test_name": "test_all", "value": "1"}
    result_of(updates.addTestResults(builderid, setid, [result]))
    result_of(updates.finishBuild(buildid, 0))


# Paths with one of these keys lead to something of one builder.
OWN = {
    "builderid": "{0}",
    "buildername": "{1}",
    "build_number": "1",
    "buildid": "{0}",
    "buildrequestid": "{0}",
    "bsid": "{0}",
    "stepid": "{0}",
    "logid": "{0}",
    "test_result_setid": "{0}",
    "step_number": "0",
    "step_name": "compile",
    "log_slug": "stdio",
}
SHARED = {"workerid": "1", "masterid": "1", "name": "worker", "changeid": "1", "ssid": "1"}
OTHER = {"projectid": "1", "schedulerid": "1", "schedulername": "force"}
OF_A_BUILDER = [
    route
    for route in ROUTER.routes
    if any(f":{key}" in route.pattern for key in OWN) and "raw" not in route.kind
]


def path_of(route: Route, builderid: int) -> str:
    """Return the path of this route to what belongs to a builder."""
    values = {**OWN, **SHARED, **OTHER}
    name = {OPEN: "open", SECRET: "secret"}[builderid]
    elements = route.pattern.split("/")
    return "/".join(
        values[e.partition(":")[2]].format(builderid, name) if ":" in e else e for e in elements
    )


def seen(api: BuildAPI, path: str, identity: Identity) -> list[Any]:
    """Return what an identity sees at a path: objects, or nothing."""
    try:
        found = result_of(api.data.get(path, identity=identity))
    except NoSuchResource:
        return []
    return found if isinstance(found, list) else [found]


@pytest.mark.parametrize("route", OF_A_BUILDER, ids=lambda route: str(route.pattern))
def test_nothing_is_found_below_a_hidden_builder(shown: BuildAPI, route: Route) -> None:
    """Not by any path: lists are empty, single objects not there; the open builder's are."""
    # Nothing is triggered by a build here.
    wanted = "triggered_builds" not in route.pattern

    assert bool(seen(shown, path_of(route, OPEN), ANONYMOUS)) == wanted
    assert bool(seen(shown, path_of(route, SECRET), MASTER)) == wanted
    assert seen(shown, path_of(route, SECRET), ANONYMOUS) == []


@pytest.mark.parametrize(
    "path",
    [
        *("builders", "builds", "buildrequests", "buildsets", "builds?property=*"),
        *("workers/1/builders", "masters/1/builders", "workers/1/builds", "changes/1/builds"),
        *("test_result_sets", "codebases/1/commit_range/1/1/test_result_sets"),
    ],
)
def test_lists_leave_out_what_is_hidden(api: BuildAPI, path: str) -> None:
    """And so do their totals, also where a page is asked for."""
    api.data.gate = HidingGate()
    page = f"{path}{'&' if '?' in path else '?'}limit=1"

    for identity, total in ((MASTER, 2), (ANONYMOUS, 1), (MASTER, 2)):
        whole = result_of(api.data.get(path, identity=identity))
        assert (len(whole), whole.total) == (total, total)
        assert result_of(api.data.get(page, identity=identity)).total == total
        assert "secret" not in str(seen(api, path, ANONYMOUS))


def found(api: BuildAPI, find: Callable[..., Any], path: str, identity: Identity) -> Any:
    """Return what a download begins with."""
    ask = api.data.understood(path, "", identity)
    pattern, bound = ask.match.route.pattern, ask.match.bound
    return result_of(api.data.database.read(lambda r: find(r, pattern, bound, ask.restriction)))


def test_a_raw_log_is_hidden(api: BuildAPI) -> None:
    """A download is a road like any other."""
    api.data.gate = HidingGate()

    assert found(api, raw_log, "logs/2/raw", MASTER).logid == SECRET
    for path in ("logs/2/raw", "builders/2/builds/1/steps/0/logs/stdio/raw_inline"):
        with pytest.raises(NoSuchResource):
            found(api, raw_log, path, ANONYMOUS)


def test_the_bytes_of_build_data_are_hidden(api: BuildAPI) -> None:
    """As their object is."""
    api.data.gate = HidingGate()
    path = "builds/2/data/worker/value"

    value = partial(value_of, logged=True)

    assert found(api, value, path, MASTER).size == len("secret")
    with pytest.raises(NoSuchResource):
        found(api, value, path, ANONYMOUS)


def test_a_set_of_both_builders_is_seen(api: BuildAPI) -> None:
    """It belongs to the open one too; of its requests only that one's is seen."""
    api.data.gate = HidingGate()
    bsid, _ = result_of(api.data.updates.addBuildset(builderids=[OPEN, SECRET]))
    empty, _ = result_of(api.data.updates.addBuildset())
    requests = result_of(
        api.data.get("buildrequests", filters={"buildsetid": bsid}, identity=ANONYMOUS)
    )

    assert seen(api, f"buildsets/{bsid}", ANONYMOUS)
    assert seen(api, f"buildsets/{empty}", ANONYMOUS)
    assert [one["builderid"] for one in requests] == [OPEN]


def test_what_has_lost_its_builder_is_hidden(api: BuildAPI) -> None:
    """Nobody knows whose it was, so nobody but the master sees it."""
    api.data.gate = HidingGate()
    result_of(api.data.transaction(lambda tx: tx.run(sa.delete(builds))))

    for path in ("steps/1", "logs/1", "logs/1/contents"):
        assert seen(api, path, MASTER)
        assert seen(api, path, ANONYMOUS) == []


def test_events_are_told_by_the_same_rule() -> None:
    """Everything that happens to a build has the scope of its builder, its build set too."""
    api = in_memory_api()
    result_of(api.data.updates.updateBuilderList(1, ["open", "secret"]))
    result_of(api.data.updates.findWorkerId("worker"))
    result_of(api.data.updates.addChange(author="alice"))
    gate = HidingGate()
    for builderid in (OPEN, SECRET):
        recorded = RecordingSubscriber(api)
        a_build(api, builderid)
        recorded.close()

        assert len(recorded.events) == 12
        for event in recorded.events:
            assert event.builderid == builderid
            assert gate.sees(ANONYMOUS, event) == (builderid == OPEN)
            assert gate.sees(MASTER, event)


def test_events_have_the_project_of_their_builder(api: BuildAPI) -> None:
    """Of its present one: a log that is being written moves with its builder."""
    updates = api.data.updates
    logid = result_of(updates.addLog(1, "more", "t"))
    result_of(updates.appendLog(logid, "one\n"))
    result_of(api.data.transaction(_make_project))
    result_of(updates.updateBuilderInfo(OPEN, None, None, None, 7, []))
    recorded = RecordingSubscriber(api)
    result_of(updates.appendLog(logid, "two\n"))

    assert [(event.builderid, event.projectid) for event in recorded.events] == [(OPEN, 7)]


def test_control_messages_have_the_scope_of_what_is_controlled(api: BuildAPI) -> None:
    """Who may not see a builder does not hear what is asked of its builds."""
    result_of(api.data.transaction(_make_project))
    result_of(api.data.updates.updateBuilderInfo(OPEN, None, None, None, 7, []))
    recorded = RecordingSubscriber(api, "control.#")
    api.control.obey(lambda _: None)
    buildid = result_of(testing.a_build(api, "open"))
    brid = result_of(api.data.get(("builds", buildid)))["buildrequestid"]
    for path, action in ((f"builds/{buildid}", "stop"), (f"buildrequests/{brid}", "cancel")):
        result_of(api.control.call(path, action, {}, ANONYMOUS))

    assert [(event.builderid, event.projectid) for event in recorded.events] == [(OPEN, 7)] * 2


def _make_project(tx: Any) -> None:
    tx.connection.execute(
        "INSERT INTO projects (id, name, name_hash, slug) VALUES (7, 'p', 'p', 'p')"
    )


@pytest.mark.parametrize(
    ("path", "action"),
    [
        ("builds/2", "stop"),
        ("builds/2", "rebuild"),
        ("buildrequests/2", "cancel"),
        ("buildrequests/2", "set_priority"),
    ],
)
def test_what_is_hidden_cannot_be_controlled(api: BuildAPI, path: str, action: str) -> None:
    """It is not even there."""
    api.data.gate = HidingGate()
    recorded = RecordingSubscriber(api)

    with pytest.raises(NoSuchResource):
        result_of(api.control.call(path, action, {}, ANONYMOUS))
    assert recorded.topics == []


def test_a_hidden_builder_cannot_be_forced(api: BuildAPI) -> None:
    """Neither by its id nor along with the others, and its name is in no form."""
    api.data.gate = HidingGate()
    forms = api.data.forceschedulers
    forms["both"] = ForceScheduler(name="both", builder_names=("open", "secret"))
    forms["secret"] = ForceScheduler(name="secret", builder_names=("secret",))
    forms["none"] = ForceScheduler(name="none", builder_names=())

    def forced(name: str, **params: Any) -> Any:
        call = api.control.call(f"forceschedulers/{name}", "force", params, ANONYMOUS)
        return result_of(call)

    assert [one["builder_names"] for one in seen(api, "forceschedulers", ANONYMOUS)] == [["open"]]
    assert list(forced("both")[1]) == ["1"]
    for builder in (SECRET, "secret"):
        with pytest.raises(FieldErrors, match=f"builderid: both cannot force builder {builder!r}"):
            forced("both", builderid=builder)
    assert list(forced("both", builderNames=["open", "secret"])[1]) == ["1"]
    with pytest.raises(FieldErrors, match="builderNames: "):
        forced("both", builderNames=["secret"])
    for name in ("secret", "none"):
        with pytest.raises(Conflict, match="none of the builders"):
            forced(name)


@pytest.mark.parametrize(
    ("path", "action", "params"),
    [
        ("builds/2", "stop", {}),
        ("builds/2", "rebuild", {}),
        ("buildrequests/2", "cancel", {}),
        ("buildrequests/2", "set_priority", {"priority": 1}),
        ("forceschedulers/both", "force", {}),
        ("forceschedulers/both", "force", {"builderid": SECRET}),
    ],
)
def test_control_is_decided_for_each_builder(
    api: BuildAPI, path: str, action: str, params: dict[str, Any]
) -> None:
    """The gate is told which builder is meant, and nothing happens if it says no."""
    api.data.gate = GuardingGate()
    both = ForceScheduler(name="both", builder_names=("open", "secret"))
    api.data.forceschedulers["both"] = both
    recorded = RecordingSubscriber(api)

    with pytest.raises(Forbidden, match="anonymous may not control it"):
        result_of(api.control.call(path, action, params, ANONYMOUS))
    assert recorded.topics == []
    call = api.control.call("forceschedulers/both", "force", {"builderid": OPEN}, ANONYMOUS)
    assert list(result_of(call)[1]) == ["1"]


def test_what_is_remembered_of_a_query_is_bounded_and_knows_rights(api: BuildAPI) -> None:
    """Who sees everything and who does not never share a plan."""
    api.data.gate = HidingGate()
    first = api.data.understood("builds", "limit=1", MASTER)
    second = api.data.understood("builds", "limit=1", ANONYMOUS)
    again = api.data.understood("builds", "limit=1", ANONYMOUS)

    assert first.plan is not second.plan
    assert second.plan is again.plan
    assert first.plan is not None
    assert second.plan is not None
    assert "NOT IN" in second.plan.page.sql
    assert "NOT IN" not in first.plan.page.sql
    assert api.data._prepared.cache_info().maxsize is not None
