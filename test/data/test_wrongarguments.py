"""Arguments of updates that are wrong: named in the error, and nothing is written."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest

from buildapi.errors import BadArgument, BuildAPIError, Conflict, NoSuchResource
from buildapi.service import BuildAPI
from buildapi.testing import RecordingSubscriber, in_memory_api, result_of
from test.data.furnished import (
    BUILD,
    BUILDER,
    CODEBASE,
    LOG,
    MASTER,
    PENDING,
    PROJECT,
    REQUEST,
    RESULTS,
    SCHEDULER,
    SOURCE,
    STAMP,
    STEP,
    WORKER,
    Within,
    dump,
    furnish,
    furnished,
)
from test.data.told import (
    Call,
)


@pytest.fixture
def api() -> BuildAPI:
    """A house of the test's own."""
    return furnished()


@pytest.fixture(scope="module")
def untouched() -> BuildAPI:
    """One house for all tests that change nothing in it."""
    return furnished()


FOREVER = 2**31
DOOMSDAY = datetime(2100, 1, 1, tzinfo=UTC)
DEEP: list[Any] = []
for _ in range(100_000):
    DEEP = [DEEP]


class Raising:
    """An object of the caller that cannot say what its properties are."""

    def asDict(self) -> Any:
        """Raise."""
        raise ZeroDivisionError("the caller's own")


WRONG: list[tuple[str, Call, str]] = [
    # ids that there are not
    ("updateBuilderInfo", lambda u: u.updateBuilderInfo(99, None, None, None, None, []), "builder"),
    (
        "updateBuilderInfo",
        lambda u: u.updateBuilderInfo(BUILDER, None, None, None, 99, []),
        "projectid",
    ),
    (
        "updateBuilderInfo",
        lambda u: u.updateBuilderInfo(BUILDER, None, None, None, None, [99]),
        "tags",
    ),
    ("updateBuilderList", lambda u: u.updateBuilderList(99, ["docs"]), "masterid"),
    ("addBuildset", lambda u: u.addBuildset(builderids=[BUILDER, 99]), "builderids"),
    ("addBuildset", lambda u: u.addBuildset(sourcestamps=[99]), "sourcestamps"),
    ("addBuildset", lambda u: u.addBuildset(parent_buildid=99), "parent_buildid"),
    ("addBuildset", lambda u: u.addBuildset(rebuilt_buildid=99), "rebuilt_buildid"),
    ("maybeBuildsetComplete", lambda u: u.maybeBuildsetComplete(99), "bsid"),
    ("cancelBuildRequest", lambda u: u.cancelBuildRequest(99), "99"),
    ("setBuildRequestPriority", lambda u: u.setBuildRequestPriority(99, 1), "brid"),
    ("rebuildBuildrequest", lambda u: u.rebuildBuildrequest({"buildrequestid": 99}), "99"),
    ("addBuild", lambda u: u.addBuild(99, PENDING, WORKER), "builderid"),
    ("addBuild", lambda u: u.addBuild(BUILDER, 99, WORKER), "buildrequestid"),
    ("newBuild", lambda u: u.newBuild(BUILDER, PENDING, 99), "workerid"),
    ("generateNewBuildEvent", lambda u: u.generateNewBuildEvent(99), "99"),
    ("setBuildStateString", lambda u: u.setBuildStateString(99, "x"), "buildid"),
    ("add_build_locks_duration", lambda u: u.add_build_locks_duration(99, 1), "buildid"),
    ("finishBuild", lambda u: u.finishBuild(99, 0), "buildid"),
    ("setBuildProperty", lambda u: u.setBuildProperty(99, "a", 1, "test"), "buildid"),
    ("setBuildProperties", lambda u: u.setBuildProperties(99, {}), "buildid"),
    ("addStep", lambda u: u.addStep(99, "x"), "buildid"),
    ("startStep", lambda u: u.startStep(99), "stepid"),
    ("set_step_locks_acquired_at", lambda u: u.set_step_locks_acquired_at(99), "stepid"),
    ("setStepStateString", lambda u: u.setStepStateString(99, "x"), "stepid"),
    ("addStepURL", lambda u: u.addStepURL(99, "x", "y"), "stepid"),
    ("finishStep", lambda u: u.finishStep(99, 0, hidden=False), "stepid"),
    ("addLog", lambda u: u.addLog(99, "x", "s"), "stepid"),
    ("appendLog", lambda u: u.appendLog(99, "x\n"), "99"),
    ("appendLog", lambda u: u.appendLog(99, "x\n" * 5000), "99"),
    ("finishLog", lambda u: u.finishLog(99), "logid"),
    ("compressLog", lambda u: u.compressLog(99), "logid"),
    ("workerConfigured", lambda u: u.workerConfigured(99, MASTER, []), "workerid"),
    ("workerConfigured", lambda u: u.workerConfigured(WORKER, 99, []), "masterid"),
    ("workerConfigured", lambda u: u.workerConfigured(WORKER, MASTER, [99]), "builderids"),
    (
        "deconfigureAllWorkersForMaster",
        lambda u: u.deconfigureAllWorkersForMaster(99),
        "masterid",
    ),
    ("workerConnected", lambda u: u.workerConnected(99, MASTER, {}), "workerid"),
    ("workerConnected", lambda u: u.workerConnected(WORKER, 99, {}), "masterid"),
    ("workerDisconnected", lambda u: u.workerDisconnected(WORKER, 99), "masterid"),
    ("workerMissing", lambda u: u.workerMissing(WORKER, 99, 0, []), "masterid"),
    ("set_worker_paused", lambda u: u.set_worker_paused(99, True), "workerid"),
    ("set_worker_graceful", lambda u: u.set_worker_graceful(99, True), "workerid"),
    ("schedulerEnable", lambda u: u.schedulerEnable(99, True), "schedulerid"),
    ("trySetSchedulerMaster", lambda u: u.trySetSchedulerMaster(99, MASTER), "schedulerid"),
    ("trySetSchedulerMaster", lambda u: u.trySetSchedulerMaster(SCHEDULER, 99), "masterid"),
    ("masterActive", lambda u: u.masterActive("x", 99), "masterid"),
    ("masterStopped", lambda u: u.masterStopped("x", 99), "masterid"),
    (
        "trySetChangeSourceMaster",
        lambda u: u.trySetChangeSourceMaster(99, MASTER),
        "changesourceid",
    ),
    ("trySetChangeSourceMaster", lambda u: u.trySetChangeSourceMaster(SOURCE, 99), "masterid"),
    (
        "update_project_info",
        lambda u: u.update_project_info(99, "s", None, None, None),
        "projectid",
    ),
    ("find_codebase_id", lambda u: u.find_codebase_id(projectid=99, name="core"), "projectid"),
    (
        "update_codebase_info",
        lambda u: u.update_codebase_info(codebaseid=99, projectid=PROJECT, slug="s"),
        "codebaseid",
    ),
    (
        "update_codebase_info",
        lambda u: u.update_codebase_info(codebaseid=CODEBASE, projectid=99, slug="s"),
        "projectid",
    ),
    (
        "add_commit",
        lambda u: u.add_commit(
            codebaseid=99, author="", comments="", when_timestamp=0, revision="x"
        ),
        "codebaseid",
    ),
    (
        "add_commit",
        lambda u: u.add_commit(
            codebaseid=CODEBASE,
            author="",
            comments="",
            when_timestamp=0,
            revision="x",
            parent_commitid=99,
        ),
        "parent_commitid",
    ),
    (
        "update_branch",
        lambda u: u.update_branch(codebaseid=99, name="main", last_timestamp=0),
        "codebaseid",
    ),
    (
        "update_branch",
        lambda u: u.update_branch(codebaseid=CODEBASE, name="main", commitid=99, last_timestamp=0),
        "commitid",
    ),
    ("setBuildData", lambda u: u.setBuildData(99, "x", b"", ""), "buildid"),
    ("addTestResultSet", lambda u: u.addTestResultSet(99, BUILD, STEP, None, "", ""), "builderid"),
    ("addTestResultSet", lambda u: u.addTestResultSet(BUILDER, 99, STEP, None, "", ""), "buildid"),
    ("addTestResultSet", lambda u: u.addTestResultSet(BUILDER, BUILD, 99, None, "", ""), "stepid"),
    ("addTestResults", lambda u: u.addTestResults(99, RESULTS, []), "builderid"),
    ("addTestResults", lambda u: u.addTestResults(BUILDER, 99, []), "test_result_setid"),
    ("completeTestResultSet", lambda u: u.completeTestResultSet(99), "test_result_setid"),
    # numbers that are none, or do not fit into 32 bits
    ("completeTestResultSet", lambda u: u.completeTestResultSet(RESULTS, -1), "tests_passed"),
    (
        "completeTestResultSet",
        lambda u: u.completeTestResultSet(RESULTS, tests_failed=FOREVER),
        "tests_failed",
    ),
    ("setBuildStateString", lambda u: u.setBuildStateString(True, "x"), "buildid"),
    ("setBuildStateString", lambda u: u.setBuildStateString("10", "x"), "buildid"),  # type: ignore[arg-type]
    ("setBuildStateString", lambda u: u.setBuildStateString(FOREVER, "x"), "buildid"),
    ("setBuildStateString", lambda u: u.setBuildStateString(-1, "x"), "buildid"),
    ("claimBuildRequests", lambda u: u.claimBuildRequests([PENDING, True]), "brids.1"),
    ("claimBuildRequests", lambda u: u.claimBuildRequests(PENDING), "brids"),  # type: ignore[arg-type]
    ("appendLog", lambda u: u.appendLog("60", "x\n"), "logid"),  # type: ignore[arg-type]
    ("appendLog", lambda u: u.appendLog([], "x\n"), "logid"),  # type: ignore[arg-type]
    ("appendLog", lambda u: u.appendLog(True, "x\n"), "logid"),
    ("appendLog", lambda u: u.appendLog(2**70, "x\n"), "logid"),
    ("compressLog", lambda u: u.compressLog("60"), "logid"),  # type: ignore[arg-type]
    ("compressLog", lambda u: u.compressLog(2**70), "logid"),
    ("finishBuild", lambda u: u.finishBuild(BUILD, 7), "results"),
    ("finishBuild", lambda u: u.finishBuild(BUILD, -1), "results"),
    ("finishBuild", lambda u: u.finishBuild(BUILD, None), "results"),  # type: ignore[arg-type]
    ("startStep", lambda u: u.startStep(STEP, FOREVER), "started_at"),
    ("claimBuildRequests", lambda u: u.claimBuildRequests([PENDING], FOREVER), "claimed_at"),
    ("claimBuildRequests", lambda u: u.claimBuildRequests([PENDING], DOOMSDAY), "claimed_at"),
    ("completeBuildRequests", lambda u: u.completeBuildRequests([5], 0, "now"), "complete_at"),  # type: ignore[arg-type]
    ("rebuildBuildrequest", lambda u: u.rebuildBuildrequest({"buildrequestid": True}), "object"),
    ("startStep", lambda u: u.startStep(STEP, 1.5), "started_at"),  # type: ignore[arg-type]
    ("add_build_locks_duration", lambda u: u.add_build_locks_duration(BUILD, -1), "duration_s"),
    ("addChange", lambda u: u.addChange(when_timestamp=FOREVER), "when_timestamp"),
    ("addBuildset", lambda u: u.addBuildset(priority=FOREVER), "priority"),
    ("setBuildRequestPriority", lambda u: u.setBuildRequestPriority(5, FOREVER), "priority"),
    ("rebuildBuildrequest", lambda u: u.rebuildBuildrequest({}), "buildrequest"),
    ("rebuildBuildrequest", lambda u: u.rebuildBuildrequest(REQUEST), "buildrequest"),  # type: ignore[arg-type]
    # texts that are none, do not fit their columns, or are no UTF-8
    ("setBuildStateString", lambda u: u.setBuildStateString(BUILD, 5), "state_string"),  # type: ignore[arg-type]
    ("setBuildStateString", lambda u: u.setBuildStateString(BUILD, "\udc80"), "state_string"),
    ("updateBuilderList", lambda u: u.updateBuilderList(MASTER, ["a", "\udc80"]), "builderNames"),
    ("updateBuilderList", lambda u: u.updateBuilderList(MASTER, ["a", ""]), "builderNames.1"),
    ("findBuilderId", lambda u: u.findBuilderId(""), "name"),
    ("findChangeSourceId", lambda u: u.findChangeSourceId(""), "name"),
    ("find_project_id", lambda u: u.find_project_id("\udc80"), "name"),
    (
        "update_project_info",
        lambda u: u.update_project_info(PROJECT, "s" * 51, None, None, None),
        "slug",
    ),
    (
        "add_commit",
        lambda u: u.add_commit(
            codebaseid=CODEBASE, author="", comments="", when_timestamp=0, revision="x" * 71
        ),
        "revision",
    ),
    (
        "update_branch",
        lambda u: u.update_branch(codebaseid=CODEBASE, name="x" * 256, last_timestamp=0),
        "name",
    ),
    ("setBuildData", lambda u: u.setBuildData(BUILD, "x", "text", ""), "value"),  # type: ignore[arg-type]
    ("setBuildData", lambda u: u.setBuildData(BUILD, "x" * 257, b"", ""), "name"),
    ("findWorkerId", lambda u: u.findWorkerId("x" * 51), "name"),
    ("addStep", lambda u: u.addStep(BUILD, ""), "name"),
    ("addLog", lambda u: u.addLog(STEP, "x", "st"), "type"),
    ("addLog", lambda u: u.addLog(STEP, "x", "s\n"), "type"),
    ("appendLog", lambda u: u.appendLog(LOG, "no newline"), "content"),
    ("appendLog", lambda u: u.appendLog(LOG, ""), "content"),
    ("appendLog", lambda u: u.appendLog(LOG, b"x\n"), "content"),  # type: ignore[arg-type]
    ("setBuildProperty", lambda u: u.setBuildProperty(BUILD, "x" * 257, 1, "test"), "name"),
    ("setBuildProperty", lambda u: u.setBuildProperty(BUILD, "", 1, "test"), "name"),
    ("setBuildProperty", lambda u: u.setBuildProperty(BUILD, "a", 1, "x" * 257), "source"),
    ("setBuildProperty", lambda u: u.setBuildProperty(BUILD, "a", {1, 2}, "test"), "value"),
    ("setBuildProperty", lambda u: u.setBuildProperty(BUILD, "a", DEEP, "test"), "value"),
    ("setBuildProperties", lambda u: u.setBuildProperties(BUILD, {"a": 1}), "properties"),
    ("setBuildProperties", lambda u: u.setBuildProperties(BUILD, {"a": (1, 2)}), "properties"),
    ("setBuildProperties", lambda u: u.setBuildProperties(BUILD, {1: (1, "x")}), "properties"),
    (
        "setBuildProperties",
        lambda u: u.setBuildProperties(BUILD, {"\udc80": (1, "x")}),
        "properties",
    ),
    ("setBuildProperties", lambda u: u.setBuildProperties(BUILD, None), "properties"),
    ("addBuildset", lambda u: u.addBuildset(properties={"a": 1}), "properties"),
    ("addBuildset", lambda u: u.addBuildset(external_idstring="x" * 257), "external_idstring"),
    ("addBuildset", lambda u: u.addBuildset(sourcestamps=[True]), "sourcestamps.0"),
    ("addBuildset", lambda u: u.addBuildset(sourcestamps=[None]), "sourcestamps.0"),
    (
        "addBuildset",
        lambda u: u.addBuildset(sourcestamps=[STAMP, {"branch": "x" * 257}]),
        "sourcestamps.1: branch",
    ),
    (
        "addBuildset",
        lambda u: u.addBuildset(sourcestamps=[{"repository": "\udc80"}]),
        "sourcestamps.0: repository",
    ),
    (
        "addBuildset",
        lambda u: u.addBuildset(sourcestamps=[{"patch_body": b"x", "patch_level": "1"}]),
        "sourcestamps.0: patch_level",
    ),
    (
        "addBuildset",
        lambda u: u.addBuildset(sourcestamps=[{"patch": {"patchid": 1}}]),
        "sourcestamps.0: patch",
    ),
    ("addBuildset", lambda u: u.addBuildset(sourcestamps=[{"nosuch": 1}]), "nosuch"),
    ("addBuildset", lambda u: u.addBuildset(sourcestamps=[{"author": "alice"}]), "author"),
    ("addChange", lambda u: u.addChange(author="x" * 256), "author"),
    ("addChange", lambda u: u.addChange(files=["a", "x" * 1025]), "files.1"),
    ("addChange", lambda u: u.addChange(category=lambda _: "x" * 256), "category"),
    ("addChange", lambda u: u.addChange(category=lambda _: 5), "category"),  # type: ignore[arg-type, return-value]
    ("addChange", lambda u: u.addChange(properties={"x" * 257: 1}), "properties"),
    ("workerConnected", lambda u: u.workerConnected(WORKER, MASTER, []), "workerinfo"),  # type: ignore[arg-type]
    ("workerConnected", lambda u: u.workerConnected(WORKER, MASTER, {"a": {1}}), "workerinfo"),
    ("workerMissing", lambda u: u.workerMissing(WORKER, MASTER, 0, "a@b"), "notify"),  # type: ignore[arg-type]
    ("set_worker_paused", lambda u: u.set_worker_paused(WORKER, "yes"), "paused"),  # type: ignore[arg-type]
    # arguments that there are not, or that are missing
    ("finishBuild", lambda u: u.finishBuild(BUILD), "results"),  # type: ignore[call-arg]
    ("finishBuild", lambda u: u.finishBuild(BUILD, 0, 0), "finishBuild"),  # type: ignore[call-arg]
    ("finishBuild", lambda u: u.finishBuild(BUILD, 0, nosuch=1), "nosuch"),  # type: ignore[call-arg]
    ("appendLog", lambda u: u.appendLog(LOG), "content"),  # type: ignore[call-arg]
]


@pytest.mark.parametrize("at", range(len(WRONG)), ids=lambda at: f"{at} {WRONG[at][0]}")
def test_a_wrong_argument_is_named_and_nothing_is_written(untouched: BuildAPI, at: int) -> None:
    """The error comes on the Deferred; no row and no event is left behind."""
    name, call, named = WRONG[at]
    recorded, before = RecordingSubscriber(untouched), dump(untouched)

    with pytest.raises((BadArgument, NoSuchResource)) as caught:
        result_of(call(untouched.data.updates))
    assert named in str(caught.value)
    assert isinstance(caught.value, NoSuchResource) or name in str(caught.value)
    assert recorded.events == []
    assert dump(untouched) == before


@pytest.mark.parametrize("at", range(len(WRONG)), ids=lambda at: f"{at} {WRONG[at][0]}")
def test_a_wrong_argument_is_refused_within_a_transaction(untouched: BuildAPI, at: int) -> None:
    """By the same errors."""
    name, call, _ = WRONG[at]
    if name == "compressLog":
        return
    updates = untouched.data.updates

    with pytest.raises((BadArgument, NoSuchResource)):
        result_of(untouched.data.transaction(lambda tx: call(Within(updates, tx))))  # type: ignore[arg-type]


def test_what_a_callers_own_object_raises_is_on_the_deferred(api: BuildAPI) -> None:
    """Never a synchronous raise."""
    failing = api.data.updates.setBuildProperties(BUILD, Raising())

    with pytest.raises(ZeroDivisionError):
        result_of(failing)


def test_a_server_that_is_no_master_cannot_claim() -> None:
    """The sentence says which setting is missing."""
    api = in_memory_api(master=None)

    for failing in (
        api.data.updates.claimBuildRequests([1]),
        api.data.updates.unclaimBuildRequests([1]),
    ):
        failing.addErrback(lambda failure: failure.trap(BuildAPIError))
    result_of(api.data.transaction(furnish))
    with pytest.raises(Conflict, match=r"server\.master"):
        result_of(api.data.updates.newBuild(BUILDER, PENDING, WORKER))
