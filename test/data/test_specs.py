"""The list of paths that the API gives of itself is the one that was recorded."""

from __future__ import annotations

import json
import lzma
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from buildapi.data.api import ROUTER
from buildapi.errors import BadQuery
from buildapi.service import BuildAPI
from buildapi.testing import result_of

RECORDED = Path(__file__).parents[1] / "contract" / "reference" / "collections.jsonl.xz"


@cache
def recorded() -> dict[str, dict[str, Any]]:
    """Return what the reference tells of its paths, by path."""
    lines = lzma.decompress(RECORDED.read_bytes()).decode().splitlines()
    (items,) = (
        found["items"] for found in map(json.loads, lines) if found["path"] == "application.spec"
    )
    return {item["path"]: item for item in items}


def test_the_paths_are_those_that_were_recorded() -> None:
    """None is missing, and none is ours alone."""
    assert {route.pattern.strip("/") for route in ROUTER.routes} == set(recorded())


def test_each_path_gives_the_recorded_type(api: BuildAPI) -> None:
    """Field by field, in their order, with the types that the contract declares."""
    found = {row["path"]: row for row in result_of(api.data.get("application.spec"))}

    for path, wanted in recorded().items():
        assert found[path] == wanted, path


def test_paths_come_in_the_recorded_order(api: BuildAPI) -> None:
    """By path; the page is cut from that."""
    whole = result_of(api.data.get("application.spec"))
    page = result_of(api.data.get("application.spec?offset=10&limit=5&field=path"))

    assert [row["path"] for row in whole] == list(recorded())
    assert page == [{"path": path} for path in list(recorded())[10:15]]
    assert page.total == 138


def test_paths_are_filtered_by_type(api: BuildAPI) -> None:
    """By the name of the list, too; but not by what has no order."""
    by_type = result_of(api.data.get("application.spec?type=forcescheduler"))
    by_plural = result_of(api.data.get("application.spec?plural=forceschedulers"))

    assert len(by_type) == 3
    assert by_type == by_plural
    with pytest.raises(BadQuery):
        result_of(api.data.get("application.spec?order=type_spec"))


def test_declared_types_are_exceptions() -> None:
    """Where the contract names another type than the true one; nobody writes down the same."""
    exceptions = {
        f"{route.resource.singular}.{field.name}"
        for route in ROUTER.routes
        for field in route.resource.fields.values()
        if field.declared is not None
    }

    assert exceptions == {
        "branch.commitid",
        "build.properties",
        "build.workerid",
        "buildset.reason",
        "change.committer",
    }
