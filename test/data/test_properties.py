"""Properties: any JSON value, shown as what it is on every road, and told in events."""

from __future__ import annotations

import json
from typing import Any

import pytest
import sqlalchemy as sa
from hypothesis import given, settings
from hypothesis import strategies as st

from buildapi.db import tables as t
from buildapi.service import BuildAPI
from buildapi.testing import RecordingSubscriber, WebClient, in_memory_api, result_of

INFINITE = float("inf")
# A value, and what is shown of it: JSON has no numbers that are none.
VALUES: dict[str, tuple[Any, Any]] = {
    "null": (None, None),
    "text": ("☃\0\n", "☃\0\n"),
    "number": (1.5, 1.5),
    "huge": (2**80, 2**80),
    "negative": (-(2**70), -(2**70)),
    "nan": (float("nan"), None),
    "infinite": ([INFINITE, {"a": -INFINITE}, "NaN"], [None, {"a": None}, "NaN"]),
    "surrogate": ("\udc80", "\udc80"),
    "nested": ({"a": [{"b": []}]}, {"a": [{"b": []}]}),
    "tuple": ((1, 2), [1, 2]),
    'quote"\\': ("x", "x"),
}
GIVEN = {name: (value, "test ☃") for name, (value, _) in VALUES.items()}
SHOWN = {name: [shown, "test ☃"] for name, (_, shown) in VALUES.items()}


@pytest.fixture
def full(api: BuildAPI, builderid: int, workerid: int) -> BuildAPI:
    """A build, its build set and a change with all these properties."""
    updates = api.data.updates
    _, brids = result_of(updates.addBuildset(builderids=[builderid], properties=GIVEN))
    buildid, _ = result_of(updates.newBuild(builderid, brids[builderid], workerid))
    result_of(updates.setBuildProperties(buildid, GIVEN))
    result_of(updates.addChange(properties=GIVEN))
    return api


@pytest.mark.parametrize(
    ("path", "field"),
    [
        ("builds/1/properties", None),
        ("builders/1/builds/1/properties", None),
        ("buildsets/1/properties", None),
        ("builds/1?property=*", "properties"),
        ("builds?property=*", "properties"),
        ("buildrequests?property=*", "properties"),
        ("changes/1", "properties"),
    ],
)
@pytest.mark.parametrize("accept", ["application/json", "text/plain"])
def test_every_value_is_shown_as_what_it_is(
    full: BuildAPI, path: str, field: str | None, accept: str
) -> None:
    """In Python and over the web, compact or indented."""
    read = result_of(full.data.get(path))
    answer = WebClient(full).get(f"/api/v2/{path}", {"Accept": accept}).json()
    objects = [read if isinstance(read, dict) else read[0], next(iter(answer.values()))[0]]

    for found in objects:
        assert (found if field is None else found[field]) == SHOWN


@pytest.mark.parametrize("path", ["builds/1/properties", "buildsets/1/properties"])
def test_the_properties_of_one_object_are_sorted(full: BuildAPI, path: str) -> None:
    """Buildbot's web page makes a table of them, in the order in which they come."""
    answer = WebClient(full).get(f"/api/v2/{path}").json()

    assert list(answer["properties"][0]) == sorted(GIVEN) != list(GIVEN)


@pytest.mark.parametrize(
    "path", ["builds/1/property_list", "buildsets/1/properties_list", "changes/1/properties_list"]
)
def test_a_list_of_properties_has_json_texts(full: BuildAPI, path: str) -> None:
    """Every text is JSON."""
    rows = result_of(full.data.get(path))

    assert {r["name"]: [json.loads(r["value"]), r["source"]] for r in rows} == SHOWN
    assert len(rows) == len(SHOWN)
    assert not any("NaN" in row["value"] for row in rows if row["name"] == "nan")


def test_events_tell_the_same_values(api: BuildAPI, buildid: int) -> None:
    """A number of any size included."""
    recorded = RecordingSubscriber(api, "build.*.properties.update")
    result_of(api.data.updates.setBuildProperties(buildid, GIVEN))
    for name, (value, source) in GIVEN.items():
        result_of(api.data.updates.setBuildProperty(buildid, name, value, source))

    assert json.loads(recorded.events[0].body) == SHOWN
    for event, (name, pair) in zip(recorded.events[1:], SHOWN.items(), strict=True):
        assert json.loads(event.body) == {name: pair}


def test_properties_are_asked_for_by_name(full: BuildAPI) -> None:
    """In exact case; unknown names give nothing; nothing is asked for without property."""

    def found(path: str) -> Any:
        return result_of(full.data.get(path))["properties"]

    assert found("builds/1") == {}
    assert found("builds/1?property=huge&property=Number&property=null") == {
        "huge": [2**80, "test ☃"],
        "null": [None, "test ☃"],
    }
    assert found("builds/1?property=nosuch") == {}
    assert found("builds/1?property=%FF") == {}
    assert found("builds/1?property=nosuch&property=*") == SHOWN
    assert found("buildrequests/1") is None
    assert found("buildrequests/1?property=nosuch") == {}
    assert found("buildrequests/1?property=%FF") == {}


def test_the_properties_of_what_is_missing(api: BuildAPI) -> None:
    """The object is missing, the list is empty."""
    web = WebClient(api)

    for path in ("builds/9", "buildsets/9", "builders/9/builds/1"):
        assert web.get(f"/api/v2/{path}/properties").status == 404
    for path in ("builds/9/property_list", "buildsets/9/properties_list"):
        assert web.get(f"/api/v2/{path}").json() == {"_properties": [], "meta": {"total": 0}}


def test_one_object_of_free_keys_is_cut_to_its_fields(full: BuildAPI) -> None:
    """Whatever they are called."""
    assert result_of(full.data.get("builds/1/properties?field=huge&field=nosuch")) == {
        "huge": [2**80, "test ☃"]
    }


# A short list is filtered in Python, by the same rules.


@pytest.mark.parametrize(
    ("query", "names"),
    [
        ("order=name", ["a", "b", "c"]),
        ("order=-source", ["b", "c", "a"]),
        ("order=-source&order=-name", ["c", "b", "a"]),
        ("source=y", ["b", "c"]),
        ("source__ne=y", ["a"]),
        ("source=x&source=y&name__gt=a", ["b", "c"]),
        ("name__in=a&name__in=c&limit=1", ["a"]),
        ("name__contains=&order=-name&limit=2", ["c", "b"]),
        ("offset=9", []),
        ("limit=0", []),
        ("name=nosuch", []),
    ],
)
def test_a_list_of_properties_can_be_queried(
    api: BuildAPI, buildid: int, query: str, names: list[str]
) -> None:
    """Filters, order, pages and totals."""
    given = {"b": (1, "y"), "a": (2, "x"), "c": (3, "y")}
    result_of(api.data.updates.setBuildProperties(buildid, given))
    found = result_of(api.data.get(f"builds/1/property_list?{query}"))
    everything = result_of(
        api.data.get(f"builds/1/property_list?{query.partition('limit')[0].partition('offset')[0]}")
    )

    assert [row["name"] for row in found] == names
    assert found.total == len(everything)


# Storing


@pytest.mark.parametrize("filters", ["", "name__contains=&"])
def test_a_list_goes_by_what_was_first_stored_or_by_name(
    api: BuildAPI, buildid: int, system: str, filters: str
) -> None:
    """A property that is set again keeps its place; so no page has it twice, or never."""
    given = [*"bacd", "\N{ZERO WIDTH JOINER}", "ä", "B"]
    for name in given:
        result_of(api.data.updates.setBuildProperty(buildid, name, 1, "test"))
    path, pages = f"builds/1/property_list?{filters}limit=1", []
    for offset, again in enumerate(reversed(given)):
        pages += result_of(api.data.get(f"{path}&offset={offset}"))
        result_of(api.data.updates.setBuildProperty(buildid, again, "x" * 3_000, "test"))
    whole = result_of(api.data.get(f"builds/1/property_list?{filters}"))

    order = given if system == "sqlite" else sorted(given)
    assert [row["name"] for row in pages] == order
    assert [row["name"] for row in whole] == order


def test_what_is_changed_after_the_call_changes_nothing(api: BuildAPI, buildid: int) -> None:
    """A value is made JSON when the update is called, not when it is its turn."""
    value, held = [1], []

    def hold(tx: Any) -> None:
        held.append(api.data.updates.setBuildProperty(buildid, "a", value, "test"))
        value.append(2)
        assert tx is not None

    result_of(api.data.transaction(hold))
    result_of(held[0])

    assert result_of(api.data.get("builds/1/properties"))["a"] == [[1], "test"]


class Properties:
    """What masters call properties: an object that gives a dictionary."""

    def __init__(self, given: dict[str, Any]) -> None:
        self._given = given

    def asDict(self) -> dict[str, Any]:
        """Return ``{name: (value, source)}``."""
        return self._given


def test_an_object_that_gives_a_dictionary_is_as_good(api: BuildAPI, buildid: int) -> None:
    """Buildbot's own properties are such objects."""
    given = Properties({"a": (1, "test")})
    result_of(api.data.updates.setBuildProperties(buildid, given))
    bsid, _ = result_of(api.data.updates.addBuildset(properties=given))
    result_of(api.data.updates.addChange(properties=given))

    for path in ("builds/1/properties", f"buildsets/{bsid}/properties"):
        assert result_of(api.data.get(path)) == {"a": [1, "test"]}
    assert result_of(api.data.get("changes/1"))["properties"] == {"a": [1, "test"]}


_json = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=5,
)
_names = st.text(min_size=1, max_size=20)


@settings(max_examples=50)
@given(st.lists(st.dictionaries(_names, st.tuples(_json, _names), max_size=4), max_size=4))
def test_the_last_value_counts_and_only_changes_are_told(sets: list[dict[str, Any]]) -> None:
    """Whatever is set, however often: one row for each name."""
    api = in_memory_api()
    result_of(api.data.updates.findBuilderId("b"))
    result_of(api.data.updates.findWorkerId("w"))
    result_of(api.data.updates.addBuildset(builderids=[1]))
    result_of(api.data.updates.newBuild(1, 1, 1))
    expected: dict[str, Any] = {}
    for some in sets:
        recorded = RecordingSubscriber(api)
        result_of(api.data.updates.setBuildProperties(1, some))
        recorded.close()
        changed = {
            name: list(pair)
            for name, pair in some.items()
            if json.dumps(expected.get(name)) != json.dumps(pair)
        }
        expected |= {name: list(pair) for name, pair in some.items()}

        assert [json.loads(event.body) for event in recorded.events] == [changed] * bool(changed)
        assert result_of(api.data.get("builds/1/properties")) == expected
    rows = api.data.database.read(lambda r: r.rows(sa.select(t.build_properties.c.name), {}))
    assert sorted(name for (name,) in result_of(rows)) == sorted(expected)
