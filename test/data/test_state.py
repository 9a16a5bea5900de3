"""The key-value state of pollers and schedulers."""

from __future__ import annotations

from typing import Any

import pytest
import sqlalchemy as sa

from buildapi.db import tables as t
from buildapi.errors import BadArgument, Conflict, NoSuchResource
from buildapi.service import BuildAPI
from buildapi.testing import RecordingSubscriber, result_of


@pytest.mark.parametrize("value", [None, 0, "☃", [1, {"a": None}], 2**80, {"a": "\udc80"}])
def test_what_is_set_is_got(api: BuildAPI, value: Any) -> None:
    """Any JSON value, None too; silently."""
    recorded = RecordingSubscriber(api)
    result_of(api.state.set("poller", "Git", "rev", "old"))
    result_of(api.state.set("poller", "Git", "rev", value))

    assert result_of(api.state.get("poller", "Git", "rev")) == value
    assert recorded.topics == []


def test_a_key_belongs_to_a_name_and_a_class(api: BuildAPI) -> None:
    """One row for each."""
    for name, class_name, key in (
        ("a", "x", "k"),
        ("a", "y", "k"),
        ("b", "x", "k"),
        ("a", "x", "l"),
    ):
        result_of(api.state.set(name, class_name, key, [name, class_name, key]))

    assert result_of(api.state.get("a", "y", "k")) == ["a", "y", "k"]
    assert result_of(api.state.get("a", "x", "l")) == ["a", "x", "l"]
    for table, rows in ((t.objects, 3), (t.object_state, 4)):
        reading = api.data.database.read(lambda r, it=table: r.rows(sa.select(it), {}))  # type: ignore[misc]
        assert len(result_of(reading)) == rows


def test_what_was_never_set_has_the_default(api: BuildAPI) -> None:
    """Or is an error that says what is missing."""
    assert result_of(api.state.get("poller", "Git", "rev", None)) is None
    with pytest.raises(NoSuchResource, match="Git poller remembers no rev"):
        result_of(api.state.get("poller", "Git", "rev"))


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (("x" * 129, "Git", "rev", 1), "name"),
        (("poller", "x" * 129, "rev", 1), "class_name"),
        (("poller", "Git", "x" * 256, 1), "key"),
        (("poller", "", "rev", 1), "class_name"),
        (("poller", "Git", "rev", {1, 2}), "value"),
        (("poller", "Git", 5, 1), "key"),
    ],
)
def test_what_does_not_fit_is_refused(api: BuildAPI, arguments: Any, named: str) -> None:
    """By the width of its column."""
    with pytest.raises(BadArgument, match=f"^set: {named}: "):
        result_of(api.state.set(*arguments))


@pytest.mark.parametrize(
    ("parameter", "wrong"), [("name", 5), ("class_name", ["b"]), ("key", "\udc80")]
)
def test_what_cannot_be_a_name_is_not_asked_for(api: BuildAPI, parameter: str, wrong: Any) -> None:
    """A default does not hide that."""
    words = {"name": "a", "class_name": "b", "key": "c", "default": None}

    with pytest.raises(BadArgument, match=f"^get: {parameter}: "):
        result_of(api.state.get(**{**words, parameter: wrong}))


def test_nothing_is_remembered_by_a_name_that_cannot_be_stored(api: BuildAPI) -> None:
    """Of a character that a database does not have."""
    assert result_of(api.state.get("a\0", "b", "c", None)) is None


def test_state_is_part_of_a_transaction(api: BuildAPI) -> None:
    """A poller remembers what it has seen with the change that it adds, or neither."""

    def poll(tx: Any, *, fail: bool) -> None:
        api.state.set.within(tx, "poller", "Git", "rev", "abc")
        api.data.updates.addChange.within(tx, revision="abc")
        if fail:
            raise Conflict("later")

    with pytest.raises(Conflict):
        result_of(api.data.transaction(lambda tx: poll(tx, fail=True)))
    assert result_of(api.state.get("poller", "Git", "rev", None)) is None
    result_of(api.data.transaction(lambda tx: poll(tx, fail=False)))
    assert result_of(api.state.get("poller", "Git", "rev")) == "abc"
    assert result_of(api.data.get("changes")).total == 1
