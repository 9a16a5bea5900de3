"""How much SQL a request is: the same few statements, however many rows there are."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest
from sqlalchemy import Column
from twisted.internet.defer import Deferred, succeed

from buildapi.data import fetch
from buildapi.data.api import ROUTER, rows_of
from buildapi.data.builddata import BuildData, value_of
from buildapi.data.fetch import Plain
from buildapi.data.logchunks import LogChunk, raw_log
from buildapi.data.query import MOST_CONTAINED, MOST_VALUES
from buildapi.data.router import Route
from buildapi.db import tables
from buildapi.db.engine import Database, TooLarge
from buildapi.service import BuildAPI
from buildapi.testing import result_of
from buildapi.testing.memory import DATABASE

if TYPE_CHECKING:
    from test.servers import Server

ON_SQLITE = pytest.mark.systems("sqlite")
ON_SERVERS = pytest.mark.systems("postgresql", "mariadb")
MANY = 30
# Lists that do not grow with the tables: what is configured, and from a commit to itself.
CONSTANT = {
    *("/", "application.spec", "forceschedulers", "builders/:builderid/forceschedulers"),
    "codebases/n:codebaseid/commit_range/n:commitid1/n:commitid2/test_result_sets",
}
# Columns whose text is JSON.
JSON = {"info": "{}", "urls_json": "[]", "value": "1", "property_value": '[1, "test"]'}


class Traced:
    """A connection to a server, and the statements that were sent to it."""

    def __init__(self, connection: Any) -> None:
        self._connection = connection
        self.sent: list[str] = []

    def execute(self, sql: str, *params: Any) -> Any:
        """Take note of a statement, and run it."""
        self.sent.append(sql)
        return self._connection.execute(sql, *params)

    def __getattr__(self, name: str) -> Any:
        """Be the connection in all else."""
        return getattr(self._connection, name)


def statements(api: BuildAPI, path: Any, **query: Any) -> list[str]:
    """Return the SQL that answers a request."""
    database = api.data.database
    ask = partial(asked, api, path, **query)
    if database._inline is None:
        return sent_to_server(database, ask)
    traced: list[str] = []
    database._inline.connection.set_trace_callback(traced.append)
    ask().addErrback(lambda _: None)
    database._inline.connection.set_trace_callback(None)
    return traced


def sent_to_server(database: Database, ask: Callable[[], Deferred[Any]]) -> list[str]:
    """Return the SQL that a server gets when something is asked for."""
    reader, connector = database._here, database.connector
    assert reader is not None
    traced = reader.connection = Traced(reader.connection)
    streamed = connector.streamed

    def noted(connection: Any, sql: str, params: Any) -> Any:
        traced.sent.append(sql)
        return streamed(connection, sql, params)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(connector, "streamed", noted)
        ask().addErrback(lambda _: None)
    reader.connection = traced._connection
    return traced.sent


def asked(api: BuildAPI, path: Any, **query: Any) -> Deferred[Any]:
    """Ask for what a path means; of a download only what comes before its first piece."""
    route = ROUTER.find(path).route
    if "raw" not in route.kind:
        return api.data.get(path, **query)
    ask = api.data.understood("/".join(path), "")
    find = partial(value_of, logged=True) if route.resource is BuildData else raw_log
    return api.data.database.read(
        lambda r: find(r, route.pattern, ask.match.bound, ask.restriction)
    )


def more_of_everything(api: BuildAPI, logid: int) -> None:
    """Make many of whatever there is: builders, workers, builds, steps, logs, changes."""
    updates = api.data.updates
    ssid = result_of(api.data.get("changes/1"))["sourcestamp"]["ssid"]
    for number in range(MANY):
        name = f"more-{number}"
        builderid = result_of(updates.findBuilderId(name))
        workerid = result_of(updates.findWorkerId(name))
        result_of(updates.findSchedulerId(name))
        result_of(updates.addChange(author=name, files=[name], properties={name: 1}))
        _, brids = result_of(
            updates.addBuildset(
                builderids=[1, builderid],
                sourcestamps=[ssid],
                properties={name: (1, "test")},
                parent_buildid=1,
            )
        )
        buildid, _ = result_of(updates.newBuild(1, brids[1], workerid))
        result_of(updates.setBuildProperty(1, name, 1, "test"))
        result_of(updates.setBuildProperty(buildid, name, 1, "test"))
        result_of(updates.addStep(1, name))
        result_of(updates.addLog(1, name, "s"))
        result_of(updates.appendLog(logid, f"o{name}\n"))
    builders = ["runtests", *(f"more-{number}" for number in range(MANY))]
    result_of(updates.updateBuilderList(1, builders))


Insert = Callable[[str, str], object]
"""Inserts a row, as SQL, into a table, unless something there has to be unique."""


@pytest.fixture
def inserting(
    request: pytest.FixtureRequest, system: str, api: BuildAPI
) -> AbstractContextManager[Insert]:
    """Insert rows that no foreign key stops."""
    return _inserting(api, request.getfixturevalue(system) if system != "sqlite" else None)


@contextmanager
def _inserting(api: BuildAPI, server: Server | None) -> Iterator[Insert]:
    if server is None:
        reader = api.data.database._inline
        assert reader is not None
        run = reader.connection.execute
        yield lambda table, row: run(f"INSERT OR IGNORE INTO {table} VALUES ({row})")
        return
    with server.session(DATABASE.get()) as run:
        if server.title == "PostgreSQL":
            yield lambda table, row: run(
                f"INSERT INTO {table} VALUES ({row}) ON CONFLICT DO NOTHING"
            )
        else:
            yield lambda table, row: run(f"INSERT IGNORE INTO {table} VALUES ({row})")


def more_rows(insert: Insert) -> None:
    """Make many rows in every table, that belong to the first of each thing they can belong to."""
    for table in tables.metadata.sorted_tables:
        owners = [column.name for column in table.columns if column.foreign_keys]
        # Where an owner may have one such row only, it is made for others, too.
        ties = [owners, *([one for one in owners if one != other] for other in owners)]
        for number, to_first in enumerate(ties * MANY, start=1000):
            row = [_value(column, number, to_first) for column in table.columns]
            insert(table.name, ", ".join(f"'{value}'" for value in row))


def _value(column: Column[Any], number: int, to_first: list[str]) -> Any:
    """Return what a new row has there; it belongs to the first of each that ``to_first`` names."""
    if column.name in JSON:
        return JSON[column.name]
    match column.type.python_type():
        case int():
            small = column.name in to_first or column.name == "compressed"
            return number if not small else int(column.name in to_first)
        case bytes():
            return "line"
        case _:
            return "s" if column.name == "type" else f"more-{number}"


def rows(api: BuildAPI, route: Route) -> int:
    """Return how many rows a list has."""
    return len(result_of(api.data.get(path_of(route))))


def path_of(route: Route) -> list[str]:
    """Return a path of this route, to the first of everything."""
    named = {"buildername": "runtests", "name": "worker-1", "step_name": "compile"}
    named |= {"log_slug": "stdio", "schedulername": "force", "step_number": "0"}
    named |= {"projectname": "app", "codebasename": "core"}
    return [
        named.get(e.partition(":")[2], "1") if ":" in e else e for e in route.pattern.split("/")
    ]


def test_the_number_of_statements_does_not_grow_with_rows(
    api: BuildAPI, logid: int, inserting: AbstractContextManager[Insert]
) -> None:
    """
    On every path, with all properties, filtered, ordered and paged, or not.

    The contents of a log are no rows of a list: they come in pieces of so many bytes.
    """
    result_of(api.data.updates.appendLog(logid, "oone\n"))
    result_of(api.data.updates.addChange(author="alice"))
    page = {"limit": 10, "offset": 1, "properties": "*"}
    # The contents of a log are read part by part, like its raw text.
    routes = [r for r in ROUTER.routes if r.resource is not LogChunk]
    before = [len(statements(api, path_of(r))) for r in routes]
    before_pages = [len(statements(api, path_of(r), **page)) for r in routes]
    lists = {r.pattern: rows(api, r) for r in routes if r.kind == "many"}
    more_of_everything(api, logid)
    with inserting as insert:
        more_rows(insert)
    grown = {r.pattern for r in routes if r.kind == "many" and rows(api, r) > lists[r.pattern]}

    assert lists.keys() - grown == CONSTANT
    for route, few, few_of_page in zip(routes, before, before_pages, strict=True):
        assert len(statements(api, path_of(route))) == few, route.pattern
        # A total that the page does not tell any more is counted, in a snapshot.
        counting = 1 if api.database.connector.EMBEDDED else 5
        assert len(statements(api, path_of(route), **page)) <= few_of_page + counting, route.pattern
        assert few <= 5, route.pattern


@ON_SQLITE
@pytest.mark.usefixtures("logid")
@pytest.mark.parametrize(
    "route", [r for r in ROUTER.routes if r.kind == "one"], ids=lambda r: r.pattern
)
def test_one_object_is_one_statement(api: BuildAPI, route: Route) -> None:
    """However deep its path is; only what is no row of a table needs a few more."""
    traced = statements(api, path_of(route))

    if issubclass(route.resource, Plain):
        assert len(traced) <= 4
    else:
        (statement,) = traced
        assert statement.startswith("SELECT")


@ON_SQLITE
@pytest.mark.usefixtures("logid")
@pytest.mark.parametrize(
    "route", [r for r in ROUTER.routes if r.kind == "one"], ids=lambda r: r.pattern
)
def test_one_object_is_found_by_indexes(api: BuildAPI, route: Route) -> None:
    """No path to one object reads all of a table that grows with the builds."""
    growing = {"builds", "buildrequests", "buildsets", "steps", "logs", "changes", "sourcestamps"}
    reader = api.data.database._inline
    assert reader is not None

    scanned = {
        said.split()[1]
        for statement in statements(api, path_of(route))
        if statement.startswith("SELECT")
        for *_, said in reader.connection.execute(f"EXPLAIN QUERY PLAN {statement}")
        if said.startswith("SCAN ")
    }

    assert not scanned & growing


@ON_SERVERS
@pytest.mark.usefixtures("logid")
def test_one_object_is_one_statement_to_a_server(api: BuildAPI) -> None:
    """What a server is asked is what SQLite is asked: without BEGIN and COMMIT."""
    routes = [r for r in ROUTER.routes if r.kind == "one" and not issubclass(r.resource, Plain)]
    sent = {route.pattern: statements(api, path_of(route)) for route in routes}

    assert [len(some) for some in sent.values()] == [1] * len(routes), sent


@pytest.mark.usefixtures("logid")
def test_the_deepest_path_is_one_joined_select(api: BuildAPI) -> None:
    """From the name of a builder to the log of a step, three joins away."""
    path = "builders/runtests/builds/1/steps/compile/logs/stdio"
    (statement,) = statements(api, path)

    assert result_of(api.data.get(path))["logid"] == 1
    assert statement.count(" JOIN ") == 3
    assert "FROM (SELECT" not in statement


@ON_SQLITE
@pytest.mark.usefixtures("buildid")
def test_a_list_is_read_in_one_snapshot(api: BuildAPI) -> None:
    """Its position, its rows, its total: between BEGIN and COMMIT."""
    begin, position, rows, commit = statements(api, "builds")
    _, _, _, total, _ = statements(api, "builds", limit=0)

    assert (begin, commit) == ("BEGIN", "COMMIT")
    assert position.startswith("SELECT seq")
    assert "FROM builds" in rows
    assert "count(*)" in total


@ON_SERVERS
@pytest.mark.usefixtures("buildid")
@pytest.mark.parametrize("properties", [None, "*"])
@pytest.mark.parametrize("path", ["builds", "buildrequests"])
def test_a_list_on_a_server_is_one_snapshot(
    api: BuildAPI, path: str, properties: str | None
) -> None:
    """Its position, its rows and its total; all properties come with the rows."""
    begin, position, rows, commit = statements(api, path, properties=properties)
    *_, total, _ = statements(api, path, properties=properties, limit=0)

    assert (begin, commit) == (api.data.database.connector.BEGIN_SNAPSHOT, "COMMIT")
    assert position.startswith("SELECT seq")
    assert f"FROM {path}" in rows
    assert "count(*)" in total


@ON_SERVERS
@pytest.mark.usefixtures("buildid")
@pytest.mark.parametrize("properties", [None, "*"])
@pytest.mark.parametrize("path", ["builds", "buildrequests"])
def test_a_page_on_a_server_is_one_statement(
    api: BuildAPI, path: str, properties: str | None
) -> None:
    """With its position, and with its total once that was counted: one state, without BEGIN."""
    ask = partial(statements, api, path, properties=properties)
    (last,) = ask(limit=5)
    first, begin, *_, total, commit = ask(limit=1)

    assert "buildapi_log.seq" in last
    assert first == last
    assert (begin, commit) == (api.data.database.connector.BEGIN_SNAPSHOT, "COMMIT")
    assert "count(*)" in total
    assert ask(limit=1) == [first], "the total is remembered"


@ON_SERVERS
def test_a_whole_list_that_is_short_is_one_statement(
    api: BuildAPI, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With its total and its position; of one that is not, a row too many is read, and no more."""
    for author in ("alice", "bob", "carol"):
        result_of(api.data.updates.addChange(author=author))
    ask, database = api.data.understood("changes", "offset=1"), api.data.database
    found: list[Any] = []

    def read() -> Deferred[Any]:
        assert database._here is not None
        parts: list[Any] = []
        found.append(api.data._read(database._here, ask, rows_of(ask), parts, few=True))
        return succeed(None)

    assert len(sent_to_server(database, read)) == 1
    ((rows,), total, seq) = found.pop()
    assert [row["author"] for row in rows] == ["bob", "carol"]
    assert (total, seq) == (3, api.seq())

    monkeypatch.setattr(fetch, "PORTION", 1)
    with pytest.raises(TooLarge):
        sent_to_server(database, read)


@pytest.mark.systems("postgresql")
def test_what_a_page_skips_is_not_made(api: BuildAPI) -> None:
    """A page far behind costs no more sub-selects than the first one."""
    for number in range(4):
        result_of(api.data.updates.addChange(author="alice", files=[f"{number}.c"]))
    ask, reader = api.data.understood("changes", "limit=1&offset=2"), api.data.database._here
    assert ask.plan is not None
    assert reader is not None
    sql = f"EXPLAIN (ANALYZE, TIMING OFF) {ask.plan.page.sql}"

    said = reader.connection.execute(sql, ask.plan.page.bound(ask.params)).fetchall()
    made = [line for (line,) in said if "on change_files" in line]

    assert [line.rpartition(" ")[2] for line in made] == ["loops=1)"]


@ON_SQLITE
@pytest.mark.usefixtures("buildid")
def test_a_total_that_a_page_tells_is_not_counted(api: BuildAPI) -> None:
    """The last page, and one that has room left, end at the total."""
    assert len(statements(api, "builds", limit=5)) == 4
    assert len(statements(api, "builds", limit=1)) == 5
    assert len(statements(api, "builds", limit=1)) == 4, "it is remembered"


@pytest.mark.usefixtures("buildid")
def test_as_many_values_as_are_allowed_can_be_asked_for(api: BuildAPI) -> None:
    """The limits of the query parser are within those of the database."""
    many = {"buildid": range(MOST_VALUES), "number__ne": range(2, MOST_VALUES)}
    texts = [f"x{number}" for number in range(MOST_CONTAINED - 1)]

    assert len(result_of(api.data.get("builds", filters=many))) == 1
    contained = {"state_string__contains": [*texts, "start"]}
    assert len(result_of(api.data.get("builds", filters=contained))) == 1


@ON_SQLITE
@pytest.mark.usefixtures("buildid")
def test_lists_of_any_length_share_few_plans(api: BuildAPI) -> None:
    """A poller that asks for other builds each time must not fill the memory with SQL."""
    asked = {
        api.data.understood(
            "builds", "&".join(["buildid=1", *(f"buildid={n}" for n in range(most))])
        ).plan
        for most in range(2, 60)
    }

    assert len({id(plan) for plan in asked}) <= 6


def test_what_is_always_the_same_is_not_selected(api: BuildAPI) -> None:
    """Properties that nobody asks for cost nothing; a field can still be all that is wanted."""
    (page,) = [s for s in statements(api, "builds", fields="properties") if "FROM builds" in s]

    # On a server a page has its position; SELECT needs a column where it has not.
    columns, _, _ = page.partition("FROM builds ")
    assert "builds." not in columns
    assert "build_properties" not in columns
    assert list(result_of(api.data.get("builds", fields="properties"))) == []
