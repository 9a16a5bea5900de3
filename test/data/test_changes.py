"""Changes: how they are added, and which of them a build brought in."""

from __future__ import annotations

from typing import Any

import pytest
import sqlalchemy as sa
from hypothesis import given, settings
from hypothesis import strategies as st

from buildapi.db import tables as t
from buildapi.db.transaction import Tx
from buildapi.service import BuildAPI
from buildapi.testing import in_memory_api, result_of

Row = dict[str, Any]

# Random histories: few of everything, so that things meet; parents may be missing, or form a ring.

_place = st.tuples(st.sampled_from(["", "r"]), st.sampled_from([None, "main"]))
_stamps = st.lists(_place, min_size=4, max_size=4)
_changes = st.lists(
    st.tuples(st.integers(1, 4), st.none() | st.integers(1, 7)), min_size=1, max_size=6
)
# The stamps of a set: at most one of each codebase.
_sets = st.lists(st.sets(st.integers(1, 4), max_size=2), min_size=1, max_size=3)
_builds = st.lists(
    st.tuples(st.integers(1, 2), st.integers(1, 3), st.sampled_from([0, 0, 2, None])),
    min_size=1,
    max_size=6,
)


def codebase(ssid: int) -> str:
    """Return the codebase of a source stamp: two stamps of each."""
    return ("app", "lib")[ssid % 2]


class History:
    """Source stamps, changes and builds; ids count from 1."""

    def __init__(self, stamps: Any, changes: Any, sets: Any, builds: Any) -> None:
        self.stamps = {n + 1: (*place, codebase(n + 1)) for n, place in enumerate(stamps)}
        self.changes = dict(enumerate(changes, 1))
        self.sets = {
            n: {codebase(ssid): ssid for ssid in sorted(some)} for n, some in enumerate(sets, 1)
        }
        self.builds = dict(enumerate(builds, 1))
        numbers: dict[int, int] = {}
        self.numbers = {}
        for buildid, (builderid, _, _) in self.builds.items():
            numbers[builderid] = self.numbers[buildid] = numbers.get(builderid, 0) + 1

    def places(self, buildid: int) -> set[Any]:
        """Return where the source of a build comes from."""
        return {self.stamps[ssid] for ssid in self.of_build(buildid).values()}

    def of_build(self, buildid: int) -> dict[str, int]:
        """Return the source stamps of a build, by codebase."""
        return self.sets.get(self.builds[buildid][1], {})

    def newest(self, ssid: int | None) -> int | None:
        """Return the newest change of a source stamp."""
        return max((c for c, (of, _) in self.changes.items() if of == ssid), default=None)

    def before(self, buildid: int) -> int | None:
        """Return the last successful build before, of the same builder and places."""
        alike = [
            other
            for other, (builderid, _, results) in self.builds.items()
            if other < buildid
            and results == 0
            and builderid == self.builds[buildid][0]
            and self.places(other) == self.places(buildid)
        ]
        return max(alike, default=None)

    def brought_in(self, buildid: int) -> list[int]:
        """Return the changes of a build, as the contract describes them."""
        previous, found = self.before(buildid), set()
        for name, ssid in self.of_build(buildid).items():
            stop = None if previous is None else self.newest(self.of_build(previous).get(name))
            change, walked = self.newest(ssid), set[int]()
            while change in self.changes and change != stop and change not in walked:
                walked.add(change)
                change = self.changes[change][1]
            found |= walked
        return sorted(found)

    def store(self, tx: Tx) -> None:
        """Make the database hold this history."""
        tables = (t.sourcestamps, t.changes, t.buildset_sourcestamps, t.buildrequests, t.builds)
        for table in tables:
            tx.run(sa.delete(table))
        for ssid, (repository, branch, name) in self.stamps.items():
            place = {"repository": repository, "branch": branch, "codebase": name}
            tx.insert(t.sourcestamps, id=ssid, ss_hash=str(ssid), created_at=0, **place)
        for changeid, (ssid, parent) in self.changes.items():
            text = {"author": "", "comments": "", "when_timestamp": 0}
            tx.insert(
                t.changes, changeid=changeid, sourcestampid=ssid, parent_changeids=parent, **text
            )
        for bsid, some in self.sets.items():
            for ssid in some.values():
                tx.insert(t.buildset_sourcestamps, buildsetid=bsid, sourcestampid=ssid)
            request = {"buildsetid": bsid, "builderid": 1, "priority": 0, "submitted_at": 0}
            tx.insert(t.buildrequests, id=bsid, waited_for=0, **request)
        for buildid, (builderid, brid, results) in self.builds.items():
            fixed = {"masterid": 1, "started_at": 0, "locks_duration_s": 0, "state_string": ""}
            number = self.numbers[buildid]
            build = {"builderid": builderid, "buildrequestid": brid, "results": results}
            tx.insert(t.builds, id=buildid, number=number, **build, **fixed)


@pytest.fixture(scope="module")
def history() -> BuildAPI:
    """One API; every example stores another history in it."""
    return in_memory_api()


@settings(max_examples=300)
@given(_stamps, _changes, _sets, _builds)
def test_the_changes_of_a_build_are_those_since_the_last_good_one(
    history: BuildAPI, stamps: Any, changes: Any, sets: Any, builds: Any
) -> None:
    """By id and by number, in one SELECT: compared with a walk in Python."""
    model = History(stamps, changes, sets, builds)
    result_of(history.data.transaction(model.store))
    for buildid, (builderid, _, _) in model.builds.items():
        by_id = result_of(history.data.get(("builds", buildid, "changes")))
        path = ("builders", builderid, "builds", model.numbers[buildid], "changes")
        by_number = result_of(history.data.get(path))

        assert [change["changeid"] for change in by_id] == model.brought_in(buildid)
        assert list(by_number) == list(by_id)
        assert by_id.total == len(by_id)


def test_a_missing_build_brought_nothing_in(history: BuildAPI) -> None:
    """The list is empty, not everything."""
    assert list(result_of(history.data.get("builds/99/changes"))) == []
    assert list(result_of(history.data.get("builders/99/builds/1/changes"))) == []


# Adding changes


def add(api: BuildAPI, **values: Any) -> Row:
    """Add a change and return its object."""
    changeid = result_of(api.data.updates.addChange(**values))
    found: Row = result_of(api.data.get(("changes", changeid)))
    return found


def test_a_change_without_anything_is_a_change(api: BuildAPI) -> None:
    """Every argument has a default; the time is now."""
    change = add(api)

    assert change["author"] == change["comments"] == change["codebase"] == ""
    assert change["when_timestamp"] == result_of(api.data.get("sourcestamps"))[0]["created_at"]
    assert (change["files"], change["properties"], change["parent_changeids"]) == ([], {}, [])


def test_the_parent_is_the_newest_change_of_the_same_place(api: BuildAPI) -> None:
    """Of the same branch, repository, project and codebase; no branch is a branch too."""
    place = {"repository": "git://app", "project": "p", "codebase": "app"}
    first = add(api, **place, branch=None)["changeid"]
    other = add(api, **place, branch="main")["changeid"]
    add(api, branch=None)

    assert add(api, **place, branch=None)["parent_changeids"] == [first]
    assert add(api, **place, branch="main")["parent_changeids"] == [other]


def test_changes_of_one_revision_share_a_source_stamp(api: BuildAPI) -> None:
    """It is found by what it is a stamp of."""
    one = add(api, revision="abc", branch="main", codebase="app")
    same = add(api, revision="abc", branch="main", codebase="app")
    other = add(api, revision="abd", branch="main", codebase="app")

    assert one["sourcestamp"] == same["sourcestamp"] != other["sourcestamp"]


def test_a_property_of_a_change_comes_from_the_change(api: BuildAPI) -> None:
    """Unless a tuple says from where; a list of two is a value."""
    change = add(api, properties={"a": 1, "b": [1, "x"], "c": ({"d": None}, "hook")})

    assert change["properties"] == {
        "a": [1, "Change"],
        "b": [[1, "x"], "Change"],
        "c": [{"d": None}, "hook"],
    }
    path = ("changes", change["changeid"], "properties_list")
    assert list(result_of(api.data.get(path)))[2] == {
        "name": "c",
        "source": "hook",
        "value": '{"d": null}',
    }


def test_a_category_may_be_made_of_the_other_values(api: BuildAPI) -> None:
    """The function is called at once, with what was given, before anything is queued."""
    seen = []

    def categorise(values: Row) -> str:
        seen.append(values)
        return values["files"][0].rpartition(".")[2]  # type: ignore[no-any-return]

    change = add(api, files=["a.rst"], author="alice", properties={"p": 1}, category=categorise)

    assert change["category"] == "rst"
    assert len(seen) == 1
    assert seen[0]["author"] == "alice"
    assert seen[0]["properties"] == {"p": (1, "Change")}


def test_the_author_is_a_user_once(api: BuildAPI) -> None:
    """Where the kind of repository is known."""
    for src in ("git", "git", None):
        add(api, author="alice <a@b>", src=src)
    users = result_of(api.data.database.read(lambda r: r.rows(sa.select(t.users.c.identifier), {})))
    linked = result_of(api.data.database.read(lambda r: r.rows(sa.select(t.change_users), {})))

    assert users == [("alice <a@b>",)]
    assert len(linked) == 2


def test_a_source_stamp_shows_the_newest_of_its_changes(api: BuildAPI) -> None:
    """A revision may come twice, as two changes with one source stamp."""
    for author in ("first", "second", "other"):
        revision = "b2" if author == "other" else "a1"
        result_of(api.data.updates.addChange(author=author, revision=revision))

    found = result_of(api.data.get("sourcestamps/1/changes"))

    assert [change["author"] for change in found] == ["second"]
    assert found.total == 1
