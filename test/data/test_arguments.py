"""Every argument of every update method: what it must be, and that nothing else gets through."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import partial
from typing import Any

import pytest
import sqlalchemy as sa
from twisted.internet.defer import Deferred

from buildapi.data.api import AllUpdates
from buildapi.data.state import State
from buildapi.data.updates import BoundUpdate, Update
from buildapi.db.tables import metadata
from buildapi.errors import BadArgument, BuildAPIError, NoSuchResource
from buildapi.service import BuildAPI
from buildapi.testing import NOON, RecordingSubscriber, a_commit, a_log, result_of

LONE, NUL = "half a \udc80 character", "a \0 character"
NAN, INFINITE = float("nan"), float("inf")
NOTHING_THERE = 999_999


@dataclass(frozen=True)
class Kind:
    """What an argument may be.  good: one that is taken.  wrong: none of these is."""

    good: Any
    wrong: tuple[Any, ...]
    ident: bool = False

    @property
    def or_none(self) -> Kind:
        """The same, where None is taken, too."""
        return replace(self, wrong=tuple(one for one in self.wrong if one is not None))

    def __call__(self, good: Any) -> Kind:
        """Return the same with another example."""
        return replace(self, good=good)


def text(most: int | None = None, *, empty: bool = True, good: str = "ünïcode") -> Kind:
    """Return a text of so many characters at most."""
    wrong = [5, True, b"x", None, ["x"], LONE, NUL]
    if most is not None:
        wrong.append("x" * (most + 1))
    return Kind(good, (*wrong, *([] if empty else [""])))


def many(kind: Kind, *wrong: Any) -> Kind:
    """Return a list of this kind."""
    inside = ([kind.good, one] for one in kind.wrong)
    return Kind([kind.good], (5, "x", b"x", None, {1: 2}, kind.good, *inside, *wrong))


ID = Kind(1, (-1, 2**31, 2**70, True, 1.0, NAN, "1", b"1", None, [1], LONE), ident=True)
COUNT = Kind(3, (-1, 2**31, 2**70, True, 1.5, NAN, "1", None, [1]))
SECONDS = Kind(NOON, (2**31, -(2**31) - 1, 1.5, INFINITE, True, "now", None, [1]))
MOMENT = Kind(
    datetime(2026, 11, 21, tzinfo=UTC), (*SECONDS.wrong, datetime(2100, 1, 1, tzinfo=UTC))
)
PRIORITY = Kind(-5, (2**31, -(2**31) - 1, 1.5, NAN, "1", None, True))
RESULTS = Kind(2, (-1, 7, 2**70, 1.0, True, "2", "SUCCESS", None, [1]))
FLAG = Kind(True, (2, -1, 0.5, NAN, "yes", "", None, [], {}))
TEXT, NAME = text(), text(empty=False)
DATA = Kind(b"\0\xff", ("text", 5, None, bytearray(b"x"), [1]))
JSON = Kind({"a": [1, None, "\0"]}, ({1, 2}, object(), b"x", {(1, 2): 3}, 1j))
OBJECT = Kind({"version": "4.3"}, ([], "{}", 5, None, {"a": {1}}, {1: 2}))
TYPE = Kind("t", ("", "x", "st", "S", "s\n", "h ", "ß", LONE, NUL, 5, None, b"s", ["s"]))
CONTENT = Kind("one\ntwo\n", ("", "no newline", "a\nb", b"x\n", 5, None, ["x\n"]))
SOURCED: tuple[Any, ...] = (
    *(5, "x", [], {"a": 1}, {"a": (1, 2)}, {"a": (1,)}, {"a": (1, "x", 2)}, {"a": "xy"}),
    *({1: (1, "x")}, {"": (1, "x")}, {None: (1, "x")}, {"x" * 257: (1, "x")}),
    *({"a": (1, "x" * 257)}, {"a": (1, None)}, {"a": ({1}, "x")}),
    *({LONE: (1, "x")}, {"a": (1, LONE)}, {NUL: (1, "x")}, {"a": (1, NUL)}),
)
PROPERTIES = Kind({"a": ({"b": 1}, "test")}, (*SOURCED, None))
OF_CHANGE = Kind(
    {"a": 1, "b": (2, "test")}, (5, "x", [1], {1: 2}, {"": 1}, {LONE: 1}, {NUL: 1}, {"a": {1}})
)
SOURCE_STAMP = Kind(
    {"branch": "main", "patch_body": b"diff"},
    (
        *(-1, 2**31, True, None, 1.5, "x", b"x", [], {"nosuch": 1}, {"ssid": -1}, {"ssid": None}),
        *({"branch": 5}, {"branch": "x" * 257}, {"revision": "x" * 257}, {"repository": None}),
        *({"repository": "x" * 513}, {"project": "x" * 513}, {"codebase": "x" * 257}),
        *({"branch": LONE}, {"revision": NUL}, {"codebase": None}),
        *({"patch_body": LONE}, {"patch_body": b"x", "patch_level": -1}),
        *({"patch_body": b"x", "patch_author": LONE}, {"patch_body": b"x", "patch_comment": NUL}),
        *({"patch_body": b"x", "patch_subdir": 5}, {"patch_body": b"x", "patch_nosuch": 5}),
    ),
)
REQUEST = Kind(
    {"buildrequestid": 1},
    (5, "1", None, [], {}, *({"buildrequestid": one} for one in ID.wrong)),
)
TEST_RESULT = Kind(
    {"test_name": "test_a", "value": "1", "line": 3, "duration_ns": 5},
    (
        *(5, "x", None, {}, {"value": "1"}, {"test_name": "a"}, {"test_name": "a", "value": 1}),
        *({"test_name": 5, "value": "1"}, {"test_name": "a", "value": LONE}),
        *({"test_name": NUL, "value": "1"}, {"test_code_path": LONE, "value": "1"}),
        *({"test_name": "a", "value": "1", "line": one} for one in (-1, 2**31, "3", 1.5)),
        *({"test_name": "a", "value": "1", "duration_ns": one} for one in (-1, 2**63, "3", 1.5)),
        {"test_name": "a", "value": "1", "nosuch": 1},
    ),
)

Arguments = dict[str, Kind]
INFO = dict.fromkeys(("description", "description_format", "description_html"), TEXT.or_none)
UPDATES: dict[str, Arguments] = {
    "findMasterId": {"name": NAME},
    "masterActive": {"name": TEXT, "masterid": ID},
    "findBuilderId": {"name": NAME},
    "updateBuilderList": {"masterid": ID, "builderNames": many(NAME("runtests"))},
    "updateBuilderInfo": {
        "builderid": ID,
        **INFO,
        "projectid": ID.or_none,
        "tags": many(Kind("a tag", (-1, 2**31, None, 1.5, b"x", LONE, NUL))),
    },
    "findSchedulerId": {"name": NAME},
    "schedulerEnable": {"schedulerid": ID, "v": FLAG},
    "trySetSchedulerMaster": {"schedulerid": ID, "masterid": ID.or_none},
    "findChangeSourceId": {"name": NAME},
    "trySetChangeSourceMaster": {"changesourceid": ID, "masterid": ID.or_none},
    "findWorkerId": {"name": text(50, empty=False)},
    "workerConfigured": {"workerid": ID, "masterid": ID, "builderids": many(ID)},
    "workerConnected": {"workerid": ID, "masterid": ID, "workerinfo": OBJECT},
    "workerMissing": {
        "workerid": ID,
        "masterid": ID,
        "last_connection": SECONDS,
        "notify": many(TEXT),
    },
    "workerDisconnected": {"workerid": ID, "masterid": ID},
    "set_worker_paused": {"workerid": ID, "paused": FLAG, "pause_reason": TEXT.or_none},
    "set_worker_graceful": {"workerid": ID, "graceful": FLAG},
    "deconfigureAllWorkersForMaster": {"masterid": ID},
    "find_project_id": {"name": NAME, "auto_create": FLAG},
    "update_project_info": {"projectid": ID, "slug": text(50, empty=False), **INFO},
    "find_codebase_id": {"projectid": ID, "name": NAME, "auto_create": FLAG},
    "update_codebase_info": {"codebaseid": ID, "projectid": ID, "slug": text(50, empty=False)},
    "add_commit": {
        "codebaseid": ID,
        "author": text(255),
        "committer": text(255).or_none,
        "files": many(TEXT).or_none,
        "comments": TEXT,
        "when_timestamp": SECONDS,
        "revision": text(70, empty=False),
        "parent_commitid": ID.or_none,
    },
    "update_branch": {
        "codebaseid": ID,
        "name": text(255, empty=False),
        "commitid": ID.or_none,
        "last_timestamp": SECONDS,
    },
    "addChange": {
        "files": many(text(1024)).or_none,
        "comments": TEXT.or_none,
        "author": text(255).or_none,
        "committer": text(255).or_none,
        "revision": text(255).or_none,
        "when_timestamp": SECONDS.or_none,
        "branch": text(255).or_none,
        "category": text(255).or_none,
        "revlink": text(256).or_none,
        "properties": OF_CHANGE,
        "repository": text(512),
        "codebase": text(256).or_none,
        "project": text(512),
        "src": TEXT.or_none,
    },
    "addBuildset": {
        "waited_for": FLAG,
        "scheduler": TEXT.or_none,
        "sourcestamps": many(SOURCE_STAMP).or_none,
        "reason": TEXT,
        "properties": Kind(PROPERTIES.good, SOURCED),
        "builderids": many(ID).or_none,
        "external_idstring": text(256).or_none,
        "rebuilt_buildid": ID.or_none,
        "parent_buildid": ID.or_none,
        "parent_relationship": TEXT.or_none,
        "priority": PRIORITY,
    },
    "maybeBuildsetComplete": {"bsid": ID},
    "claimBuildRequests": {"brids": many(ID), "claimed_at": MOMENT.or_none},
    "rebuildBuildrequest": {"buildrequest": REQUEST},
    "setBuildRequestPriority": {"brid": ID, "priority": PRIORITY},
    "addBuild": {"builderid": ID, "buildrequestid": ID, "workerid": ID},
    "generateNewBuildEvent": {"buildid": ID},
    "newBuild": {"builderid": ID, "buildrequestid": ID, "workerid": ID},
    "setBuildStateString": {"buildid": ID, "state_string": TEXT},
    "add_build_locks_duration": {"buildid": ID, "duration_s": COUNT},
    "setBuildProperty": {
        "buildid": ID,
        "name": text(256, empty=False),
        "value": JSON,
        "source": text(256),
    },
    "setBuildProperties": {"buildid": ID, "properties": PROPERTIES},
    "setBuildData": {
        "buildid": ID,
        "name": text(256, empty=False),
        "value": DATA,
        "source": text(256),
    },
    "addStep": {"buildid": ID, "name": NAME},
    "startStep": {"stepid": ID, "started_at": SECONDS.or_none, "locks_acquired": FLAG},
    "set_step_locks_acquired_at": {"stepid": ID, "locks_acquired_at": SECONDS.or_none},
    "setStepStateString": {"stepid": ID, "state_string": TEXT},
    "addStepURL": {"stepid": ID, "name": TEXT, "url": TEXT},
    "addLog": {"stepid": ID, "name": NAME, "type": TYPE},
    "appendLog": {"logid": ID, "content": CONTENT},
    "finishLog": {"logid": ID},
    "compressLog": {"logid": ID},
    "finishStep": {"stepid": ID, "results": RESULTS, "hidden": FLAG},
    "addTestResultSet": {
        "builderid": ID,
        "buildid": ID,
        "stepid": ID,
        "description": TEXT.or_none,
        "category": TEXT,
        "value_unit": TEXT,
    },
    "addTestResults": {
        "builderid": ID,
        "test_result_setid": ID,
        "result_values": many(TEST_RESULT),
    },
    "completeTestResultSet": {
        "test_result_setid": ID,
        "tests_passed": COUNT.or_none,
        "tests_failed": COUNT.or_none,
    },
    "finishBuild": {"buildid": ID, "results": RESULTS},
    "unclaimBuildRequests": {"brids": many(ID)},
    "completeBuildRequests": {
        "brids": many(ID),
        "results": RESULTS,
        "complete_at": MOMENT.or_none,
    },
    "cancelBuildRequest": {"brid": ID},
    "masterStopped": {"name": TEXT, "masterid": ID},
    "expireMasters": {"forceHouseKeeping": FLAG},
    "set": {
        "name": text(128, empty=False),
        "class_name": text(128, empty=False),
        "key": text(255, empty=False),
        "value": JSON,
    },
}
SYNONYMS = {"newStep": "addStep", "newLog": "addLog"}


@pytest.fixture
def house(api: BuildAPI) -> BuildAPI:
    """An API with one of everything that an update is about: its id is 1."""
    updates = api.data.updates
    result_of(updates.updateBuilderList(1, ["runtests"]))
    result_of(a_log(api, "a line\n"))
    result_of(a_commit(api, "abc"))
    result_of(updates.addTestResultSet(1, 1, 1, None, "pass_fail", "boolean"))
    result_of(updates.findSchedulerId("nightly"))
    result_of(updates.findChangeSourceId("poller"))
    return api


def method_of(api: BuildAPI, name: str) -> Callable[..., Any]:
    """Return an update."""
    found: Callable[..., Any] = getattr(api.state if name == "set" else api.data.updates, name)
    return found


def in_transaction(api: BuildAPI, method: Any, arguments: dict[str, Any]) -> Deferred[Any]:
    """Do an update as one of several."""
    return api.data.transaction(lambda tx: method.within(tx, **arguments))


def failure_of(call: Callable[[], Any]) -> BuildAPIError | None:
    """Return what an update fails with, if it does."""
    try:
        result_of(call())
    except BuildAPIError as error:
        return error
    return None


def stored(api: BuildAPI) -> list[Any]:
    """Return all that the database holds, but the number of its last batch."""
    tables = [table for name, table in metadata.tables.items() if name != "buildapi_log"]
    found: list[Any] = result_of(
        api.database.read(lambda reader: [reader.rows(sa.select(table), {}) for table in tables])
    )
    return found


def test_every_argument_of_every_update_is_tried() -> None:
    """A new one is not forgotten here."""
    declared = {}
    for owner in (AllUpdates, State):
        for name, found in inspect.getmembers(owner):
            if isinstance(found, BoundUpdate):
                update = inspect.getattr_static(owner, name)
                assert isinstance(update, Update)
                declared[name] = list(update.signature.parameters)
    declared["compressLog"] = ["logid"]
    for name, synonym in SYNONYMS.items():
        assert declared.pop(name) == declared[synonym]

    assert {name: list(kinds) for name, kinds in UPDATES.items()} == declared


def test_what_is_right_is_taken(house: BuildAPI) -> None:
    """Whatever else is tried is refused for itself, then."""
    for name, kinds in UPDATES.items():
        good = {parameter: kind.good for parameter, kind in kinds.items()}

        assert (name, failure_of(partial(method_of(house, name), **good))) == (name, None)


def tries(*, nul: bool) -> Iterator[tuple[str, str, Any, dict[str, Any]]]:
    """Yield every update with one argument that is wrong: its name and the argument's, and all."""
    for name, kinds in UPDATES.items():
        good = {parameter: kind.good for parameter, kind in kinds.items()}
        for parameter, kind in kinds.items():
            for wrong in kind.wrong:
                if nul or NUL not in texts_of(wrong):
                    yield name, parameter, wrong, {**good, parameter: wrong}


def texts_of(value: Any) -> str:
    """Return all texts in a value."""
    if isinstance(value, dict):
        return "".join(texts_of(one) for pair in value.items() for one in pair)
    if isinstance(value, (list, tuple)):
        return "".join(map(texts_of, value))
    return value if isinstance(value, str) else ""


def test_what_is_wrong_is_named_and_nothing_is_done(house: BuildAPI) -> None:
    """The error says which argument of which update; no row and no event is left behind."""
    heard, before = RecordingSubscriber(house), stored(house)
    unlike: list[Any] = []

    for name, parameter, wrong, arguments in tries(nul=not house.database.connector.STORES_NUL):
        method = method_of(house, name)
        calls = [partial(method, **arguments)]
        if isinstance(method, BoundUpdate):
            calls.append(partial(in_transaction, house, method, arguments))
        for call in calls:
            error = failure_of(call)
            if not isinstance(error, BadArgument) or not str(error).startswith(
                (f"{name}: {parameter}: ", f"{name}: {parameter}.")
            ):
                unlike.append((name, parameter, wrong, error))

    assert unlike == []
    assert heard.events == []
    assert stored(house) == before


# What is asked to do as much as there is: they say what they did.
ANSWER_FALSE = {"claimBuildRequests", "completeBuildRequests", "unclaimBuildRequests"}


def test_what_is_not_there_is_named_and_nothing_is_done(house: BuildAPI) -> None:
    """An id of nothing is an error that says what it should be the id of."""
    heard, before = RecordingSubscriber(house), stored(house)
    unlike: list[Any] = []

    for name, kinds in UPDATES.items():
        good = {parameter: kind.good for parameter, kind in kinds.items()}
        for parameter, kind in kinds.items():
            missing = NOTHING_THERE if kind.ident else [NOTHING_THERE]
            if name in ANSWER_FALSE or not (kind.ident or kind.good == [ID.good]):
                continue
            error = failure_of(partial(method_of(house, name), **{**good, parameter: missing}))
            if not isinstance(error, NoSuchResource | BadArgument) or parameter not in str(error):
                unlike.append((name, parameter, error))

    assert unlike == []
    assert heard.events == []
    assert stored(house) == before
