"""Test results, in sets; and the sets of a range of commits."""

from __future__ import annotations

import random
from typing import Any

import pytest

from buildapi.errors import BadArgument, Conflict
from buildapi.service import BuildAPI
from buildapi.testing import a_commit, result_of


@pytest.fixture
def setid(api: BuildAPI, builderid: int, buildid: int, stepid: int) -> int:
    """A set of test results of the step."""
    found: int = result_of(
        api.data.updates.addTestResultSet(
            builderid, buildid, stepid, "unit tests", "pass_fail", "boolean"
        )
    )
    return found


def get(api: BuildAPI, *path: int | str) -> Any:
    """Return what is at a path."""
    return result_of(api.data.get(path))


def test_a_result_has_a_name_or_a_place(api: BuildAPI, builderid: int, setid: int) -> None:
    """Both, with the line and the time it took, or one of them alone."""
    whole: dict[str, Any] = {
        "test_name": "test_all",
        "test_code_path": "test/all.py",
        "line": 7,
        "duration_ns": 3 * 10**9,
        "value": "1",
    }
    named, placed = {"test_name": "test_all", "value": "0"}, {"test_code_path": "x", "value": "2"}

    result_of(api.data.updates.addTestResults(builderid, setid, [whole, named, placed]))

    found = get(api, "test_result_sets", setid, "results")
    # On a server there is room for two seconds.
    whole["duration_ns"] = min(3 * 10**9, api.database.connector.LARGEST_INTEGER)
    nothing: dict[str, Any] = dict.fromkeys(("test_name", "test_code_path", "line", "duration_ns"))
    owner: dict[str, Any] = {"builderid": builderid, "test_result_setid": setid}
    assert found == [
        {"test_resultid": number, **owner, **nothing, **given}
        for number, given in enumerate((whole, named, placed), 1)
    ]


RESULT = {"test_name": "test_all", "value": "1"}
LONE = "\ud800"
WRONG_RESULTS: list[tuple[Any, str]] = [
    ("no dictionary", "result_values.1"),
    ({"test_name": "t"}, "result_values.1.value"),
    ({"value": "1"}, "result_values.1: test_name or test_code_path"),
    ({**RESULT, "value": 1}, "result_values.1.value"),
    ({**RESULT, "test_name": LONE}, "surrogates"),
    ({**RESULT, "line": "7"}, "result_values.1.line"),
    ({**RESULT, "line": -1}, "result_values.1.line"),
    ({**RESULT, "duration_ns": 2**63}, "result_values.1.duration_ns"),
]


@pytest.mark.parametrize(("result", "names"), WRONG_RESULTS)
def test_one_wrong_test_result_refuses_all(
    api: BuildAPI, builderid: int, setid: int, result: Any, names: str
) -> None:
    """It is named by its place."""
    with pytest.raises(BadArgument, match=names):
        result_of(api.data.updates.addTestResults(builderid, setid, [RESULT, result]))

    assert result_of(api.data.get(("test_result_sets", setid, "results"))) == []


@pytest.mark.parametrize("part", ["test_name", "test_code_path"])
def test_a_name_is_stored_whole_or_refused(
    api: BuildAPI, builderid: int, setid: int, part: str
) -> None:
    """PostgreSQL has no room in its index for more than 2.7 kB that can't be compressed."""
    name = "".join(map(chr, random.Random(1).sample(range(0x4E00, 0x9000), 1_000)))
    storing = api.data.updates.addTestResults(builderid, setid, [{part: name, "value": "1"}])
    if api.database.connector.dialect.name == "postgresql":
        with pytest.raises(BadArgument, match="cannot store it: index row size 3"):
            result_of(storing)
        expected = []
    else:
        expected = [name]

    shown = get(api, "test_result_sets", setid, "results")
    assert [row[part] for row in shown] == expected


def test_test_results_go_into_an_open_set_of_their_builder(
    api: BuildAPI, builderid: int, setid: int
) -> None:
    """A complete set stays as it is, and a hidden builder's is in no other builder's list."""
    other = result_of(api.data.updates.findBuilderId("other"))
    with pytest.raises(BadArgument, match="builderid"):
        result_of(api.data.updates.addTestResults(other, setid, [RESULT]))

    result_of(api.data.updates.completeTestResultSet(setid))
    with pytest.raises(Conflict, match="complete"):
        result_of(api.data.updates.addTestResults(builderid, setid, [RESULT]))


def test_sets_are_found_by_builder_build_and_step(
    api: BuildAPI, builderid: int, buildid: int, stepid: int, setid: int
) -> None:
    """And by their ids; other builders have none."""
    result_of(api.data.updates.completeTestResultSet(setid, tests_passed=3, tests_failed=0))
    found = get(api, "test_result_sets", setid)

    assert (found["complete"], found["tests_passed"], found["tests_failed"]) == (True, 3, 0)
    for place in (("builders", builderid), ("builders", "runtests"), ("builds", buildid)):
        assert get(api, *place, "test_result_sets") == [found]
    assert get(api, "steps", stepid, "test_result_sets") == [found]
    assert get(api, "builders", 9, "test_result_sets") == []


def built(api: BuildAPI, revision: str) -> int:
    """Build a revision with a set of test results; return the set's id."""
    updates = api.data.updates
    builderid = result_of(updates.findBuilderId("runtests"))
    stamp = {"revision": revision, "codebase": "core"}
    _, brids = result_of(updates.addBuildset(builderids=[builderid], sourcestamps=[stamp]))
    workerid = result_of(updates.findWorkerId("worker-1"))
    buildid, _ = result_of(updates.newBuild(builderid, brids[builderid], workerid))
    stepid, _, _ = result_of(updates.addStep(buildid, "tests"))
    setid: int = result_of(
        updates.addTestResultSet(builderid, buildid, stepid, None, "pass_fail", "boolean")
    )
    return setid


def test_a_range_of_commits_has_the_sets_of_its_builds(api: BuildAPI) -> None:
    """From the first commit to the second, both included, if one leads to the other."""
    a = result_of(a_commit(api, "a"))
    b, d = result_of(a_commit(api, "b", a)), result_of(a_commit(api, "d", a))
    c = result_of(a_commit(api, "c", b))
    sets = {revision: built(api, revision) for revision in "abcd"}

    def found(first: int, second: int) -> list[int]:
        path = ("codebases", 1, "commit_range", first, second, "test_result_sets")
        return [row["test_result_setid"] for row in get(api, *path)]

    assert found(a, c) == [sets["a"], sets["b"], sets["c"]]
    assert found(b, c) == [sets["b"], sets["c"]]
    assert found(d, d) == [sets["d"]]
    assert found(c, a) == []
    assert found(b, d) == []
    assert found(a, 99) == []
