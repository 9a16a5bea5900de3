"""Every update and the events that it publishes: topic, slash keys, body; and when it does not."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import orjson
import pytest
from twisted.internet.defer import Deferred

from buildapi.data.api import AllUpdates
from buildapi.data.updates import Update
from buildapi.db import tables as t
from buildapi.db.eventlog import stored
from buildapi.db.hashes import name_hash
from buildapi.db.transaction import Tx
from buildapi.errors import BadArgument, BuildAPIError, Conflict, NoSuchResource
from buildapi.mq.event import Event
from buildapi.service import BuildAPI
from buildapi.testing import NOON, RecordingSubscriber, in_memory_api, result_of

# The house that every case starts in.  No two ids are equal: no key can be right by chance.
MASTER, OTHER_MASTER, BUILDER, WORKER, SET, REQUEST, PENDING = 1, 11, 2, 3, 4, 5, 6
NUMBER, SCHEDULER, BUILD, STAMP, SECOND_SET, STEP, LOG, SHORT = 7, 9, 10, 12, 14, 55, 60, 61
PROJECT, CODEBASE, COMMIT, BRANCH, SOURCE, RESULTS = 30, 31, 32, 33, 34, 35


def _furnish(tx: Tx) -> None:
    def named(table: Any, ident: int, name: str, **others: Any) -> None:
        tx.insert(table, id=ident, name=name, name_hash=name_hash(name), **others)

    named(t.masters, OTHER_MASTER, "other:/master", active=1, last_active=NOON - 1000)
    named(t.builders, BUILDER, "runtests")
    named(t.schedulers, SCHEDULER, "nightly")
    tx.insert(t.workers, id=WORKER, name="worker-3", info="{}")
    tx.insert(t.builder_masters, id=20, builderid=BUILDER, masterid=MASTER)
    tx.insert(t.builder_masters, id=21, builderid=BUILDER, masterid=OTHER_MASTER)
    tx.insert(t.configured_workers, id=22, buildermasterid=20, workerid=WORKER)
    stamp = {"ss_hash": "x", "branch": "main", "repository": "git://app", "created_at": NOON}
    tx.insert(t.sourcestamps, id=STAMP, **stamp)
    for bsid, brid in ((SET, REQUEST), (SECOND_SET, PENDING)):
        tx.insert(t.buildsets, id=bsid, reason="why", submitted_at=NOON, complete=0, results=-1)
        tx.insert(t.buildset_sourcestamps, buildsetid=bsid, sourcestampid=STAMP)
        asked = {"buildsetid": bsid, "builderid": BUILDER, "results": -1, "submitted_at": NOON}
        tx.insert(t.buildrequests, id=brid, complete=0, priority=0, waited_for=0, **asked)
    tx.insert_later(t.buildrequest_claims, (REQUEST, MASTER, NOON))
    tx.insert(
        t.builds,
        id=BUILD,
        number=NUMBER,
        builderid=BUILDER,
        buildrequestid=REQUEST,
        workerid=WORKER,
        masterid=MASTER,
        started_at=NOON,
        locks_duration_s=0,
        state_string="building",
    )
    step = {"number": 4, "name": "compile", "state_string": "running", "urls_json": "[]"}
    tx.insert(t.steps, id=STEP, buildid=BUILD, **step)
    for logid, name in ((LOG, "stdio"), (SHORT, "other")):
        log = {"stepid": STEP, "complete": 0, "num_lines": 0, "type": "s"}
        tx.insert(t.logs, id=logid, name=name, slug=name, **log)
    named(t.changesources, SOURCE, "poller")
    named(t.projects, PROJECT, "app", slug="app")
    named(t.codebases, CODEBASE, "core", slug="core", projectid=PROJECT)
    commit = {"author": "alice", "comments": "a fix", "when_timestamp": NOON, "revision": "first"}
    tx.insert(t.codebase_commits, id=COMMIT, codebaseid=CODEBASE, **commit)
    named(t.codebase_branches, BRANCH, "main", codebaseid=CODEBASE, last_timestamp=NOON)
    tests = {"category": "pass_fail", "value_unit": "boolean", "complete": 0}
    place = {"builderid": BUILDER, "buildid": BUILD, "stepid": STEP}
    tx.insert(t.test_result_sets, id=RESULTS, **place, **tests)


def furnished() -> BuildAPI:
    """Return an API whose database is the house, furnished without a single event."""
    api = in_memory_api()
    result_of(api.data.updates.masterActive("test:/master", MASTER))
    result_of(api.data.transaction(_furnish))
    return api


@pytest.fixture
def api() -> BuildAPI:
    """A house of the test's own."""
    return furnished()


@pytest.fixture(scope="module")
def untouched() -> BuildAPI:
    """One house for all tests that change nothing in it."""
    return furnished()


@dataclass(frozen=True)
class Told:
    """
    An event that is expected.

    body: the path of the object that it is, or a body of its own.  extra: what it has beside.
    """

    topic: str
    keys: tuple[str, ...]
    body: Any
    extra: tuple[tuple[str, Any], ...] = ()


Call = Callable[[AllUpdates], Deferred[Any]]


@dataclass(frozen=True)
class Case:
    """A call, what came before it, its result and its events."""

    call: Call
    result: Any
    told: tuple[Told, ...] = ()
    before: Call | None = None


def of_build(word: str, buildid: int = BUILD, number: int = NUMBER) -> Told:
    """Tell something of a build."""
    keys = (
        f"builders/{BUILDER}/builds/{number}/{word}",
        f"builds/{buildid}/{word}",
        f"workers/{WORKER}/builds/{buildid}/{word}",
    )
    return Told(f"build.{buildid}.{word}", keys, f"builds/{buildid}")


def of_request(word: str, brid: int = REQUEST, bsid: int = SET, builderid: int = BUILDER) -> Told:
    """Tell something of a request."""
    keys = (
        f"buildsets/{bsid}/builders/{builderid}/buildrequests/{brid}/{word}",
        f"buildrequests/{brid}/{word}",
        f"builders/{builderid}/buildrequests/{brid}/{word}",
    )
    return Told(f"buildrequest.{brid}.{word}", keys, f"buildrequests/{brid}")


def of_set(word: str, bsid: int = SET) -> Told:
    """Tell something of a build set."""
    return Told(f"buildset.{bsid}.{word}", (f"buildsets/{bsid}/{word}",), f"buildsets/{bsid}")


def of_step(word: str, stepid: int = STEP, number: int = 4) -> Told:
    """Tell something of a step: its id in slash keys, its number in the topic."""
    keys = (f"builds/{BUILD}/steps/{stepid}/{word}", f"steps/{stepid}/{word}")
    return Told(f"build.{BUILD}.step.{number}.{word}", keys, f"steps/{stepid}")


def of_log(word: str, slash: str, logid: int = LOG, slug: str = "stdio") -> Told:
    """Tell something of a log: the words of the two families differ."""
    keys = (f"logs/{logid}/{slash}", f"steps/{STEP}/logs/{slug}/{slash}")
    return Told(f"build.{BUILD}.step.4.log.{logid}.{word}", keys, f"logs/{logid}")


def of_worker(word: str, *, slash: bool = True, workerid: int = WORKER, **extra: Any) -> Told:
    """Tell something of a worker."""
    keys = (f"workers/{workerid}/{word}",) if slash else ()
    return Told(f"worker.{workerid}.{word}", keys, f"workers/{workerid}", tuple(extra.items()))


def of_builder(word: str, body: Any = None, builderid: int = BUILDER) -> Told:
    """Tell something of a builder."""
    found = f"builders/{builderid}" if body is None else body
    return Told(f"builder.{builderid}.{word}", (f"builders/{builderid}/{word}",), found)


def of_properties(**body: Any) -> Told:
    """Tell of the properties of the build."""
    keys = (f"builds/{BUILD}/properties/update",)
    return Told(f"build.{BUILD}.properties.update", keys, body)


def of_master(word: str, ident: int, name: str, *, active: bool) -> Told:
    """Tell something of a master."""
    body = {"masterid": ident, "name": name, "active": active}
    return Told(f"master.{ident}.{word}", (f"masters/{ident}/{word}",), body)


def silently(topic: str, path: str) -> Told:
    """Tell of an object under its topic only, where Buildbot says nothing."""
    return Told(topic, (), path)


def of_results(word: str, setid: int = RESULTS) -> Told:
    """Tell something of a set of test results."""
    path = f"test_result_sets/{setid}"
    return Told(f"testresultset.{setid}.{word}", (f"{path}/{word}",), path)


def of_source(kind: str, plural: str, ident: int, word: str = "update") -> Told:
    """Tell something of a project, a codebase or a branch."""
    return Told(f"{kind}.{ident}.{word}", (f"{plural}/{ident}/{word}",), f"{plural}/{ident}")


A_RESULT = {"test_name": "test_all", "value": "1"}
HERE = {"builderid": BUILDER, "masterid": MASTER, "name": "runtests"}
THERE = {"builderid": 3, "masterid": MASTER, "name": "docs"}
NEW_BUILDER = {
    "builderid": 3,
    "name": "docs",
    "masterids": [],
    "description": None,
    "description_format": None,
    "description_html": None,
    "projectid": None,
    "tags": [],
}
NEW_SET = {
    "bsid": 15,
    "external_idstring": "id",
    "reason": "because",
    "rebuilt_buildid": None,
    "submitted_at": NOON,
    "complete": False,
    "complete_at": None,
    "results": None,
    "parent_buildid": BUILD,
    "scheduler": "nightly",
    "sourcestamps": [
        {
            "ssid": STAMP,
            "branch": "main",
            "revision": None,
            "repository": "git://app",
            "project": "",
            "codebase": "",
            "patch": None,
            "created_at": NOON,
        }
    ],
}
EMPTY_SET = {
    **NEW_SET,
    "external_idstring": None,
    "reason": "",
    "parent_buildid": None,
    "scheduler": None,
    "sourcestamps": [],
}

CASES: dict[str, Case] = {
    # builders
    "findBuilderId": Case(lambda u: u.findBuilderId("runtests"), BUILDER),
    "findBuilderId, new": Case(
        lambda u: u.findBuilderId("docs"), 3, (silently("builder.3.new", "builders/3"),)
    ),
    "updateBuilderInfo": Case(
        lambda u: u.updateBuilderInfo(BUILDER, "all", "markdown", "<p>all", None, ["a", "b", "a"]),
        None,
        (of_builder("update"),),
    ),
    "updateBuilderList": Case(
        lambda u: u.updateBuilderList(MASTER, ["docs", "docs"]),
        None,
        (
            of_worker("configured", slash=False),
            of_builder("stopped", HERE),
            Told("builder.3.new", (), NEW_BUILDER),
            of_builder("started", THERE, builderid=3),
        ),
    ),
    "updateBuilderList, same": Case(lambda u: u.updateBuilderList(MASTER, ["runtests"]), None),
    # build sets and requests
    "addBuildset": Case(
        lambda u: u.addBuildset(
            waited_for=True,
            scheduler="nightly",
            sourcestamps=[STAMP],
            reason="because",
            properties={"a": (1, "test")},
            builderids=[BUILDER, BUILDER],
            external_idstring="id",
            parent_buildid=BUILD,
            parent_relationship="triggered",
            priority=3,
        ),
        (15, {BUILDER: 7}),
        (
            Told("buildset.15.new", ("buildsets/15/new",), NEW_SET),
            of_request("new", brid=7, bsid=15),
        ),
    ),
    "addBuildset, without builders": Case(
        lambda u: u.addBuildset(),
        (15, {}),
        (Told("buildset.15.new", ("buildsets/15/new",), EMPTY_SET), of_set("complete", bsid=15)),
    ),
    "maybeBuildsetComplete": Case(lambda u: u.maybeBuildsetComplete(SET), None),
    "setBuildRequestPriority": Case(
        lambda u: u.setBuildRequestPriority(PENDING, -3),
        None,
        (silently(f"buildrequest.{PENDING}.priority", f"buildrequests/{PENDING}"),),
    ),
    "claimBuildRequests": Case(
        lambda u: u.claimBuildRequests([PENDING, PENDING]),
        True,
        (of_request("claimed", PENDING, SECOND_SET),),
    ),
    "claimBuildRequests, claimed": Case(lambda u: u.claimBuildRequests([PENDING, REQUEST]), False),
    "claimBuildRequests, missing": Case(lambda u: u.claimBuildRequests([PENDING, 99]), False),
    "unclaimBuildRequests": Case(
        lambda u: u.unclaimBuildRequests([REQUEST, PENDING, 99]), None, (of_request("unclaimed"),)
    ),
    "completeBuildRequests": Case(
        lambda u: u.completeBuildRequests([REQUEST], 2),
        True,
        (of_request("complete"), of_set("complete")),
    ),
    "completeBuildRequests, not ours": Case(
        lambda u: u.completeBuildRequests([REQUEST, PENDING], 0), False
    ),
    "completeBuildRequests, again": Case(
        lambda u: u.completeBuildRequests([REQUEST], 0),
        False,
        before=lambda u: u.completeBuildRequests([REQUEST], 0),
    ),
    "cancelBuildRequest": Case(
        lambda u: u.cancelBuildRequest(PENDING),
        True,
        (
            of_request("complete", PENDING, SECOND_SET),
            of_set("complete", SECOND_SET),
            Told(
                f"buildrequest.{PENDING}.cancel",
                (f"buildrequests/{PENDING}/cancel",),
                f"buildrequests/{PENDING}",
            ),
        ),
    ),
    "cancelBuildRequest, complete": Case(
        lambda u: u.cancelBuildRequest(PENDING),
        False,
        before=lambda u: u.cancelBuildRequest(PENDING),
    ),
    "rebuildBuildrequest": Case(
        lambda u: u.rebuildBuildrequest({"buildrequestid": REQUEST}),
        (15, {BUILDER: 7}),
        (
            Told(
                "buildset.15.new",
                ("buildsets/15/new",),
                {
                    **NEW_SET,
                    "external_idstring": None,
                    "reason": "rebuild",
                    "rebuilt_buildid": BUILD,
                    "parent_buildid": None,
                    "scheduler": "rebuild",
                },
            ),
            of_request("new", brid=7, bsid=15),
        ),
    ),
    # builds
    "addBuild": Case(
        lambda u: u.addBuild(BUILDER, PENDING, WORKER),
        (11, 8),
        (silently("build.11.created", "builds/11"),),
    ),
    "newBuild": Case(
        lambda u: u.newBuild(BUILDER, PENDING, WORKER), (11, 8), (of_build("new", 11, 8),)
    ),
    "generateNewBuildEvent": Case(
        lambda u: u.generateNewBuildEvent(BUILD), None, (of_build("new"),)
    ),
    "setBuildStateString": Case(
        lambda u: u.setBuildStateString(BUILD, "☃"), None, (of_build("update"),)
    ),
    "add_build_locks_duration": Case(
        lambda u: u.add_build_locks_duration(BUILD, 5), None, (of_build("update"),)
    ),
    "finishBuild": Case(lambda u: u.finishBuild(BUILD, 2), None, (of_build("finished"),)),
    "setBuildProperty": Case(
        lambda u: u.setBuildProperty(BUILD, "a", [1], "test"),
        None,
        (of_properties(a=[[1], "test"]),),
    ),
    "setBuildProperty, same": Case(
        lambda u: u.setBuildProperty(BUILD, "a", 1, "test"),
        None,
        (of_properties(a=[1, "test"]),),
        before=lambda u: u.setBuildProperty(BUILD, "a", 1, "test"),
    ),
    "setBuildProperties": Case(
        lambda u: u.setBuildProperties(BUILD, {"a": (1, "test"), "b": (None, "test")}),
        None,
        (of_properties(b=[None, "test"]),),
        before=lambda u: u.setBuildProperties(BUILD, {"a": (1, "test")}),
    ),
    "setBuildProperties, same": Case(
        lambda u: u.setBuildProperties(BUILD, {"a": (1, "test")}),
        None,
        before=lambda u: u.setBuildProperties(BUILD, {"a": (1, "test")}),
    ),
    # steps
    "addStep": Case(
        lambda u: u.addStep(BUILD, "compile"),
        (56, 5, "compile_1"),
        (of_step("new", stepid=56, number=5),),
    ),
    "startStep": Case(lambda u: u.startStep(STEP), None, (of_step("started"),)),
    "startStep, with locks": Case(
        lambda u: u.startStep(STEP, 1000, locks_acquired=True), None, (of_step("started"),)
    ),
    "set_step_locks_acquired_at": Case(
        lambda u: u.set_step_locks_acquired_at(STEP), None, (of_step("updated"),)
    ),
    "setStepStateString": Case(
        lambda u: u.setStepStateString(STEP, "so far"), None, (of_step("updated"),)
    ),
    "addStepURL": Case(
        lambda u: u.addStepURL(STEP, "docs", "http://x"), None, (of_step("updated"),)
    ),
    "addStepURL, again": Case(
        lambda u: u.addStepURL(STEP, "docs", "http://x"),
        None,
        (of_step("updated"),),
        before=lambda u: u.addStepURL(STEP, "docs", "http://x"),
    ),
    "finishStep": Case(lambda u: u.finishStep(STEP, 0, hidden=True), None, (of_step("finished"),)),
    # logs
    "addLog": Case(
        lambda u: u.addLog(STEP, "stdio", "s"), 62, (of_log("newlog", "new", 62, "stdio_2"),)
    ),
    "appendLog": Case(
        lambda u: u.appendLog(LOG, "oone\netwo\n"), (0, 1), (of_log("append", "append"),)
    ),
    "appendLog, more": Case(
        lambda u: u.appendLog(LOG, "ox\n" * 5000),
        (1, 5000),
        (of_log("append", "append"),),
        before=lambda u: u.appendLog(LOG, "oone\n"),
    ),
    "finishLog": Case(lambda u: u.finishLog(LOG), None, (of_log("complete", "finished"),)),
    "compressLog": Case(
        lambda u: u.compressLog(LOG),
        0,
        before=lambda u: u.appendLog(LOG, "oone\n"),
    ),
    # changes
    "addChange": Case(
        lambda u: u.addChange(
            files=["a.c"],
            comments="fixed",
            author="alice",
            revision="abc",
            branch="main",
            properties={"p": [1, 2]},
            repository="git://app",
            codebase="app",
            src="git",
        ),
        1,
        (Told("change.1.new", ("changes/1/new",), "changes/1"),),
    ),
    # projects, codebases, commits and branches
    "find_project_id": Case(lambda u: u.find_project_id("app"), PROJECT),
    "find_project_id, new": Case(
        lambda u: u.find_project_id("lib"), 31, (silently("project.31.new", "projects/31"),)
    ),
    "find_project_id, not made": Case(lambda u: u.find_project_id("lib", auto_create=False), None),
    "update_project_info": Case(
        lambda u: u.update_project_info(PROJECT, "the_app", "*it*", "markdown", "<em>it</em>"),
        None,
        (of_source("project", "projects", PROJECT),),
    ),
    "find_codebase_id": Case(
        lambda u: u.find_codebase_id(projectid=PROJECT, name="core"), CODEBASE
    ),
    "find_codebase_id, new": Case(
        lambda u: u.find_codebase_id(projectid=PROJECT, name="docs"),
        32,
        (silently("codebase.32.new", "codebases/32"),),
    ),
    "find_codebase_id, not made": Case(
        lambda u: u.find_codebase_id(projectid=PROJECT, name="docs", auto_create=False), None
    ),
    "update_codebase_info": Case(
        lambda u: u.update_codebase_info(codebaseid=CODEBASE, projectid=PROJECT, slug="heart"),
        None,
        (of_source("codebase", "codebases", CODEBASE),),
    ),
    "add_commit": Case(
        lambda u: u.add_commit(
            codebaseid=CODEBASE,
            author="alice",
            committer="bob",
            files=["a.c"],
            comments="a fix",
            when_timestamp=NOON,
            revision="second",
            parent_commitid=COMMIT,
        ),
        33,
        (
            Told(
                "commit.33.new",
                ("commits/33/new", f"codebases/{CODEBASE}/commits/33/new"),
                "commits/33",
            ),
        ),
    ),
    "add_commit, known": Case(
        lambda u: u.add_commit(
            codebaseid=CODEBASE, author="", comments="", when_timestamp=0, revision="first"
        ),
        COMMIT,
    ),
    "update_branch": Case(
        lambda u: u.update_branch(
            codebaseid=CODEBASE, name="main", commitid=COMMIT, last_timestamp=NOON
        ),
        BRANCH,
        (of_source("branch", "branches", BRANCH),),
    ),
    "update_branch, new": Case(
        lambda u: u.update_branch(codebaseid=CODEBASE, name="next", last_timestamp=NOON),
        34,
        (of_source("branch", "branches", 34),),
    ),
    # change sources
    "findChangeSourceId": Case(lambda u: u.findChangeSourceId("poller"), SOURCE),
    "findChangeSourceId, new": Case(
        lambda u: u.findChangeSourceId("x"),
        35,
        (silently("changesource.35.new", "changesources/35"),),
    ),
    "trySetChangeSourceMaster": Case(
        lambda u: u.trySetChangeSourceMaster(SOURCE, MASTER),
        True,
        (silently(f"changesource.{SOURCE}.master", f"changesources/{SOURCE}"),),
    ),
    "trySetChangeSourceMaster, taken": Case(
        lambda u: u.trySetChangeSourceMaster(SOURCE, OTHER_MASTER),
        False,
        before=lambda u: u.trySetChangeSourceMaster(SOURCE, MASTER),
    ),
    "trySetChangeSourceMaster, same": Case(
        lambda u: u.trySetChangeSourceMaster(SOURCE, None), True
    ),
    # build data and test results
    "setBuildData": Case(
        lambda u: u.setBuildData(BUILD, "report", b"\0\xff", "a step"),
        None,
        (silently(f"build.{BUILD}.data.updated", f"builds/{BUILD}/data/report"),),
    ),
    "addTestResultSet": Case(
        lambda u: u.addTestResultSet(BUILDER, BUILD, STEP, "unit", "performance", "ms"),
        36,
        (of_results("new", 36),),
    ),
    "addTestResults": Case(
        lambda u: u.addTestResults(BUILDER, RESULTS, [A_RESULT, A_RESULT]),
        None,
        (Told(f"testresultset.{RESULTS}.results", (), {"test_result_setid": RESULTS, "added": 2}),),
    ),
    "completeTestResultSet": Case(
        lambda u: u.completeTestResultSet(RESULTS, tests_passed=3),
        None,
        (of_results("completed"),),
    ),
    # workers
    "findWorkerId": Case(lambda u: u.findWorkerId("worker-3"), WORKER),
    "findWorkerId, new": Case(
        lambda u: u.findWorkerId("worker-4"), 4, (silently("worker.4.new", "workers/4"),)
    ),
    "workerConfigured": Case(
        lambda u: u.workerConfigured(WORKER, OTHER_MASTER, [BUILDER]),
        None,
        (of_worker("configured", slash=False),),
    ),
    "deconfigureAllWorkersForMaster": Case(
        lambda u: u.deconfigureAllWorkersForMaster(MASTER),
        None,
        (of_worker("configured", slash=False),),
    ),
    "deconfigureAllWorkersForMaster, none": Case(
        lambda u: u.deconfigureAllWorkersForMaster(OTHER_MASTER), None
    ),
    "workerConnected": Case(
        lambda u: u.workerConnected(WORKER, MASTER, {"host": "☃"}),
        None,
        (of_worker("connected"),),
    ),
    "workerDisconnected": Case(
        lambda u: u.workerDisconnected(WORKER, MASTER),
        None,
        (of_worker("disconnected"),),
        before=lambda u: u.workerConnected(WORKER, MASTER, {}),
    ),
    "workerMissing": Case(
        lambda u: u.workerMissing(WORKER, MASTER, 1000, ["a@b"]),
        None,
        (of_worker("missing", last_connection=1000, notify=["a@b"]),),
    ),
    "set_worker_paused": Case(
        lambda u: u.set_worker_paused(WORKER, True, "broken"), None, (of_worker("state_updated"),)
    ),
    "set_worker_graceful": Case(
        lambda u: u.set_worker_graceful(WORKER, True), None, (of_worker("state_updated"),)
    ),
    # schedulers
    "findSchedulerId": Case(lambda u: u.findSchedulerId("nightly"), SCHEDULER),
    "findSchedulerId, new": Case(
        lambda u: u.findSchedulerId("x"), 10, (silently("scheduler.10.new", "schedulers/10"),)
    ),
    "schedulerEnable": Case(
        lambda u: u.schedulerEnable(SCHEDULER, False),
        None,
        (
            Told(
                f"scheduler.{SCHEDULER}.updated",
                (f"schedulers/{SCHEDULER}/updated",),
                f"schedulers/{SCHEDULER}",
            ),
        ),
    ),
    "trySetSchedulerMaster": Case(
        lambda u: u.trySetSchedulerMaster(SCHEDULER, MASTER),
        True,
        (silently(f"scheduler.{SCHEDULER}.master", f"schedulers/{SCHEDULER}"),),
    ),
    "trySetSchedulerMaster, taken": Case(
        lambda u: u.trySetSchedulerMaster(SCHEDULER, OTHER_MASTER),
        False,
        before=lambda u: u.trySetSchedulerMaster(SCHEDULER, MASTER),
    ),
    "trySetSchedulerMaster, same": Case(lambda u: u.trySetSchedulerMaster(SCHEDULER, None), True),
    # masters
    "findMasterId": Case(lambda u: u.findMasterId("test:/master"), MASTER),
    "findMasterId, new": Case(
        lambda u: u.findMasterId("third:/"), 12, (silently("master.12.new", "masters/12"),)
    ),
    "masterActive": Case(lambda u: u.masterActive("test:/master", MASTER), None),
    "masterActive, stopped": Case(
        lambda u: u.masterActive("third:/", 12),
        None,
        (of_master("started", 12, "third:/", active=True),),
        before=lambda u: u.findMasterId("third:/"),
    ),
    "masterStopped": Case(
        lambda u: u.masterStopped("test:/master", MASTER),
        None,
        (
            of_log("complete", "finished"),
            of_log("complete", "finished", SHORT, "other"),
            of_step("finished"),
            of_build("finished"),
            of_request("unclaimed"),
            of_worker("configured", slash=False),
            of_builder("stopped", HERE),
            of_master("stopped", MASTER, "test:/master", active=False),
        ),
    ),
    "masterStopped, again": Case(
        lambda u: u.masterStopped("test:/master", MASTER),
        None,
        before=lambda u: u.masterStopped("test:/master", MASTER),
    ),
    "expireMasters": Case(
        lambda u: u.expireMasters(),
        None,
        (
            of_builder("stopped", {**HERE, "masterid": OTHER_MASTER}),
            of_master("stopped", OTHER_MASTER, "other:/master", active=False),
        ),
    ),
    "expireMasters, again": Case(
        lambda u: u.expireMasters(), None, before=lambda u: u.expireMasters()
    ),
}


def body_of(api: BuildAPI, told: Told) -> Any:
    """Return the body that is expected: a fresh GET of the object, or its own."""
    body = result_of(api.data.get(told.body)) if isinstance(told.body, str) else told.body
    return {**body, **dict(told.extra)}


@pytest.mark.parametrize("name", CASES)
def test_an_update_tells_what_the_contract_says(api: BuildAPI, name: str) -> None:
    """Its events in order, each with its topic, all its slash keys and its body."""
    case, updates = CASES[name], api.data.updates
    if case.before is not None:
        result_of(case.before(updates))
    recorded = RecordingSubscriber(api)

    assert result_of(case.call(updates)) == case.result
    assert [(e.topic, e.keys) for e in recorded.events] == [(e.topic, e.keys) for e in case.told]
    for event, told in zip(recorded.events, case.told, strict=True):
        assert orjson.loads(event.body) == body_of(api, told)


def test_every_update_has_its_case() -> None:
    """A new one gets into the table, or this fails."""
    updates = {name for name, it in inspect.getmembers_static(AllUpdates) if isinstance(it, Update)}
    aliases = {"newStep", "newLog"}

    assert updates - aliases == {name.partition(",")[0] for name in CASES} - {"compressLog"}


@pytest.mark.parametrize("alias", ["newStep", "newLog"])
def test_the_documented_names_are_the_same_methods(alias: str) -> None:
    """The documentation says new, the code add."""
    assert getattr(AllUpdates, alias) is not None
    assert vars(AllUpdates).get(alias) is vars(AllUpdates).get(alias.replace("new", "add"))


@pytest.mark.parametrize("name", CASES)
def test_events_are_stored_with_the_change(api: BuildAPI, name: str) -> None:
    """In one transaction, without a hole in the numbers; a second copy of them is what was told."""
    case, updates = CASES[name], api.data.updates
    recorded = RecordingSubscriber(api)
    if case.before is not None:
        result_of(case.before(updates))
    first = result_of(api.data.get("masters")).seq
    result_of(case.call(updates))

    logged: list[Event] = result_of(api.data.database.read(lambda r: stored(r, first, 1000)))
    assert [event.seq for event in logged] == list(range(first + 1, first + 1 + len(case.told)))
    assert logged == recorded.events[len(recorded.events) - len(logged) :]
    assert result_of(api.data.get("masters")).seq == first + len(logged)


@pytest.mark.parametrize("name", CASES)
def test_what_fails_later_in_the_transaction_never_happened(api: BuildAPI, name: str) -> None:
    """Neither the change nor its events, whatever the update."""
    case, updates = CASES[name], api.data.updates
    if case.before is not None:
        result_of(case.before(updates))
    if name.startswith("compressLog"):
        return
    recorded, before = RecordingSubscriber(api), dump(api)

    def fail(tx: Tx) -> None:
        case.call(Within(updates, tx))  # type: ignore[arg-type]  # it has the same methods
        raise Conflict("later")

    with pytest.raises(Conflict, match="later"):
        result_of(api.data.transaction(fail))
    assert recorded.events == []
    assert dump(api) == before


class Within:
    """The updates as part of a transaction."""

    def __init__(self, updates: AllUpdates, tx: Tx) -> None:
        self._updates = updates
        self._tx = tx

    def __getattr__(self, name: str) -> Any:
        """Return an update that happens within the transaction."""
        update = getattr(self._updates, name)
        return lambda *args, **kwargs: update.within(self._tx, *args, **kwargs)


def dump(api: BuildAPI) -> list[str]:
    """Return all that the database holds, but the number of its last batch."""
    connection = api.data.database._inline.connection  # type: ignore[union-attr]
    return [line for line in connection.iterdump() if '"buildapi_log"' not in line]


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
    result_of(api.data.transaction(_furnish))
    with pytest.raises(Conflict, match=r"server\.master"):
        result_of(api.data.updates.newBuild(BUILDER, PENDING, WORKER))
