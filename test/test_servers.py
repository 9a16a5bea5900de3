"""The fixtures that give tests their databases."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import sqlalchemy as sa

from buildapi.db.tables import REVISION, alembic_version, builders

if TYPE_CHECKING:
    # Only for the type checker: test/ is no package.
    from test.postgresql import PostgreSQL
    from test.servers import Server


@pytest.fixture(params=["postgresql", "mariadb"])
def server(request: pytest.FixtureRequest) -> Server:
    """Each of the session's servers."""
    found: Server = request.getfixturevalue(request.param)
    return found


@contextmanager
def connected(url: str) -> Iterator[sa.Connection]:
    """Return a connection that commits at its end."""
    engine = sa.create_engine(url)
    try:
        with engine.begin() as connection:
            yield connection
    finally:
        engine.dispose()


def add(url: str, name: str) -> int:
    """Add a builder; return its id."""
    with connected(url) as connection:
        done = connection.execute(sa.insert(builders).values(name=name, name_hash=name))
    assert done.inserted_primary_key is not None
    return int(done.inserted_primary_key[0])


def names(url: str) -> list[str]:
    """Return the names of all builders."""
    with connected(url) as connection:
        return list(connection.scalars(sa.select(builders.c.name)))


def test_a_fresh_database_has_no_tables(fresh_url: str) -> None:
    """Who opens it makes what it wants."""
    with connected(fresh_url) as connection:
        assert sa.inspect(connection).get_table_names() == []
        connection.exec_driver_sql("CREATE TABLE mine (id INTEGER)")


def test_an_empty_database_takes_rows(empty_url: str) -> None:
    """It has Buildbot's tables and its revision."""
    assert names(empty_url) == []
    assert add(empty_url, "ünï ☃ 😀") == 1
    assert names(empty_url) == ["ünï ☃ 😀"]
    with connected(empty_url) as connection:
        assert connection.scalar(sa.select(alembic_version.c.version_num)) == REVISION


def test_an_empty_database_is_empty_again_for_the_next_test(server: Server) -> None:
    """Rows are gone, ids count from 1, and who was connected no longer is."""
    with server.empty() as url:
        assert add(url, "one") == 1
        engine = sa.create_engine(url)
        left_open = engine.connect()
        left_open.execute(sa.update(builders).values(name="two"))

    with server.empty() as again:
        assert again == url
        assert names(again) == []
        assert add(again, "three") == 1
        with pytest.raises(sa.exc.DBAPIError):
            left_open.execute(sa.select(1))
    left_open.invalidate()
    engine.dispose()


def test_a_new_table_does_not_stay_for_the_next_test(server: Server) -> None:
    """A database with other tables than it was lent with is made again."""
    with server.empty() as url, connected(url) as connection:
        connection.exec_driver_sql("CREATE TABLE mine (id INTEGER)")
    with server.empty() as again, connected(again) as connection:
        assert "mine" not in sa.inspect(connection).get_table_names()
        assert connection.scalar(sa.select(alembic_version.c.version_num)) == REVISION


def test_two_tests_can_have_a_database_each(server: Server) -> None:
    """What is lent twice at once is two databases."""
    with server.empty() as one, server.empty() as two:
        add(one, "only here")

        assert names(two) == []


@pytest.mark.parametrize(
    ("kind", "collation", "order"),
    [
        ("postgresql", "C", ["B", "a"]),
        ("postgresql", "en-US", ["a", "B"]),
        ("mariadb", "utf8mb4_bin", ["B", "a"]),
        ("mariadb", "utf8mb4_unicode_ci", ["a", "B"]),
    ],
)
def test_a_database_can_have_a_collation(
    request: pytest.FixtureRequest, kind: str, collation: str, order: list[str]
) -> None:
    """Texts are in bytes' order or in a language's."""
    server: Server = request.getfixturevalue(kind)
    url = server.fresh_database(collation)
    with connected(url) as connection:
        connection.exec_driver_sql("CREATE TABLE words (word VARCHAR(9))")
        connection.exec_driver_sql("INSERT INTO words VALUES ('a'), ('B')")

        assert list(connection.scalars(sa.text("SELECT word FROM words ORDER BY word"))) == order
    server.drop(url)


def test_a_dropped_database_is_gone(server: Server) -> None:
    """Nobody can connect to it, and who was connected doesn't hold it up."""
    url = server.fresh_database()
    engine = sa.create_engine(url)
    with engine.connect() as connection:
        connection.execute(sa.select(1))
        server.drop(url)
        connection.invalidate()
    engine.dispose()

    with pytest.raises(sa.exc.OperationalError), connected(url):
        pass


def test_tests_are_ordinary_users(server: Server) -> None:
    """As in earnest, they may not do what an administrator may."""
    url = server.fresh_database()

    with pytest.raises(sa.exc.DBAPIError), connected(url) as connection:
        connection.exec_driver_sql("CREATE DATABASE no_test")
    assert server.run("SELECT 1 + 1") == [(2,)]


@pytest.mark.parametrize("how", ["restart", "kill"])
def test_what_was_committed_is_there_after(server: Server, how: str) -> None:
    """The server is another process with the same data, and old connections are lost."""
    with server.empty() as url:
        add(url, "kept")
        before = server.pid
        engine = sa.create_engine(url)
        with engine.connect() as connection:
            connection.execute(sa.update(builders).values(name="not committed"))
            getattr(server, how)()
            with pytest.raises(sa.exc.DBAPIError):
                connection.execute(sa.select(1))
        engine.dispose()

        assert names(url) == ["kept"]
    assert server.pid != before


# Stands for the tests: has a server kept, and is in no hurry.
TESTS = """
import json, subprocess, sys
keeper = subprocess.Popen(
    [sys.executable, *sys.argv[1:]],
    stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, start_new_session=True,
)
print(json.dumps(["start", "sleep", "600"]), file=keeper.stdin, flush=True)
print(keeper.stdout.readline().strip(), flush=True)
sys.stdin.read()
"""


def test_killed_tests_leave_nothing_behind(tmp_path: Path) -> None:
    """Their servers end and their directories go, though there was no time to say goodbye."""
    directory = tmp_path / "server"
    directory.mkdir()
    keeper = str(Path(__file__).with_name("keeper.py"))
    argv = [sys.executable, "-c", TESTS, keeper, str(directory), "SIGTERM"]
    pipe = subprocess.PIPE
    with subprocess.Popen(argv, stdin=pipe, stdout=pipe, stderr=pipe, text=True) as tests:
        assert tests.stdout is not None
        assert tests.stderr is not None
        server = Path("/proc", tests.stdout.readline().strip())
        assert server.exists()

        tests.kill()
        # Its keeper writes there, too: the end comes when both are gone.
        assert tests.stderr.read() == ""
    assert not server.exists()
    assert not directory.exists()


def test_what_is_not_installed_is_named(
    monkeypatch: pytest.MonkeyPatch, postgresql: PostgreSQL
) -> None:
    """A machine without the programs gets a sentence, which is why the tests are skipped."""
    monkeypatch.setattr(shutil, "which", lambda *_args, **_options: None)

    with pytest.raises(LookupError, match="PostgreSQL is not installed: there is no postgres"):
        type(postgresql)()
