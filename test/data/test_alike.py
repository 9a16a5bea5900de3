"""
The three database systems do the same: random updates, compared result by result and event by
event, and then all that there is to see.

``ALIKE_ROUNDS=100`` tries that many sequences of updates.
"""

from __future__ import annotations

import os
import random
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

import pytest

from buildapi.errors import BuildAPIError
from buildapi.service import BuildAPI
from buildapi.testing import NOON, RecordingSubscriber, in_memory_api, result_of
from buildapi.testing.memory import DATABASE

if TYPE_CHECKING:
    from test.servers import Server

ROUNDS = int(os.environ.get("ALIKE_ROUNDS", "1"))
UPDATES = 200
# The collation in which no two texts are the same: others fold names, and give them numbers.
COLLATION = "utf8mb4_nopad_bin"
# What looks alike, what SQL or JSON could misread, and what a column has no room for.
TEXTS = (
    *("", " ", "a", "A", "a ", "ä", "a\N{COMBINING DIAERESIS}", "ß", "ss", "İ", "😀", "\uffee"),
    *("\N{FULLWIDTH LATIN CAPITAL LETTER A}", "\N{LATIN SMALL LETTER DOTLESS I}", "\u200d"),
    *("%", "_", "'", '"', "\\", "a\\b", "a.b", "a_b", "a_1", "1a", "\t", "a\nb", "\x01"),
    *("x" * 49 + "é", "x" * 50, "x" * 51, "é" * 256, "z" * 300),
)
VALUES: tuple[Any, ...] = (
    *(None, True, 1, 1.5, 1e300, 2**70, float("nan"), float("inf")),
    *("ä😀", "\0", "\u2028", [1, {"a": None}], {"b": []}),
)
OUTPUT = (
    *("a\n", "é\n", "half\udc80\n", "x" * 70_000 + "\n"),
    *("\0\n", "\n", "a\r\nb\n", "\x85\u2028\n"),
)
DATA = (b"", b"\0\xff", b"x" * 100_000)


class Chooser(random.Random):
    """Chooses arguments; the same ones by the same number."""

    def text(self) -> str:
        """Choose a text."""
        return self.choice(TEXTS)

    def ident(self) -> int:
        """Choose an id, of something that is there or not."""
        return self.choice((1, 1, 1, 2, 2, 3, 4, 0, 99))

    def moment(self) -> int:
        """Choose a time."""
        return self.choice((0, -1, NOON, 2**31 - 1, -(2**31)))

    def flag(self) -> bool:
        """Choose yes or no."""
        return self.random() < 0.5

    def value(self) -> Any:
        """Choose what JSON has."""
        return self.choice(VALUES)

    def result(self) -> int:
        """Choose the code of a result."""
        return self.randrange(7)

    def stamp(self) -> Any:
        """Choose a source stamp that is there, or a description of one."""
        if self.random() < 0.4:
            return 1
        found: dict[str, Any] = {
            name: self.text()[:256]
            for name in ("branch", "revision", "repository", "project", "codebase")
            if self.flag()
        }
        if self.random() < 0.3:
            # A text has 65,535 bytes at most on MariaDB.
            found |= {"patch_body": self.choice(DATA)[:40_000], "patch_author": self.text()}
        return found

    def test_result(self) -> dict[str, Any]:
        """Choose what a test said."""
        return {
            "test_name": self.maybe("text"),
            "test_code_path": self.maybe("text"),
            "value": self.text(),
            "line": self.maybe("ident"),
        }

    def named(self, kind: str) -> dict[str, Any]:
        """Choose values with names."""
        return {self.text(): self.one(kind) for _ in range(self.randrange(3))}

    def maybe(self, kind: str) -> Any:
        """Choose one of this kind, or None."""
        return None if self.random() < 0.3 else self.one(kind)

    def one(self, kind: str) -> Any:
        """Choose one of a kind: a method's name; ``kind?`` is perhaps None, ``kind*`` a list."""
        if kind.endswith("?"):
            return self.maybe(kind[:-1])
        if kind.endswith("*"):
            return [self.one(kind[:-1]) for _ in range(self.randrange(4))]
        chosen: Callable[[], Any] = getattr(self, kind)
        return chosen()

    def output(self) -> str:
        """Choose what a command prints."""
        return self.choice(OUTPUT)

    def data(self) -> bytes:
        """Choose bytes."""
        return self.choice(DATA)

    def kind(self) -> str:
        """Choose the type of a log."""
        return self.choice("sth")

    def sourced(self) -> dict[str, Any]:
        """Choose properties."""
        return {name: (value, self.text()) for name, value in self.named("value").items()}

    def info(self) -> dict[str, Any]:
        """Choose what a worker tells of itself."""
        return self.named("value")

    def request(self) -> dict[str, Any]:
        """Choose the object of a build request."""
        return {"buildrequestid": self.ident()}


# What an update is called with, in this order; by name where a method wants that.
CALLS: dict[str, str | dict[str, str]] = {
    "findBuilderId": "text",
    "updateBuilderList": "ident text*",
    "updateBuilderInfo": "ident text? text? text? ident? text*",
    "findMasterId": "text",
    "masterActive": "text ident",
    "masterStopped": "text ident",
    "expireMasters": "flag",
    "findSchedulerId": "text",
    "schedulerEnable": "ident flag",
    "trySetSchedulerMaster": "ident ident?",
    "findChangeSourceId": "text",
    "trySetChangeSourceMaster": "ident ident?",
    "findWorkerId": "text",
    "workerConfigured": "ident ident ident*",
    "workerConnected": "ident ident info",
    "workerDisconnected": "ident ident",
    "workerMissing": "ident ident moment text*",
    "set_worker_paused": "ident flag text?",
    "set_worker_graceful": "ident flag",
    "deconfigureAllWorkersForMaster": "ident",
    "find_project_id": "text flag",
    "update_project_info": "ident text text? text? text?",
    "find_codebase_id": {"projectid": "ident", "name": "text", "auto_create": "flag"},
    "update_codebase_info": {"codebaseid": "ident", "projectid": "ident", "slug": "text"},
    "add_commit": {
        "codebaseid": "ident",
        "author": "text",
        "committer": "text?",
        "comments": "text",
        "when_timestamp": "moment",
        "revision": "text",
        "parent_commitid": "ident?",
    },
    "update_branch": {
        "codebaseid": "ident",
        "name": "text",
        "commitid": "ident?",
        "last_timestamp": "moment",
    },
    "addChange": (
        "text* text? text? text? text? moment? text? text? text? info text text? text text?"
    ),
    "addBuildset": "flag text? stamp* text sourced ident* text? ident? ident? text? ident",
    "maybeBuildsetComplete": "ident",
    "claimBuildRequests": "ident* moment?",
    "unclaimBuildRequests": "ident*",
    "completeBuildRequests": "ident* result moment?",
    "cancelBuildRequest": "ident",
    "setBuildRequestPriority": "ident ident",
    "rebuildBuildrequest": "request",
    "addBuild": "ident ident ident",
    "newBuild": "ident ident ident",
    "generateNewBuildEvent": "ident",
    "setBuildStateString": "ident text",
    "add_build_locks_duration": "ident ident",
    "setBuildProperty": "ident text value text",
    "setBuildProperties": "ident sourced",
    "setBuildData": "ident text data text",
    "finishBuild": "ident result",
    "addStep": "ident text",
    "startStep": "ident moment? flag",
    "set_step_locks_acquired_at": "ident moment?",
    "setStepStateString": "ident text",
    "addStepURL": "ident text text",
    "finishStep": "ident result flag",
    "addLog": "ident text kind",
    "appendLog": "ident output",
    "compressLog": "ident",
    "finishLog": "ident",
    "addTestResultSet": "ident ident ident text? text text",
    "addTestResults": "ident ident test_result*",
    "completeTestResultSet": "ident ident? ident?",
}
LISTS = """
masters builders schedulers changesources workers projects codebases changes buildsets
buildrequests?property=* builds?property=* sourcestamps test_result_sets
"""
BELOW = """
builds/{}/steps builds/{}/properties builds/{}/property_list?order=name builds/{}/data
builds/{}/changes builds/{}/triggered_builds builds/{}/test_result_sets changes/{}/builds
sourcestamps/{}/changes buildsets/{}/properties steps/{}/logs logs/{} logs/{}/contents?limit=1000
codebases/{}/commits codebases/{}/branches codebases/{}/commit_range/1/2/commits_common_parent
test_result_sets/{}/results masters/{}/builders masters/{}/workers masters/{}/schedulers
masters/{}/changesources workers/{}/builds workers/{}/builders builders/{}/workers
builders/{}/masters builders/{}/buildrequests projects/{}/builders
"""


@pytest.fixture
def three(postgresql: Server, mariadb: Server) -> Iterator[dict[str, BuildAPI]]:
    """An API on each system, with two builds of everything."""
    with ExitStack() as ending:
        made = mariadb.fresh_database(COLLATION)
        ending.callback(mariadb.drop, made)
        urls = {
            "sqlite": "sqlite://",
            "postgresql": ending.enter_context(postgresql.empty()),
            "mariadb": made,
        }
        found = {}
        for system, url in urls.items():
            before = DATABASE.set(url)
            found[system] = in_memory_api()
            DATABASE.reset(before)
            ending.callback(found[system].stopService)
            furnish(found[system])
        yield found


def furnish(api: BuildAPI) -> None:
    """Make some of everything."""
    updates = api.data.updates
    result_of(updates.updateBuilderList(1, ["one", "two", "three"]))
    result_of(updates.addBuildset(builderids=[1, 2, 3], sourcestamps=[{"branch": "main"}]))
    result_of(updates.find_project_id("app"))
    result_of(updates.find_codebase_id(projectid=1, name="core"))
    for ident in (1, 2):
        result_of(updates.findWorkerId(f"worker-{ident}"))
        result_of(updates.newBuild(1, ident, 1))
        result_of(updates.addStep(ident, "compile"))
        result_of(updates.addLog(ident, "stdio", "s"))
        result_of(updates.addTestResultSet(1, ident, ident, None, "pass_fail", "boolean"))
        commit: dict[str, Any] = {"author": "", "comments": "", "when_timestamp": 0}
        result_of(updates.add_commit(codebaseid=1, revision=f"r{ident}", **commit))


def outcome(call: Callable[[], Any]) -> str:
    """Return what came of a call: its result, or its error."""
    try:
        return repr(in_some_order(result_of(call())))
    except BuildAPIError as error:
        return repr(error)


def in_some_order(value: Any) -> Any:
    """Return the same with all lists in one order: that of embedded objects is free."""
    if isinstance(value, dict):
        return {name: in_some_order(one) for name, one in sorted(value.items())}
    if isinstance(value, list):
        return sorted(map(in_some_order, value), key=repr)
    return value


class Compared:
    """What the systems do, one beside the other."""

    def __init__(self, apis: dict[str, BuildAPI]) -> None:
        self._apis = apis
        self._heard = {system: RecordingSubscriber(api) for system, api in apis.items()}

    def same(self, ask: Callable[[BuildAPI], Any], what: str) -> None:
        """Do the same on all; fail if not the same comes of it."""
        found = {}
        for system, api in self._apis.items():
            events = self._heard[system].events
            events.clear()
            came = outcome(lambda api=api: ask(api))  # type: ignore[misc]
            told = [(e.seq, e.topic, e.keys, repr(in_some_order(e.message))) for e in events]
            found[system] = (came, told)
        assert len(set(map(repr, found.values()))) == 1, (what, found)


@pytest.mark.parametrize("seed", range(ROUNDS))
def test_the_same_updates_come_to_the_same(three: dict[str, BuildAPI], seed: int) -> None:
    """Each result, error and event, and every object afterwards."""
    compared, chooser = Compared(three), Chooser(seed)
    for _ in range(UPDATES):
        name = chooser.choice(tuple(CALLS))
        kinds = CALLS[name]
        if isinstance(kinds, str):
            args, kwargs = [chooser.one(kind) for kind in kinds.split()], {}
        else:
            args, kwargs = [], {key: chooser.one(kind) for key, kind in kinds.items()}
        compared.same(
            lambda api: getattr(api.data.updates, name)(*args, **kwargs),  # noqa: B023  called at once
            f"{name} {args} {kwargs}",
        )

    below = (path.format(ident) for path in BELOW.split() for ident in range(1, 5))
    for path in (*LISTS.split(), *below):
        compared.same(lambda api: api.data.get(path), path)  # noqa: B023  called at once
