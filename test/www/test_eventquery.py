"""The arguments of ``/api/v2/events``, and what is wrong with some."""

from __future__ import annotations

import pytest

from buildapi.errors import BadQuery
from buildapi.www.eventquery import EventQuery, parsed, resumed


@pytest.mark.parametrize(
    ("text", "query"),
    [
        ("", EventQuery()),
        ("topic=build.%23&topic=build.%23&topic=a.*", EventQuery(topics=("build.#", "a.*"))),
        ("since=0", EventQuery(since=0)),
        ("after=7&limit=5", EventQuery(since=7, limit=5)),
        ("wait=0.5", EventQuery(wait_s=0.5)),
        ("wait=61", EventQuery(wait_s=60)),
        ("log=abc&since=9", EventQuery(since=9, log="abc")),
    ],
)
def test_what_is_asked_for(text: str, query: EventQuery) -> None:
    """Each argument alone, its other name, and its bounds."""
    assert parsed(text) == query


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("sinze=5", "sinze"),
        ("since=-1", "since"),
        ("since=", "since"),
        ("since=1e3", "since"),
        ("since=%D9%A3", "since"),
        ("since=9999999999999999999", "since"),
        ("after=x", "after"),
        ("since=1&after=1", "since and after"),
        ("since=1&since=1", "since"),
        ("log=a&log=b", "log"),
        ("limit=0", "limit"),
        ("limit=-5", "limit"),
        ("wait=-1", "wait"),
        ("wait=soon", "wait"),
        ("wait=inf", "wait"),
        ("topic=", "topic"),
        ("topic=builds/1/new", "topic"),
        ("&".join(f"topic=a{n}" for n in range(101)), "topic"),
    ],
)
def test_what_cannot_be_meant_is_named(text: str, name: str) -> None:
    """So whoever wrote it can find it."""
    with pytest.raises(BadQuery, match=name):
        parsed(text)


def test_the_last_event_wins_over_since() -> None:
    """A browser comes back to the address that it had at the beginning."""
    assert resumed(parsed("since=3"), "81").since == 81
    assert resumed(parsed("since=3"), None).since == 3
    assert resumed(parsed("since=3"), "").since == 3


def test_a_last_event_that_is_none_is_named() -> None:
    """It did not come from here."""
    with pytest.raises(BadQuery, match="Last-Event-ID"):
        resumed(parsed(""), "b7")
