"""Reach: who has to look again after a batch, and who need not."""

from __future__ import annotations

import sqlite3
from typing import Any

import orjson
import pytest

from buildapi.data.api import ROUTER
from buildapi.data.fetch import Plain
from buildapi.data.gate import Gate, Identity, Restriction
from buildapi.data.logchunks import LogChunk
from buildapi.data.reach import Reach, narrowed, tables
from buildapi.data.router import Route
from buildapi.db.groupcommit import Committed
from buildapi.mq.event import Event
from buildapi.service import BuildAPI
from buildapi.testing import result_of

# What a reader may look at that no answer shows, save the position.
NOT_SHOWN = {"buildapi_log", "sqlite_master", "json_each", ""}

BUILD = {"buildid": 7, "builderid": 3, "buildrequestid": 70, "workerid": 1, "masterid": 1}
STEP = {"stepid": 20, "buildid": 7, "number": 2, "name": "compile"}


def event(topic: str, body: dict[str, Any]) -> Event:
    """Return an event."""
    return Event(1, topic, 0.0, (), orjson.dumps(body))


def reached(api: BuildAPI, paths: list[str], touched: dict[str, Any], *events: Event) -> list[str]:
    """Return which of these questions a batch may concern."""
    reach: Reach[str] = Reach()
    for path in paths:
        reach.add(api.data.understood(*path.partition("?")[::2]), path)
    return reach.touched(Committed(events, touched, 1))


BUILDS = ["builds/7", "builds/8", "builds?builderid=3", "builders/4/builds", "builds?complete=true"]


def test_a_row_concerns_whoever_asks_for_it_or_for_those_of_its_parent(api: BuildAPI) -> None:
    """Which parent that is, its event tells."""
    told = event("build.7.finished", BUILD)

    assert reached(api, BUILDS, {"builds": {7}}, told) == [
        *("builds?complete=true", "builds/7", "builds?builderid=3"),
    ]


@pytest.mark.parametrize(
    "told",
    [
        event("build.8.finished", {**BUILD, "buildid": 8}),
        event("build.7.properties.update", {"buildid": [7, "x"], "builderid": [3, "x"]}),
        event("build.7.step.2.finished", STEP),
        event("control.build.7.stop", BUILD),
        event("build.7.finished", {"buildid": 7}),
        event("build.7.finished", {**BUILD, "builderid": None}),
    ],
    ids=lambda it: it.topic,
)
def test_a_row_of_which_nothing_is_told_concerns_all_parents(api: BuildAPI, told: Event) -> None:
    """Its own id is known all the same."""
    assert set(reached(api, BUILDS, {"builds": {7}}, told)) == {*BUILDS} - {"builds/8"}


def test_rows_that_are_not_known_concern_everybody(api: BuildAPI) -> None:
    """A deletion, a change by condition, a row that is put below another parent."""
    told = event("build.7.finished", BUILD)

    assert set(reached(api, BUILDS, {"builds": None}, told)) == {*BUILDS}


OWNED = [
    ("builds/7?property=*", "build_properties"),
    ("builds?builderid=3&property=*", "build_properties"),
    ("builds/7/properties", "build_properties"),
    ("builds/7/property_list", "build_properties"),
    ("buildrequests/7", "buildrequest_claims"),
    ("logs/7/contents", "logchunks"),
    ("changes/7", "change_files"),
]


@pytest.mark.parametrize(("path", "table"), OWNED)
def test_rows_that_belong_to_one_concern_who_asks_for_that(
    api: BuildAPI, path: str, table: str
) -> None:
    """A build's properties, a request's claim, a log's pieces, a change's files."""
    mine, other = (
        Event(1, f"build.{buildid}.properties.update", 0.0, (), b"{}", builderid)
        for buildid, builderid in ((7, 3), (8, 4))
    )

    assert reached(api, [path], {table: {7}}, mine) == [path]
    assert reached(api, [path], {table: {8}}, other) == []
    assert reached(api, [path], {table: None}) == [path]


def test_whose_the_rows_are_must_be_told(api: BuildAPI) -> None:
    """Else they may be those of any build of the builder."""
    path = "builds?builderid=3&property=*"

    assert reached(api, [path], {"build_properties": {8}}) == [path]


def test_who_may_not_see_everything_looks_again(api: BuildAPI) -> None:
    """What is hidden depends on other tables, too."""

    class Hiding(Gate):
        """Hides a builder from everybody."""

        def restriction(self, identity: Identity) -> Restriction | None:  # noqa: ARG002  from all
            """Hide it."""
            return Restriction(frozenset({3}))

    api.data.gate = Hiding()

    assert reached(api, ["logs/7/contents"], {"steps": {1}}) == ["logs/7/contents"]


def test_other_tables_concern_nobody(api: BuildAPI) -> None:
    """Unless the answer shows something of them."""
    paths = ["builds/8", "builds/8?property=x", "builders/3/builds/1/steps", "builds/7/steps"]
    step = event("build.7.step.2.new", STEP)

    assert reached(api, paths, {"logs": None, "workers": {1}}) == []
    assert reached(api, paths, {"build_properties": None}) == ["builds/8?property=x"]
    assert reached(api, paths, {"build_properties": {7}}) == []
    assert reached(api, paths, {"steps": {20}}, step) == paths[2:]


@pytest.mark.parametrize(
    ("path", "table"),
    [
        ("builds/7/triggered_builds", "builds"),
        ("builds?builderid__ne=4", "builds"),
        ("builds?number=4", "builds"),
        ("builds/7/changes", "changes"),
    ],
)
def test_what_is_not_plain_to_see_is_not_guessed(api: BuildAPI, path: str, table: str) -> None:
    """A path that means something else, another comparison, another field, a table read twice."""
    told = event("build.99.new", {**BUILD, "buildid": 99})

    assert reached(api, [path], {table: {99}}, told) == [path]


def test_who_is_removed_is_not_reached(api: BuildAPI) -> None:
    """And leaves nothing behind, however many ids were asked for."""
    reach: Reach[int] = Reach()
    asks = [api.data.understood(f"builds/{number}/steps", "") for number in range(50)]
    for number, ask in enumerate(asks):
        reach.add(ask, number)
    reach.remove(asks[0], 0)
    first = reach.touched(Committed((), {"steps": None}, 1))
    for number, ask in enumerate(asks[1:], 1):
        reach.remove(ask, number)

    assert 0 not in first
    assert len(first) == 49
    assert reach.touched(Committed((), {"steps": None}, 1)) == []
    assert not any(reach._by_row.values())


PLAIN = [
    route
    for route in ROUTER.routes
    if route.kind in ("one", "many") and issubclass(route.resource, Plain)
]


@pytest.mark.systems("sqlite")
@pytest.mark.parametrize("route", PLAIN, ids=lambda route: route.pattern)
def test_a_plain_type_knows_every_table_that_it_reads(
    api: BuildAPI, route: Route, logid: int
) -> None:
    """As SQLite itself says: else a watch would miss a change."""
    result_of(api.data.updates.appendLog(logid, "line\n"))
    named = {"step_name": "compile", "log_slug": "stdio", "step_number": "0"}
    named["schedulername"] = "force"
    path = "/".join(
        named.get(e.partition(":")[2], "1") if ":" in e else e for e in route.pattern.split("/")
    )
    reader = api.database._inline
    assert reader is not None
    read: set[str] = set()

    def allow(action: int, table: str | None, *_: object) -> int:
        if action == sqlite3.SQLITE_READ:
            read.add(table or "")
        return sqlite3.SQLITE_OK

    reader.connection.set_authorizer(allow)
    failures: list[Any] = []
    api.data.get(path).addErrback(failures.append)
    reader.connection.set_authorizer(None)

    assert read - NOT_SHOWN <= set(narrowed(api.data.understood(path, "")))
    assert read - NOT_SHOWN <= tables(api.data.understood(path, ""))
    assert read or route.resource is not LogChunk
