"""What updates of builders, build sets, builds, steps and logs tell."""

from __future__ import annotations

from buildapi.testing import NOON
from test.data.furnished import (
    BUILD,
    BUILDER,
    LOG,
    MASTER,
    PENDING,
    REQUEST,
    SECOND_SET,
    SET,
    STAMP,
    STEP,
    WORKER,
)
from test.data.told import (
    Case,
    Told,
    of_build,
    of_builder,
    of_log,
    of_properties,
    of_request,
    of_set,
    of_step,
    of_worker,
    silently,
)

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
}
