"""What updates of all else tell: changes, code, test results, workers, schedulers, masters."""

from __future__ import annotations

from buildapi.testing import NOON
from test.data.furnished import (
    BRANCH,
    BUILD,
    BUILDER,
    CODEBASE,
    COMMIT,
    MASTER,
    OTHER_MASTER,
    PROJECT,
    RESULTS,
    SCHEDULER,
    SHORT,
    SOURCE,
    STEP,
    WORKER,
)
from test.data.told import (
    Case,
    Told,
    of_build,
    of_builder,
    of_log,
    of_master,
    of_request,
    of_results,
    of_source,
    of_step,
    of_worker,
    silently,
)

A_RESULT = {"test_name": "test_all", "value": "1"}
HERE = {"builderid": BUILDER, "masterid": MASTER, "name": "runtests"}


CASES: dict[str, Case] = {
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
