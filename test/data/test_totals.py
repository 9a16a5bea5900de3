"""Remembered totals: never wrong, whatever is changed while lists are read."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from buildapi.data.fetch import Totals
from buildapi.service import BuildAPI
from buildapi.testing import in_memory_api, result_of

TABLES = ("builds", "steps")

_commits = st.tuples(st.just("commit"), st.sampled_from(TABLES), st.integers(0, 2))
_publishing = st.tuples(st.just("publish"), st.just(""), st.just(0))
_reads = st.tuples(st.just("read"), st.sampled_from(TABLES), st.integers(0, 3))


class World:
    """
    A database with a writer, whose batches become known to the reactor a little later.

    The total of a table is the number of its changes.  A snapshot is a number of commits.
    """

    def __init__(self) -> None:
        self.totals = Totals()
        self.changed: list[str] = []
        self.seqs = [0]
        self.published = 0

    def commit(self, table: str, events: int) -> None:
        """Change a table, and tell of it by so many events."""
        self.changed.append(table)
        self.seqs.append(self.seqs[-1] + events)
        if not events:
            # Between a silent change and its publication positions can't tell states apart.
            while self.published < len(self.changed):
                self.publish()

    def publish(self) -> None:
        """Let the reactor know of one commit more."""
        if self.published < len(self.changed):
            self.published += 1
            table = self.changed[self.published - 1]
            self.totals.changed([table], self.seqs[self.published])

    def read(self, table: str, age: int) -> None:
        """Ask for a total in a snapshot that is some commits old."""
        snapshot = max(0, len(self.changed) - age)
        seq, right = self.seqs[snapshot], self.changed[:snapshot].count(table)
        known = self.totals.get(table, [table], seq)
        if known is None:
            self.totals.put(table, seq, right)
        else:
            assert known == right


@given(st.lists(st.one_of(_commits, _publishing, _reads), max_size=30))
@settings(max_examples=500)
def test_a_remembered_total_is_right_in_every_snapshot(steps: list[tuple[str, str, int]]) -> None:
    """Old snapshots, commits that nobody knows of yet, changes that nobody tells of."""
    world = World()
    for what, table, number in steps:
        if what == "commit":
            world.commit(table, number)
        elif what == "publish":
            world.publish()
        else:
            world.read(table, number)


def test_an_unchanged_total_is_remembered() -> None:
    """It would be no use otherwise."""
    totals = Totals()
    totals.changed(["builds"], 5)
    totals.put("key", 5, 42)
    totals.changed(["steps"], 9)

    assert totals.get("key", ["builds"], 9) == 42
    assert totals.get("key", ["builds", "steps"], 9) is None


def test_only_so_many_totals_are_remembered() -> None:
    """Those that were asked for last."""
    totals = Totals(most=3)
    for key in range(10):
        totals.put(key, 0, key)

    assert [totals.get(key, [], 0) for key in (6, 7, 8, 9)] == [None, 7, 8, 9]


# The same of the whole API.

LISTS = (
    *("builds?complete=true", "builds?results=0", "builders/1/builds", "workers/1/builds"),
    *("buildrequests?complete=false", "buildrequests?claimed=true", "builders/1/buildrequests"),
    *("builds/1/steps?complete=false", "builders/1/builds/1/steps", "masters?active=true"),
    *("masters?last_active__gt=1795262400", "buildsets?complete=true", "builders?tags__contains=t"),
    *("changes/1/builds", "builds/1/changes", "builds/2/triggered_builds", "masters/1/builders"),
    *("workers?paused=true", "masters/1/workers", "builders/1/workers", "changes", "sourcestamps"),
    *("steps/1/logs?complete=true", "buildsets/1/sourcestamps", "schedulers?enabled=false"),
)


def _change(api: BuildAPI, what: str, number: int) -> Any:
    """Change something, and return the Deferred; what cannot be fails."""
    updates = api.data.updates
    changes: dict[str, Callable[[], Any]] = {
        "request": lambda: updates.addBuildset(
            builderids=[1],
            sourcestamps=[1, {"branch": f"b{number}"}],
            parent_buildid=number if number > 1 else None,
        ),
        "claim": lambda: updates.claimBuildRequests([number]),
        "unclaim": lambda: updates.unclaimBuildRequests([number]),
        "complete": lambda: updates.completeBuildRequests([number], 0),
        "cancel": lambda: updates.cancelBuildRequest(number),
        "build": lambda: updates.newBuild(1, number, 1),
        "finish": lambda: updates.finishBuild(number, number % 2),
        "step": lambda: updates.addStep(1, "step"),
        "finish step": lambda: updates.finishStep(number, 0, hidden=False),
        "log": lambda: updates.addLog(1, "log", "t"),
        "finish log": lambda: updates.finishLog(number),
        "change": lambda: updates.addChange(author="alice", branch=f"b{number}"),
        "tag": lambda: updates.updateBuilderInfo(1, None, None, None, None, ["t"] * (number % 2)),
        "builders": lambda: updates.updateBuilderList(1, ["a", "b", "c"][:number]),
        "workers": lambda: updates.workerConfigured(1, 1, [1] * (number % 2)),
        "pause": lambda: updates.set_worker_paused(1, paused=bool(number % 2)),
        "alive": lambda: updates.masterActive("test:/master", 1),
        "stopped": lambda: updates.masterStopped("test:/master", 1),
        "scheduler": lambda: updates.schedulerEnable(1, bool(number % 2)),
        "time": lambda: api.reactor.advance(1),
    }
    return changes[what]()


WHAT = (
    *("request", "claim", "unclaim", "complete", "cancel", "build", "finish", "step"),
    *("finish step", "log", "finish log", "change", "tag", "builders", "workers", "pause"),
    *("alive", "stopped", "scheduler", "time"),
)


@settings(max_examples=40)
@given(st.lists(st.tuples(st.sampled_from(WHAT), st.integers(1, 3)), max_size=25))
def test_the_total_of_a_page_is_the_length_of_the_list(steps: list[tuple[str, int]]) -> None:
    """After every change, told of by an event or not, on lists of all kinds."""
    api = in_memory_api()
    updates = api.data.updates
    result_of(updates.updateBuilderList(1, ["a"]))
    result_of(updates.findWorkerId("w"))
    result_of(updates.findSchedulerId("s"))
    result_of(updates.addChange(author="alice"))
    for what in ("request", "request", "build", "step", "log"):
        result_of(_change(api, what, 1))
    for what, number in steps:
        changing = _change(api, what, number)
        if changing is not None:
            changing.addErrback(lambda _: None)
        for path in LISTS:
            whole = result_of(api.data.get(path))
            page = result_of(api.data.get(path, limit=0))
            assert page.total == len(whole), path


@pytest.mark.parametrize(("limit", "offset"), [(0, 0), (1, 0), (5, 0), (1, 1), (5, 5), (None, 9)])
def test_the_window_does_not_change_the_total(
    api: BuildAPI, limit: int | None, offset: int
) -> None:
    """Not even one that begins beyond the end."""
    for name in ("a", "b", "c"):
        result_of(api.data.updates.findBuilderId(name))
    page = result_of(api.data.get("builders", limit=limit, offset=offset))

    assert page.total == 3
    assert len(page) == len([1, 2, 3][offset : None if limit is None else offset + limit])
