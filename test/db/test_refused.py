"""Servers and databases that can't be used, and what the URL of one may look like."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import pytest
import pytest_twisted
import sqlalchemy as sa

from buildapi.db import migrate
from buildapi.db.mariadb import _Connection
from buildapi.db.systems import connector
from buildapi.db.tables import buildapi_meta, indexes, metadata, own
from buildapi.db.upkeep import add_indexes
from buildapi.errors import BadArgument, CannotOpen, Conflict, Unavailable
from buildapi.settings import Database as Settings

if TYPE_CHECKING:
    from test.db.conftest import Opener
    from test.servers import Server

pytestmark = pytest.mark.systems("postgresql", "mariadb")
# What an address, a pattern or a form could take for something else.
PASSWORD = "p@ss:/?#%20&+ w"  # noqa: S105


@pytest.fixture
def server(request: pytest.FixtureRequest, system: str) -> Server:
    """Give the server that the test's database is on."""
    found: Server = request.getfixturevalue(system)
    return found


def other(url: str, **parts: Any) -> str:
    """Return a URL of which some parts are others."""
    return sa.make_url(url).set(**parts).render_as_string(hide_password=False)


@contextmanager
def user(server: Server, system: str, url: str, *rights: str) -> Iterator[str]:
    """Give the URL of a database as somebody with few rights."""
    name = sa.make_url(url).database
    if system == "postgresql":
        server.run(f"CREATE ROLE somebody LOGIN PASSWORD '{PASSWORD}'")
        with server.session(url) as run:
            for right in rights:
                run(f"GRANT {right} ON ALL TABLES IN SCHEMA public TO somebody")
    else:
        server.run(f"CREATE USER somebody@'%' IDENTIFIED BY '{PASSWORD}'")
        server.run("GRANT USAGE ON *.* TO somebody@'%'")
        for right in rights:
            server.run(f"GRANT {right} ON {name}.* TO somebody@'%'")
    yield other(url, username="somebody", password=PASSWORD)
    if system == "postgresql":
        with server.session(url) as run:
            run("DROP OWNED BY somebody")
        server.run("DROP ROLE somebody")
    else:
        server.run("DROP USER somebody@'%'")


@pytest.mark.parametrize(
    ("parts", "wanted"),
    [
        ({"password": "wrong-secret"}, r"(?i)password"),
        ({"host": "no.such.host.invalid"}, r"no\.such\.host\.invalid"),
        ({"port": 1}, r"(?i)refused"),
        (
            {"database": "test_missing"},
            r"(?i)test_missing.* (does not exist|unknown)|unknown database",
        ),
        ({"database": ""}, r"names no database; add its name after the last slash"),
        ({"query": {"nonsense": "1"}}, r"(?i)nonsense"),
    ],
)
@pytest_twisted.ensureDeferred
async def test_what_cannot_be_reached_is_refused_in_a_sentence(
    opening: Opener, url: str, parts: dict[str, Any], wanted: str
) -> None:
    """Which names what is wrong, in one line, and no password."""
    wrong = other(url, **parts)

    with pytest.raises(CannotOpen, match=wanted) as refused:
        await opening(url=wrong)
    password = str(sa.make_url(wrong).password)
    assert password not in str(refused.value)
    assert "\n" not in str(refused.value)


@pytest_twisted.ensureDeferred
async def test_a_server_that_says_nothing_is_given_up(opening: Opener, url: str) -> None:
    """It takes the connection, as a proxy does whose server hangs, and that is all."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        query = {"connect_timeout": "2"}
        wrong = other(url, port=silent.getsockname()[1], query=query)

        with pytest.raises(CannotOpen, match=r"(?i)time(d )?out"):
            await opening(url=wrong)


def test_a_driver_that_is_not_installed_is_named(
    url: str, system: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With what installs it."""
    package = {"postgresql": "psycopg", "mariadb": "pymysql"}[system]
    monkeypatch.setitem(sys.modules, package, None)
    monkeypatch.delitem(sys.modules, f"buildapi.db.{system}")

    with pytest.raises(CannotOpen, match=rf"pip install 'buildapi\[{system}\]': .*{package}"):
        connector(url, read_only=False, busy_timeout_s=0)


@pytest.mark.systems("postgresql")
@pytest_twisted.ensureDeferred
async def test_an_encoding_that_cannot_hold_every_text_is_refused(
    opening: Opener, server: Server, url: str
) -> None:
    """PostgreSQL's databases have one each."""
    server.run(
        "CREATE DATABASE test_latin ENCODING 'LATIN1' LOCALE 'C' TEMPLATE template0 OWNER buildapi"
    )
    latin = other(url, database="test_latin")

    with pytest.raises(CannotOpen, match="has the encoding LATIN1; buildapi needs UTF8"):
        await opening(url=latin)
    server.drop(latin)


@pytest.mark.systems("mariadb")
@pytest.mark.parametrize("version", ["8.0.36", "5.5.5-10.5.21-MariaDB-log", "10.3.39-MariaDB"])
@pytest_twisted.ensureDeferred
async def test_another_server_than_a_recent_mariadb_is_refused(
    opening: Opener, monkeypatch: pytest.MonkeyPatch, version: str
) -> None:
    """MySQL speaks the same protocol, and another SQL."""
    monkeypatch.setattr(_Connection, "get_server_info", lambda _: version)

    with pytest.raises(CannotOpen, match=rf"is served by {version}; MariaDB 10\.6 or later"):
        await opening()


@pytest.mark.systems("mariadb")
@pytest_twisted.ensureDeferred
async def test_a_table_without_transactions_is_refused(
    opening: Opener, server: Server, url: str
) -> None:
    """Half of an update could be lost with it."""
    with server.session(url) as run:
        run("ALTER TABLE buildapi_meta ENGINE = MyISAM")
    try:
        with pytest.raises(CannotOpen, match="buildapi_meta, whose engine MyISAM has no trans"):
            await opening()
    finally:
        with server.session(url) as run:
            run("ALTER TABLE buildapi_meta ENGINE = InnoDB")


@pytest_twisted.ensureDeferred
async def test_who_may_only_read_reads(
    opening: Opener, server: Server, system: str, url: str
) -> None:
    """With a password of strange characters; and is told so where writing is wanted."""
    with user(server, system, url, "SELECT") as theirs:
        with pytest.raises(CannotOpen, match=r"(?i)denied") as refused:
            await opening(url=theirs)
        assert PASSWORD not in str(refused.value)
        reader = await opening(url=theirs, read_only=True)
        assert await reader.read(_masters) == 0
        await reader.close()


@pytest_twisted.ensureDeferred
async def test_a_right_that_is_missing_is_named_where_it_is_needed(
    opening: Opener, server: Server, system: str, url: str
) -> None:
    """Nothing is wrong with the update; an operator has to give it."""
    with user(server, system, url, "SELECT") as theirs:
        who = "somebody" if system == "postgresql" else "somebody@'%'"
        with server.session(url) as run:
            for table in own.tables:
                run(f"GRANT INSERT, UPDATE, DELETE ON {table} TO {who}")
        database = await opening(url=theirs)

        with pytest.raises(Unavailable, match=r"does not allow it: .*(?i:denied)"):
            await database.add("b")
        await database.close()


@pytest_twisted.ensureDeferred
async def test_a_server_that_lets_nobody_write_is_unavailable(
    opening: Opener, server: Server, system: str
) -> None:
    """As after a failover; when it does again, so do we."""
    database = await opening()
    on, off = {
        "postgresql": (
            "ALTER SYSTEM SET default_transaction_read_only = on",
            "ALTER SYSTEM RESET default_transaction_read_only",
        ),
        "mariadb": ("SET GLOBAL read_only = 1", "SET GLOBAL read_only = 0"),
    }[system]
    reload = {"postgresql": "SELECT pg_reload_conf()", "mariadb": "SELECT 1"}[system]
    try:
        server.run(on)
        server.run(reload)
        await database.close()
        with pytest.raises(CannotOpen, match=r"(?i)read.only"):
            await opening()
    finally:
        server.run(off)
        server.run(reload)
    assert await (await opening()).add("a")


def _masters(reader: Any) -> int:
    (number,) = reader.connection.execute("SELECT count(*) FROM masters").fetchone()
    return int(number)


@pytest_twisted.ensureDeferred
async def test_a_unix_socket_is_a_way_too(
    opening: Opener, server: Server, system: str, url: str
) -> None:
    """It stands where other options do."""
    if system == "postgresql":
        query = {"host": str(server.directory), "port": str(server.port)}
    else:
        query = {"unix_socket": f"{server.directory}/socket"}
    database = await opening(url=other(url, host=None, port=None, query=query))

    assert await database.add("a")


@pytest_twisted.ensureDeferred
async def test_a_url_of_buildbots_configuration_is_taken(
    opening: Opener, system: str, url: str
) -> None:
    """Whichever driver it names, or none, and with options that only Buildbot knows."""
    names = {
        "postgresql": ["postgresql", "postgresql+psycopg2"],
        "mariadb": ["mysql", "mysql+mysqldb", "mariadb"],
    }
    query = {"max_idle": "300"} if system == "mariadb" else {"connect_timeout": "5"}
    for drivername in names[system]:
        database = await opening(url=other(url, drivername=drivername, query=query))

        assert await database.add(drivername)
        await database.close()


HOLDS = """
import sys
from buildapi.db.systems import connector

target = connector(sys.argv[1], read_only=False, busy_timeout_s=0)
target.lock("the other one")
target.sign("the other one")
print("locked", flush=True)
sys.stdin.readline()
"""


@pytest_twisted.ensureDeferred
async def test_a_second_writing_process_is_kept_out_until_the_first_is_killed(
    opening: Opener, url: str
) -> None:
    """The sentence says who it is; then another can start at once."""
    command = [sys.executable, "-c", HOLDS, url]
    with subprocess.Popen(  # noqa: ASYNC220  it starts at once
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "locked\n"
        holder = rf"is being written by the other one \(process {process.pid} on "
        with pytest.raises(CannotOpen, match=holder):
            await opening()
        with pytest.raises(CannotOpen, match=holder):
            add_indexes(Settings(url=url))
        reader = await opening(read_only=True)
        assert await reader.read(_masters) == 0
        process.kill()

    database = await opening()
    await database.add("a")
    (holder,) = database.seen.rows("SELECT value FROM buildapi_meta WHERE name = 'writer'")
    assert holder.startswith(f"a test (process {os.getpid()} on ")
    await database.close()
    assert await (await opening()).add("b")


@pytest_twisted.ensureDeferred
async def test_what_cannot_be_stored_fails_alone(opening: Opener, system: str) -> None:
    """A neighbour in the queue does not notice, however large or wrong it is."""
    database = await opening()
    release, held = database.held()
    first = database.add("a")
    too_much = {
        "postgresql": lambda tx: tx.connection.execute(
            f"SELECT {', '.join(['%s'] * 70_000)}", [1] * 70_000
        ),
        "mariadb": lambda tx: tx.connection.execute("SELECT %s", ("x" * 17_000_000,)),
    }[system]
    large = database.write(too_much)
    again = database.write(lambda tx: tx.insert_later(buildapi_meta, ("writer", "somebody else")))
    last = database.add("b")
    release.set()
    await held

    with pytest.raises(BadArgument):
        await large
    with pytest.raises(Conflict, match=r"refused it: .*(?i:duplicate)"):
        await again
    await first
    await last
    assert database.seen.names() == ["a", "b"]
    assert database.seen.is_sound()


@pytest_twisted.ensureDeferred
async def test_a_database_that_was_half_made_is_finished(opening: Opener, server: Server) -> None:
    """Wherever a start was killed: the next one has every table, index and key."""
    whole = server.fresh_database()
    await (await opening(url=whole)).close()
    wanted = schema(whole)
    server.drop(whole)
    for after in (9, 60):
        url = server.fresh_database()
        target = connector(url, read_only=False, busy_timeout_s=1)
        connection = target.inspector()
        left = iter(range(after))

        def killed(*_: object, left: Iterator[int] = left) -> None:
            if next(left, None) is None:
                raise KeyboardInterrupt

        engine = target.alchemy(connection)
        sa.event.listen(engine, "before_cursor_execute", killed)
        # What is not undone where a process is killed.
        with pytest.raises(KeyboardInterrupt):
            migrate.opened(engine, target.BEGIN, writable=True)
        target.close(connection)

        database = await opening(url=url)
        await database.add("a")
        await database.close()
        assert schema(url) == wanted, f"killed after {after} statements"
        server.drop(url)


def schema(url: str) -> dict[str, tuple[set[str], set[tuple[str, ...]]]]:
    """Return the indexes and foreign keys of every table."""
    engine = sa.create_engine(url, poolclass=sa.NullPool)
    look = sa.inspect(engine)
    return {
        table: (
            {str(index["name"]) for index in look.get_indexes(table)},
            {tuple(key["constrained_columns"]) for key in look.get_foreign_keys(table)},
        )
        for table in look.get_table_names()
    }


@pytest_twisted.ensureDeferred
async def test_a_buildbot_database_gets_our_tables_and_indexes_only_on_demand(
    opening: Opener, server: Server
) -> None:
    """As a master has made it; another revision is refused, and so is what is none."""
    url = server.fresh_database()
    engine = sa.create_engine(url, poolclass=sa.NullPool)
    with engine.begin() as connection:
        connection.exec_driver_sql("CREATE TABLE bookmarks (url TEXT)")
    with pytest.raises(CannotOpen, match="no Buildbot database"):
        await opening(url=url)
    with engine.begin() as connection:
        connection.exec_driver_sql("DROP TABLE bookmarks")
        migrate.create_tables(connection)
        connection.exec_driver_sql("INSERT INTO alembic_version VALUES ('068')")
    with pytest.raises(CannotOpen, match="revision 068; buildapi needs 067"):
        await opening(url=url)
    assert set(schema(url)) == set(metadata.tables)
    with engine.begin() as connection:
        connection.exec_driver_sql("UPDATE alembic_version SET version_num = '067'")
    before = schema(url)

    await (await opening(url=url, read_only=True)).close()
    assert schema(url) == before
    database = await opening(url=url)
    await database.close()
    after = schema(url)
    assert {table: after[table] for table in before} == before
    assert set(add_indexes(Settings(url=url))) == {index.name for index in indexes}
    assert add_indexes(Settings(url=url)) == []
    again = await opening(url=url)
    assert again.identity == database.identity
    await again.close()
    server.drop(url)
