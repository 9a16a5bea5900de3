"""Versions: when an answer can have changed, told without the database."""

from __future__ import annotations

import sqlite3

import pytest

from buildapi.data.api import ROUTER
from buildapi.data.fetch import Plain
from buildapi.data.router import Route
from buildapi.data.versions import Versions
from buildapi.service import BuildAPI

# What a reader may look at that no answer shows, save the position.
NOT_SHOWN = {"buildapi_log", "sqlite_master", "json_each", ""}


def test_a_table_has_the_number_of_its_last_batch() -> None:
    """Of several, the newest counts; what nobody changed is at the beginning."""
    versions = Versions()
    versions.changed({"builds"})
    versions.changed({"builds", "steps"})
    versions.changed({"logs"})

    assert versions.newest(frozenset({"steps", "builds"})) == 2
    assert versions.newest(frozenset({"logs", "builds"})) == 3
    assert versions.newest(frozenset({"workers"})) == versions.newest(frozenset()) == 0


def test_what_is_remembered_is_forgotten_with_the_next_batch() -> None:
    """Every batch counts, also one without events."""
    versions = Versions()
    builds = frozenset({"builds"})
    seen = [versions.newest(builds)]
    for _ in range(3):
        versions.changed(builds)
        seen.append(versions.newest(builds))

    assert seen == [0, 1, 2, 3]


ROUTES = [
    route
    for route in ROUTER.routes
    if route.kind in ("one", "many") and not issubclass(route.resource, Plain)
]


@pytest.mark.systems("sqlite")  # it tells which tables it reads
@pytest.mark.parametrize("query", ["property=*", "property=x&limit=1&offset=1"])
@pytest.mark.parametrize("route", ROUTES, ids=lambda route: route.pattern)
def test_a_plan_knows_every_table_that_it_reads(api: BuildAPI, route: Route, query: str) -> None:
    """As SQLite itself says, for the rows and for their number: else a 304 would be a lie."""
    elements = route.pattern.split("/")
    path = "/".join("x" if e.startswith("i:") else "1" if ":" in e else e for e in elements)
    ask = api.data.understood(path, query)
    reader = api.database._inline
    assert reader is not None
    read: set[str] = set()

    def allow(action: int, table: str | None, *_: object) -> int:
        if action == sqlite3.SQLITE_READ:
            read.add(table or "")
        return sqlite3.SQLITE_OK

    assert ask.plan is not None
    reader.connection.set_authorizer(allow)
    for statement in (ask.plan.page, ask.plan.count):
        reader.connection.execute(statement.sql, statement.bound(ask.params)).fetchall()
    reader.connection.set_authorizer(None)

    assert read
    assert read - NOT_SHOWN <= ask.plan.tables
