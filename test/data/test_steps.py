"""Steps: their numbers, names, times and links; and the numbers of builds."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from buildapi.service import BuildAPI
from buildapi.testing import NOON, in_memory_api, result_of


def add(api: BuildAPI, name: str, buildid: int = 1) -> Any:
    """Add a step to a build; return its id, number and name."""
    return result_of(api.data.updates.addStep(buildid, name))


def test_builds_are_numbered_from_1_and_steps_from_0(
    api: BuildAPI, builderid: int, brid: int, workerid: int
) -> None:
    """Those of each builder, those of each build."""
    other = result_of(api.data.updates.findBuilderId("other"))
    made = [
        result_of(api.data.updates.newBuild(of, brid, workerid))
        for of in (builderid, builderid, other)
    ]

    assert [number for _, number in made] == [1, 2, 1]
    assert [add(api, "a")[1], add(api, "b")[1], add(api, "a", made[1][0])[1]] == [0, 1, 0]


def test_a_new_build_has_begun_and_an_added_one_has_not(
    api: BuildAPI, builderid: int, brid: int, workerid: int
) -> None:
    """The documented method, and the one of the code."""
    begun, _ = result_of(api.data.updates.newBuild(builderid, brid, workerid))
    added, _ = result_of(api.data.updates.addBuild(builderid, brid, workerid))

    states = [result_of(api.data.get(("builds", b)))["state_string"] for b in (begun, added)]
    assert states == ["starting", "created"]


def test_a_new_step_has_not_started(api: BuildAPI, stepid: int) -> None:
    """It is pending, and shown."""
    step = result_of(api.data.get(("steps", stepid)))

    assert step == {
        "stepid": stepid,
        "number": 0,
        "name": "compile",
        "buildid": 1,
        "started_at": None,
        "locks_acquired_at": None,
        "complete": False,
        "complete_at": None,
        "results": None,
        "state_string": "pending",
        "urls": [],
        "hidden": False,
    }


def test_a_taken_name_gets_a_number(api: BuildAPI, buildid: int) -> None:
    """The first one that is free."""
    names = [add(api, name, buildid)[2] for name in ("a", "a_1", "a", "a", "a_1")]

    assert names == ["a", "a_1", "a_2", "a_3", "a_1_1"]


def test_a_name_has_at_most_50_characters(api: BuildAPI, buildid: int) -> None:
    """Any characters; a number takes the place of the last ones."""
    name = "☃" * 60

    assert [add(api, name, buildid)[2] for _ in range(3)] == [
        "☃" * 50,
        "☃" * 48 + "_1",
        "☃" * 48 + "_2",
    ]


@settings(max_examples=25)
@given(st.lists(st.sampled_from(["a", "a_1", "a_2", "b", "x" * 60, "x" * 48 + "_1"]), max_size=12))
def test_names_and_numbers_are_unique_in_a_build(names: list[str]) -> None:
    """Whatever is asked for."""
    api = in_memory_api()
    for name in ("b", "w"):
        result_of(api.data.updates.findBuilderId(name))
        result_of(api.data.updates.findWorkerId(name))
    result_of(api.data.updates.addBuildset(builderids=[1]))
    result_of(api.data.updates.newBuild(1, 1, 1))
    made = [add(api, name) for name in names]

    assert [number for _, number, _ in made] == list(range(len(names)))
    assert len({name for _, _, name in made}) == len(names)
    for stepid, number, name in made:
        assert result_of(api.data.get(("builds", 1, "steps", number)))["stepid"] == stepid
        assert result_of(api.data.get(("builds", 1, "steps", name)))["number"] == number


@pytest.mark.parametrize(
    ("arguments", "started_at", "locks_acquired_at"),
    [
        ({}, NOON, None),
        ({"started_at": 1000}, 1000, None),
        ({"locks_acquired": True}, NOON, NOON),
        ({"started_at": 1000, "locks_acquired": True}, 1000, 1000),
    ],
)
def test_a_step_starts_with_or_without_its_locks(
    api: BuildAPI,
    stepid: int,
    arguments: dict[str, Any],
    started_at: int,
    locks_acquired_at: int | None,
) -> None:
    """Now, unless told otherwise."""
    result_of(api.data.updates.startStep(stepid, **arguments))
    step = result_of(api.data.get(("steps", stepid)))

    assert (step["started_at"], step["locks_acquired_at"]) == (started_at, locks_acquired_at)


def test_the_locks_of_a_step_do_not_change_its_build(api: BuildAPI, stepid: int) -> None:
    """The time that a build waited is added by a call of its own."""
    result_of(api.data.updates.set_step_locks_acquired_at(stepid, 2000))
    before = result_of(api.data.get("builds/1"))["locks_duration_s"]
    result_of(api.data.updates.add_build_locks_duration(1, 5))
    result_of(api.data.updates.add_build_locks_duration(1, 6))

    assert result_of(api.data.get(("steps", stepid)))["locks_acquired_at"] == 2000
    assert (before, result_of(api.data.get("builds/1"))["locks_duration_s"]) == (0, 11)


def test_equal_links_are_kept_once(api: BuildAPI, stepid: int) -> None:
    """Equal in name and address; in the order of the calls."""
    for name, url in (("b", "1"), ("a", "1"), ("b", "1"), ("b", "2")):
        result_of(api.data.updates.addStepURL(stepid, name, url))

    assert result_of(api.data.get(("steps", stepid)))["urls"] == [
        {"name": "b", "url": "1"},
        {"name": "a", "url": "1"},
        {"name": "b", "url": "2"},
    ]


def test_the_end_of_a_step_and_of_a_build(api: BuildAPI, stepid: int) -> None:
    """Complete means that the time is there."""
    result_of(api.data.updates.finishStep(stepid, 1, hidden=True))
    result_of(api.data.updates.finishBuild(1, 2))
    step, build = (result_of(api.data.get(path)) for path in (("steps", stepid), "builds/1"))

    assert (step["complete"], step["complete_at"], step["results"]) == (True, NOON, 1)
    assert step["hidden"] is True
    assert (build["complete"], build["complete_at"], build["results"]) == (True, NOON, 2)
