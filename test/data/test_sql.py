"""Filters, order and pages in SQL are those of the contract: compared with a model of it."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import orjson
import pytest
import sqlalchemy as sa
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from buildapi.data.api import RESOURCES, Gathered
from buildapi.data.fetch import Fetched
from buildapi.data.values import OPERATORS
from buildapi.db import tables as t
from buildapi.db.hashes import name_hash
from buildapi.db.transaction import Tx
from buildapi.service import BuildAPI
from buildapi.testing import in_memory_api, result_of
from buildapi.testing.memory import DATABASE
from test.servers import make_tables

Row = dict[str, Any]
House = dict[str, list[Row]]
TYPES = {resource.plural: resource for resource in RESOURCES}

# Random objects.  They are made as the API shows them, and then stored.

# Case, wildcards of LIKE, empty texts, texts whose UTF-16 has another order than their code points.
TEXTS = ("", "a", "A", "ab", "a%", "a_", "é", "\uffff", "\U0001f600")
texts = st.sampled_from(TEXTS)
maybe_text = st.none() | texts
number = st.integers(0, 3)
maybe_number = st.none() | number
flag = st.booleans()
some_numbers = st.sets(number, max_size=2).map(sorted)


# Of what the objects of each type are made.
PARTS: dict[str, dict[str, st.SearchStrategy[Any]]] = {
    "sourcestamps": {
        "revision": maybe_text,
        "branch": maybe_text,
        "repository": texts,
        "project": texts,
        "codebase": texts,
        "created_at": number,
        "patch": st.none() | st.fixed_dictionaries({"level": number, "author": texts}),
    },
    "changes": {
        "author": texts,
        "committer": maybe_text,
        "comments": texts,
        "revision": maybe_text,
        "when_timestamp": number,
        "branch": maybe_text,
        "category": maybe_text,
        "revlink": maybe_text,
        "repository": texts,
        "project": texts,
        "codebase": texts,
        "parent_changeids": st.lists(number, max_size=1),
        "files": st.lists(texts, max_size=2),
        "properties": st.dictionaries(texts, st.tuples(number, texts).map(list), max_size=2),
    },
    "builders": {
        "description": maybe_text,
        "description_format": maybe_text,
        "description_html": maybe_text,
        "projectid": maybe_number,
        "masterids": some_numbers,
        "tags": st.sets(st.sampled_from(TEXTS[:4]), max_size=2).map(sorted),
    },
    "workers": {
        "paused": flag,
        "pause_reason": maybe_text,
        "graceful": flag,
        "workerinfo": st.dictionaries(texts, texts, max_size=1),
        "connected_to": some_numbers.map(lambda ids: [{"masterid": one} for one in ids]),
        "configured_on": st.just([]),
    },
    "buildsets": {
        "external_idstring": maybe_text,
        "reason": maybe_text,
        "rebuilt_buildid": maybe_number,
        "submitted_at": number,
        "complete": flag,
        "complete_at": maybe_number,
        "results": maybe_number,
        "parent_buildid": maybe_number,
        "parent_relationship": maybe_text,
        "sourcestamps": some_numbers,
    },
    "buildrequests": {
        "buildsetid": number,
        "builderid": number,
        "priority": st.integers(-1, 1),
        "claimed_at": maybe_number,
        "claimed_by_masterid": number,
        "complete": flag,
        "results": st.integers(-1, 2),
        "submitted_at": number,
        "complete_at": maybe_number,
        "waited_for": flag,
        "properties": st.none(),
    },
    "builds": {
        "builderid": number,
        "buildrequestid": number,
        "workerid": maybe_number,
        "masterid": number,
        "started_at": number,
        "complete_at": maybe_number,
        "locks_duration_s": number,
        "results": maybe_number,
        "state_string": texts,
        "properties": st.just({}),
    },
    "steps": {
        "buildid": number,
        "started_at": maybe_number,
        "locks_acquired_at": maybe_number,
        "complete_at": maybe_number,
        "results": maybe_number,
        "state_string": texts,
        "hidden": flag,
        "urls": st.lists(st.fixed_dictionaries({"name": texts, "url": texts}), max_size=1),
    },
}


def houses(least: int) -> st.SearchStrategy[House]:
    """Make at least so many objects of each type, and at most five."""
    rows = {
        plural: st.lists(st.fixed_dictionaries(parts), min_size=least, max_size=5)
        for plural, parts in PARTS.items()
    }
    return st.fixed_dictionaries(rows).map(_furnished)


def _furnished(house: House) -> House:
    """Give the objects ids, names and numbers, and put together what belongs together."""
    for plural, rows in house.items():
        for index, row in enumerate(rows):
            row[TYPES[plural].ident] = index + 1
    for plural in ("builders", "workers"):
        for index, row in enumerate(house[plural]):
            row["name"] = f"{TEXTS[-1 - index]}x"
    stamps = {row["ssid"]: row for row in house["sourcestamps"]}
    for stamp in stamps.values():
        if stamp["patch"] is not None:
            stamp["patch"] |= {
                "patchid": stamp["ssid"],
                "subdir": None,
                "comment": "",
                "body": None,
            }
    for row in house["changes"]:
        row["sourcestamp"] = stamps.get(row["changeid"])
    for row in house["buildsets"]:
        row["sourcestamps"] = [stamps[ssid] for ssid in row["sourcestamps"] if ssid in stamps]
    _finish_work(house)
    return house


def _finish_work(house: House) -> None:
    for row in house["buildrequests"]:
        row["claimed"] = row["claimed_at"] is not None
        row["claimed_by_masterid"] = row["claimed_by_masterid"] if row["claimed"] else None
    _numbered(house["builds"], "builderid", 1)
    _numbered(house["steps"], "buildid", 0)
    for row in [*house["builds"], *house["steps"]]:
        row["complete"] = row["complete_at"] is not None
    for row in house["steps"]:
        row["name"] = ("a", "A b", "☃", "a%", "b")[row["number"]]


def _numbered(rows: Sequence[Row], owner: str, start: int) -> None:
    """Number the rows of each owner."""
    following: dict[int, int] = {}
    for row in rows:
        row["number"] = following.get(row[owner], start)
        following[row[owner]] = row["number"] + 1


def _store_sourcestamp(tx: Tx, row: Row) -> None:
    patch = row["patch"]
    if patch is not None:
        tx.insert(
            t.patches,
            id=row["ssid"],
            patchlevel=patch["level"],
            patch_base64="",
            patch_author=patch["author"],
            patch_comment="",
        )
    values = {"patchid": patch and row["ssid"], "ss_hash": str(row["ssid"])}
    _insert(tx, t.sourcestamps, row, id=row["ssid"], **values)


def _store_change(tx: Tx, row: Row) -> None:
    changeid = row["changeid"]
    parent = row["parent_changeids"][0] if row["parent_changeids"] else None
    _insert(tx, t.changes, row, parent_changeids=parent, sourcestampid=changeid)
    for name in row["files"]:
        tx.insert_later(t.change_files, (changeid, name))
    for name, pair in row["properties"].items():
        tx.insert_later(t.change_properties, (changeid, name, json.dumps(pair)))


def _store_builder(tx: Tx, row: Row) -> None:
    builderid = row["builderid"]
    _insert(tx, t.builders, row, id=builderid, name_hash=name_hash(row["name"]))
    for masterid in row["masterids"]:
        tx.insert(t.builder_masters, builderid=builderid, masterid=masterid)
    for name in row["tags"]:
        tagid = TEXTS.index(name) + 1
        if tx.first(sa.select(t.tags.c.id).where(t.tags.c.id == tagid), {}) is None:
            tx.insert(t.tags, id=tagid, name=name, name_hash=name_hash(name))
        tx.insert(t.builders_tags, builderid=builderid, tagid=tagid)


def _store_worker(tx: Tx, row: Row) -> None:
    _insert(tx, t.workers, row, id=row["workerid"], info=json.dumps(row["workerinfo"]))
    for link in row["connected_to"]:
        tx.insert(t.connected_workers, workerid=row["workerid"], **link)


def _store_buildset(tx: Tx, row: Row) -> None:
    _insert(tx, t.buildsets, row, id=row["bsid"])
    for stamp in row["sourcestamps"]:
        link = {"buildsetid": row["bsid"], "sourcestampid": stamp["ssid"]}
        tx.insert(t.buildset_sourcestamps, **link)


def _store_buildrequest(tx: Tx, row: Row) -> None:
    brid = row["buildrequestid"]
    _insert(tx, t.buildrequests, row, id=brid)
    if row["claimed"]:
        tx.insert_later(
            t.buildrequest_claims, (brid, row["claimed_by_masterid"], row["claimed_at"])
        )


def _insert(tx: Tx, table: sa.Table, row: Row, **others: Any) -> None:
    """Insert the parts of an object that are called like columns, and others."""
    given = {**row, **others}
    names = [column.name for column in table.columns if column.name in given]
    tx.insert(table, **{name: _stored(given[name]) for name in names})


def _stored(value: Any) -> Any:
    """Return a truth as the number that a column holds."""
    return int(value) if isinstance(value, bool) else value


STORE: dict[str, Callable[[Tx, Row], None]] = {
    "sourcestamps": _store_sourcestamp,
    "changes": _store_change,
    "builders": _store_builder,
    "workers": _store_worker,
    "buildsets": _store_buildset,
    "buildrequests": _store_buildrequest,
    "builds": lambda tx, row: _insert(tx, t.builds, row, id=row["buildid"]),
    "steps": lambda tx, row: _insert(
        tx, t.steps, row, id=row["stepid"], urls_json=json.dumps(row["urls"])
    ),
}
LINKS = (
    *(t.patches, t.change_files, t.change_properties, t.builder_masters, t.tags, t.builders_tags),
    *(t.connected_workers, t.buildset_sourcestamps, t.buildrequest_claims),
)


def fill(tx: Tx, house: House) -> None:
    """Make the database hold these objects, and no others."""
    for table in (*LINKS, *(TYPES[plural].table for plural in STORE)):
        tx.run(sa.delete(table))
    for plural, store in STORE.items():
        for row in house[plural]:
            store(tx, row)


# The rules of the contract, on objects.

MEANT: dict[str, Callable[[Any, list[Any]], bool]] = {
    "eq": lambda value, given: any(value == one for one in given),
    "in": lambda value, given: any(value == one for one in given),
    "ne": lambda value, given: all(value != one for one in given),
    "notin": lambda value, given: all(value != one for one in given),
    "contains": lambda value, given: value is not None and any(one in value for one in given),
    "lt": lambda value, given: value is not None and value < given[0],
    "le": lambda value, given: value is not None and value <= given[0],
    "gt": lambda value, given: value is not None and value > given[0],
    "ge": lambda value, given: value is not None and value >= given[0],
}


def in_order(rows: list[Row], order: Sequence[str]) -> list[Row]:
    """Return the rows in order: null first, or last if it descends; equal rows as they were."""

    def rank(row: Row, name: str) -> tuple[bool, Any]:
        return row[name] is not None, 0 if row[name] is None else row[name]

    for key in reversed(order):
        name = key.removeprefix("-")
        rows = sorted(rows, key=lambda row, n=name: rank(row, n), reverse=key[0] == "-")  # type: ignore[misc]
    return rows


def _built(house: House, row: Row, wanted: Callable[[Row], bool]) -> bool:
    """Say whether a build answers a request of a set that is wanted."""
    asked = {one["buildrequestid"]: one["buildsetid"] for one in house["buildrequests"]}
    bsid = asked.get(row["buildrequestid"])
    return any(one["bsid"] == bsid and wanted(one) for one in house["buildsets"])


def _of_first_build(house: House, row: Row) -> bool:
    return any(
        build["buildid"] == row["buildid"] and (build["builderid"], build["number"]) == (1, 1)
        for build in house["builds"]
    )


# Paths of lists: the type, and which objects of it each has.
PATHS: dict[str, tuple[str, Callable[[House, Row], bool]]] = {
    **{plural: (plural, lambda _, row: bool(row)) for plural in STORE if plural != "steps"},
    "builders/1/builds": ("builds", lambda _, row: row["builderid"] == 1),
    "builders/%F0%9F%98%80x/builds": (
        "builds",
        lambda house, row: row["builderid"] == 1 and bool(house["builders"]),
    ),
    "buildrequests/1/builds": ("builds", lambda _, row: row["buildrequestid"] == 1),
    "workers/1/builds": ("builds", lambda _, row: row["workerid"] == 1),
    "builds/1/triggered_builds": (
        "builds",
        lambda house, row: _built(house, row, lambda one: one["parent_buildid"] == 1),
    ),
    "changes/1/builds": (
        "builds",
        lambda house, row: (
            bool(house["changes"])
            and _built(house, row, lambda one: any(s["ssid"] == 1 for s in one["sourcestamps"]))
        ),
    ),
    "builders/1/buildrequests": ("buildrequests", lambda _, row: row["builderid"] == 1),
    "builds/1/steps": ("steps", lambda _, row: row["buildid"] == 1),
    "builders/1/builds/1/steps": ("steps", _of_first_build),
    "builders/%F0%9F%98%80x/builds/1/steps": (
        "steps",
        lambda house, row: _of_first_build(house, row) and bool(house["builders"]),
    ),
    "masters/2/builders": ("builders", lambda _, row: 2 in row["masterids"]),
    "projects/1/builders": ("builders", lambda _, row: row["projectid"] == 1),
    "sourcestamps/1/changes": ("changes", lambda _, row: row["changeid"] == 1),
    "buildsets/1/sourcestamps": (
        "sourcestamps",
        lambda house, row: any(row in one["sourcestamps"] for one in house["buildsets"][:1]),
    ),
}
# One path of each type.
FULL = [*(plural for plural in STORE if plural != "steps"), "builds/1/steps"]


# Random queries.


def compared(plural: str, name: str) -> str:
    """Say as what a field is compared: number, flag, text, list or object."""
    declared = TYPES[plural].fields[name].type
    if declared.kind == "list":
        return "list" if declared.of and declared.of.kind in ("integer", "string") else "object"
    kinds = {"integer": "number", "datetime": "number", "boolean": "flag"}
    kinds |= {"string": "text", "identifier": "text"}
    return kinds.get(declared.kind, "object")


# The values that filters are given.
GIVEN: dict[str, list[Any]] = {
    "number": [-1, 0, 1, 2, 4],
    "flag": [False, True],
    "text": [*TEXTS, "%", "_"],
}


def operators(plural: str, name: str) -> list[str]:
    """Return the operators that mean something on a field."""
    of = compared(plural, name)
    if of == "object":
        return []
    return [op for op in OPERATORS if of == "text" or (op == "contains") == (of == "list")]


def values(plural: str, name: str, op: str) -> list[list[Any]]:
    """Return lists of one value and of two to give to an operator."""
    of, element = compared(plural, name), TYPES[plural].fields[name].type.of
    if element is not None:
        of = "text" if element.kind == "string" else "number"
    ones = GIVEN[of]
    pairs = [] if op in ("lt", "le", "gt", "ge") else [[ones[0], ones[-1]], [*ones[-2:], ones[-1]]]
    return [[one] for one in ones] + pairs


@st.composite
def filters(draw: st.DrawFn, plural: str) -> tuple[str, str, list[Any]]:
    """Choose a field, an operator that means something on it, and values."""
    named = [name for name in TYPES[plural].fields if operators(plural, name)]
    name = draw(st.sampled_from(named))
    op = draw(st.sampled_from(operators(plural, name)))
    return name, op, draw(st.sampled_from(values(plural, name, op)))


@st.composite
def queries(draw: st.DrawFn) -> Row:
    """Choose a path and a query."""
    path = draw(st.sampled_from(list(PATHS)))
    plural = PATHS[path][0]
    fields = list(TYPES[plural].fields)
    orderable = [name for name in fields if compared(plural, name) not in ("list", "object")]
    keys = st.tuples(st.sampled_from(["", "-"]), st.sampled_from(orderable)).map("".join)
    asked = draw(st.lists(filters(plural), max_size=2, unique_by=lambda one: one[:2]))
    order = draw(st.lists(keys, max_size=2))
    selected = draw(st.none() | st.lists(st.sampled_from(fields), min_size=1, max_size=3))
    if selected is not None:
        selected += [name for name, *_ in asked] + [key.removeprefix("-") for key in order]
    window = {"limit": draw(st.none() | number), "offset": draw(st.none() | number)}
    return {"path": path, "filters": asked, "order": order, "fields": selected, **window}


def expected(house: House, query: Row) -> tuple[list[Row], int]:
    """Return the page that is asked for, and the number of all matches."""
    plural, belongs = PATHS[query["path"]]
    rows = [
        row
        for row in house[plural]
        if belongs(house, row)
        and all(MEANT[op](row[name], given) for name, op, given in query["filters"])
    ]
    ordered = in_order(rows, [*query["order"], TYPES[plural].ident])
    start, limit = query["offset"] or 0, query["limit"]
    page = ordered[start : None if limit is None else start + limit]
    fields = query["fields"] or TYPES[plural].fields
    return [{name: row[name] for name in fields} for row in page], len(rows)


def _alike(value: Any) -> Any:
    """Return JSON with its lists sorted: the order of lists inside objects is free."""
    if isinstance(value, dict):
        return {name: _alike(one) for name, one in value.items()}
    if isinstance(value, list):
        return sorted(map(_alike, value), key=lambda one: json.dumps(one, sort_keys=True))
    return value


def without_owners(url: str) -> None:
    """Make the tables of a database where a row may name an owner that is not there."""
    make_tables(url)
    engine = sa.create_engine(url)
    with engine.begin() as connection:
        inspector = sa.inspect(connection)
        word = "CONSTRAINT" if connection.dialect.name == "postgresql" else "FOREIGN KEY"
        for table in inspector.get_table_names():
            for key in inspector.get_foreign_keys(table):
                connection.exec_driver_sql(f"ALTER TABLE {table} DROP {word} {key['name']}")
    engine.dispose()


@pytest.fixture
def api(request: pytest.FixtureRequest, system: str) -> Iterator[BuildAPI]:
    """An API whose database takes any rows; every example fills it anew."""
    if system == "sqlite":
        yield in_memory_api()
        return
    with contextlib.ExitStack() as ending:
        url = ending.enter_context(request.getfixturevalue(system).empty(without_owners))
        ending.callback(DATABASE.reset, DATABASE.set(url))
        api = in_memory_api()
        ending.callback(api.stopService)
        yield api


ON_SERVERS = pytest.mark.systems("postgresql", "mariadb")
# Every example fills the one database of a test anew.
PATIENT = [HealthCheck.too_slow, HealthCheck.function_scoped_fixture]


def check(api: BuildAPI, house: House, query: Row) -> None:
    """Compare the answer to a query with what is expected."""
    found = result_of(
        api.data.get(
            query["path"],
            filters={f"{name}__{op}": given for name, op, given in query["filters"]},
            fields=query["fields"],
            order=query["order"],
            limit=query["limit"],
            offset=query["offset"],
        )
    )
    page, total = expected(house, query)

    assert list(map(_alike, found)) == list(map(_alike, page))
    assert found.total == total


ASKED = st.lists(queries(), min_size=1, max_size=8)


def check_all(api: BuildAPI, house: House, asked: list[Row]) -> None:
    """Compare the answers to queries with what is expected."""
    result_of(api.data.transaction(lambda tx: fill(tx, house)))
    for query in asked:
        check(api, house, query)


@pytest.mark.systems("sqlite")
@settings(suppress_health_check=PATIENT)
@given(house=houses(0), asked=ASKED)
def test_random_queries_are_answered_as_the_contract_says(
    api: BuildAPI, house: House, asked: list[Row]
) -> None:
    """Random objects below random paths: filters, order, ties, page and total together."""
    check_all(api, house, asked)


@ON_SERVERS
@settings(max_examples=40, suppress_health_check=PATIENT)
@given(house=houses(0), asked=ASKED)
def test_random_queries_are_answered_alike_by_servers(
    api: BuildAPI, house: House, asked: list[Row]
) -> None:
    """Whatever they think of texts, nulls and truths."""
    check_all(api, house, asked)


@pytest.mark.systems("sqlite")
@settings(max_examples=10, suppress_health_check=list(HealthCheck))
@given(house=houses(4))
def test_every_operator_on_every_field(api: BuildAPI, house: House) -> None:
    """Alone, with one value or with two, on fields of every type with and without null."""
    check_every_operator(api, house)


@ON_SERVERS
@settings(max_examples=2, suppress_health_check=list(HealthCheck))
@given(house=houses(4))
def test_every_operator_means_the_same_to_servers(api: BuildAPI, house: House) -> None:
    """On fields of every type."""
    check_every_operator(api, house)


def check_every_operator(api: BuildAPI, house: House) -> None:
    """Compare what every operator finds with what is expected."""
    result_of(api.data.transaction(lambda tx: fill(tx, house)))
    for path in FULL:
        plural = PATHS[path][0]
        every: Row = {"path": path, "order": [], "limit": None, "offset": None}
        for name in TYPES[plural].fields:
            for op in operators(plural, name):
                for some in values(plural, name, op):
                    asked = {"filters": [(name, op, some)], "fields": [TYPES[plural].ident, name]}
                    check(api, house, {**every, **asked})


@pytest.mark.systems("sqlite")
@settings(max_examples=20, suppress_health_check=PATIENT)
@given(house=houses(0))
def test_the_json_for_clients_is_that_of_python(api: BuildAPI, house: House) -> None:
    """Two row makers read one row: the one for orjson leaves nested JSON as the text it is."""
    result_of(api.data.transaction(lambda tx: fill(tx, house)))
    for path in PATHS:
        ask = api.data.understood(path, "property=*")
        fetched = api.data.fetch(ask, list, Gathered[list[Any]]())
        assert isinstance(fetched, Fetched)
        assert ask.plan is not None

        for rows in fetched.parts:
            as_json = orjson.loads(orjson.dumps([ask.plan.as_json(row) for row in rows]))
            assert as_json == [ask.plan.as_python(row) for row in rows]
