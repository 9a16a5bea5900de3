"""``api.data.get``: in process, a path with arguments means what the URL means."""

from __future__ import annotations

from typing import Any

import pytest

from buildapi.data.forcefields import ForceScheduler
from buildapi.errors import BadQuery, NoSuchPath, NoSuchResource
from buildapi.service import BuildAPI
from buildapi.testing import WebClient, result_of


@pytest.fixture
def api(api: BuildAPI) -> BuildAPI:
    """Builders a to e."""
    for name in "abcde":
        result_of(api.data.updates.findBuilderId(name))
    return api


def names(rows: Any) -> list[str]:
    """Return the names of objects."""
    return [row["name"] for row in rows]


@pytest.mark.parametrize(
    ("query", "url"),
    [
        ({}, ""),
        (
            {"filters": {"name__gt": "b"}, "order": "-name", "limit": 2},
            "name__gt=b&order=-name&limit=2",
        ),
        ({"filters": {"name": ["a", "e"]}, "order": ["-name"]}, "name=a&name=e&order=-name"),
        ({"offset": 3}, "offset=3"),
        (
            {"fields": ["name", "tags"], "filters": {"tags__contains": ""}},
            "field=name&field=tags&tags__contains=",
        ),
        ({"filters": None, "fields": None, "order": None, "properties": None}, ""),
    ],
)
def test_arguments_in_python_mean_the_url(api: BuildAPI, query: Any, url: str) -> None:
    """As a tuple, as a text, and over the web."""
    by_tuple = result_of(api.data.get(("builders",), **query))
    by_text = result_of(api.data.get(f"builders?{url}"))
    web = WebClient(api).get(f"/api/v2/builders?{url}").json()

    assert list(by_tuple) == list(by_text) == web["builders"]
    assert by_tuple.total == by_text.total == web["meta"]["total"]


def test_a_query_in_the_path_and_arguments_beside_it_are_one_query(api: BuildAPI) -> None:
    """Repeated filters are one filter with several values."""
    found = result_of(api.data.get("builders?name=a&name=b", filters={"name": "c"}, limit=2))

    assert names(found) == ["a", "b"]
    assert found.total == 3


def test_one_object_is_a_dictionary_and_a_collection_a_list(api: BuildAPI) -> None:
    """Which says how many there are, and at which position it was read."""
    one, some = result_of(api.data.get(("builders", 1))), result_of(api.data.get("builders"))

    assert one == some[0]
    assert some.total == 5
    assert some.seq == api.seq()


def test_an_element_of_a_path_may_contain_anything(api: BuildAPI) -> None:
    """Slashes, percent signs, question marks."""
    for name in ("a/b", "100%", "what?", "a b", "☃", "1%2F2"):
        builderid = result_of(api.data.updates.findBuilderId(name))
        assert result_of(api.data.get(("builders", name)))["builderid"] == builderid


@pytest.mark.parametrize(
    ("path", "query", "error"),
    [
        ("nosuch", {}, NoSuchPath),
        (("builders", "\udcff"), {}, NoSuchPath),
        ("builders/%FF", {}, NoSuchPath),
        (("builders", 99), {}, NoSuchResource),
        (("builders", 2**80), {}, NoSuchResource),
        ("builders?nosuch=1", {}, BadQuery),
        ("builders", {"filters": {"nosuch": 1}}, BadQuery),
        ("builders", {"filters": {"name": None}}, BadQuery),
        ("builders", {"filters": {"builderid": 1.5}}, BadQuery),
        ("builders", {"filters": {"builderid": True}}, BadQuery),
        ("builders", {"limit": -1}, BadQuery),
        ("builders", {"limit": True}, BadQuery),
        ("builders", {"order": "tags"}, BadQuery),
        (("builders", 1), {"filters": {"name": "a"}}, BadQuery),
        ("builders", {"filters": [("name", "a")]}, BadQuery),
        ("builders", {"filters": {5: "a"}}, BadQuery),
        (5, {}, NoSuchPath),
        (b"builders", {}, NoSuchPath),
        ({"builders"}, {}, NoSuchPath),
    ],
)
def test_every_failure_is_on_the_deferred(
    api: BuildAPI, path: Any, query: Any, error: type[Exception]
) -> None:
    """Nothing is raised synchronously."""
    reading = api.data.get(path, **query)

    with pytest.raises(error):
        result_of(reading)


def test_no_values_match_nothing(api: BuildAPI) -> None:
    """None of no values: everything."""
    assert list(result_of(api.data.get("builders", filters={"builderid": []}))) == []
    assert list(result_of(api.data.get("builders", filters={"name__contains": []}))) == []
    assert len(result_of(api.data.get("builders", filters={"builderid__notin": []}))) == 5


def test_an_answer_is_the_callers_own(api: BuildAPI) -> None:
    """To change it changes no later one."""
    for path in ("builders/1", "builds?property=*"):
        first = result_of(api.data.get(path))
        first.clear()

    assert result_of(api.data.get("builders/1"))["name"] == "a"


# Force schedulers: rows that are no SELECT.


@pytest.fixture
def forms(api: BuildAPI) -> BuildAPI:
    """Three force schedulers, one of them disabled."""
    for name, builders in (("one", ("a", "b")), ("two", ("b",)), ("three", ("gone",))):
        api.data.forceschedulers[name] = ForceScheduler(name=name, builder_names=builders)
    schedulerid = result_of(api.data.updates.findSchedulerId("two"))
    result_of(api.data.updates.schedulerEnable(schedulerid, v=False))
    return api


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("forceschedulers", ["one", "two", "three"]),
        ("forceschedulers?order=-name", ["two", "three", "one"]),
        ("forceschedulers?enabled=false", ["two"]),
        ("forceschedulers?enabled__gt=no&limit=1", ["one"]),
        ("forceschedulers?builder_names__contains=b", ["one", "two"]),
        (
            "forceschedulers?builder_names__contains=b&builder_names__contains=gone",
            ["one", "two", "three"],
        ),
        ("forceschedulers?name__contains=o&label__ne=one", ["two"]),
        ("builders/2/forceschedulers", ["one", "two"]),
        ("builders/3/forceschedulers", []),
        ("builders/99/forceschedulers", []),
        ("builders/a/forceschedulers", []),
        ("builders/1.0/forceschedulers", []),
    ],
)
def test_force_schedulers_are_queried_like_rows(
    forms: BuildAPI, path: str, expected: list[str]
) -> None:
    """By the same rules, in the order in which they are configured."""
    assert names(result_of(forms.data.get(path))) == expected


def test_a_force_scheduler_is_found_by_its_name(forms: BuildAPI) -> None:
    """Enabled, unless the database says otherwise."""
    two = result_of(forms.data.get("forceschedulers/two", fields=["name", "enabled"]))

    assert two == {"name": "two", "enabled": False}
    with pytest.raises(NoSuchResource, match="there is no force scheduler four"):
        result_of(forms.data.get("forceschedulers/four"))
    with pytest.raises(BadQuery, match="all_fields"):
        result_of(forms.data.get("forceschedulers?all_fields__contains=x"))
    with pytest.raises(BadQuery, match="builder_names"):
        result_of(forms.data.get("forceschedulers?order=builder_names"))
