"""Projects, and whether they are active."""

from __future__ import annotations

from typing import Any

import pytest

from buildapi.service import BuildAPI
from buildapi.testing import result_of


@pytest.fixture
def projects(api: BuildAPI) -> None:
    """A project ``used`` with a builder on a master, and ``idle`` with one on none."""
    updates = api.data.updates
    for name in ("used", "idle"):
        projectid = result_of(updates.find_project_id(name))
        builderid = result_of(updates.findBuilderId(f"{name}-builder"))
        result_of(updates.updateBuilderInfo(builderid, None, None, None, projectid, []))
    result_of(updates.updateBuilderList(1, ["used-builder"]))


def shown(api: BuildAPI, path: str) -> list[tuple[str, Any]]:
    """Return the names of the projects at a path, and what they say of being active."""
    return [(row["name"], row["active"]) for row in result_of(api.data.get(path))]


@pytest.mark.usefixtures("projects")
def test_projects_are_filtered_by_being_active(api: BuildAPI) -> None:
    """A builder on a master makes a project active; only who filters by it is told."""
    assert shown(api, "projects?active=true") == [("used", True)]
    assert shown(api, "projects?active=false") == [("idle", False)]
    assert shown(api, "projects") == [("used", None), ("idle", None)]
    assert result_of(api.data.get("projects?active=true")).total == 1


@pytest.mark.usefixtures("projects")
def test_a_project_is_found_by_name_with_its_builders(api: BuildAPI) -> None:
    """Its slug is made from its name."""
    found = result_of(api.data.get("projects/idle"))
    builders = result_of(api.data.get("projects/2/builders"))

    assert (found["projectid"], found["slug"]) == (2, "idle")
    assert [builder["name"] for builder in builders] == ["idle-builder"]


def test_projects_can_be_ordered_by_what_is_null(api: BuildAPI) -> None:
    """It leaves them as they are, on every system."""
    for name in ("b", "a"):
        result_of(api.data.updates.find_project_id(name))

    found = result_of(api.data.get("projects", order=["-active"]))

    assert [project["name"] for project in found] == ["b", "a"]
