"""
Database servers for tests: one PostgreSQL and one MariaDB a session, started by the first test that
asks for the fixture ``postgresql`` or ``mariadb``.

They are this machine's programs, run as an ordinary user in a new directory, with nothing of the
machine's own configuration, reachable through a Unix socket and on a port of 127.0.0.1.  What is
committed survives ``kill``, but not a power cut: nothing waits for the disk.  ``keeper`` sees to it
that they end with the tests, however these end.

Tests get URLs of databases whose user is, as in earnest, not the server's administrator, as whom
``run`` and ``session`` work.
"""

from __future__ import annotations

import contextlib
import secrets
import tempfile
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from itertools import count
from pathlib import Path
from typing import Any, ClassVar

import pytest
import sqlalchemy as sa

from buildapi.db.migrate import create_tables
from buildapi.db.tables import REVISION, alembic_version, indexes, own
from test.kept import Kept, Missing, account_of, free_port

USER = "buildapi"

Run = Callable[[str], list[tuple[Any, ...]]]
"""Runs a statement, and returns its rows, if it has any."""

Make = Callable[[str], None]
"""Makes the tables of the database that a URL names."""


def make_tables(url: str) -> None:
    """Make what a new database of buildapi has, without its one row of ``buildapi_log``."""
    engine = sa.create_engine(url)
    with engine.begin() as connection:
        create_tables(connection)
        connection.execute(sa.insert(alembic_version).values(version_num=REVISION))
        own.create_all(connection)
        for index in indexes:
            index.create(connection)
    engine.dispose()


class Server(ABC):
    """A running database server and the databases that tests have of it."""

    title: ClassVar[str]
    account: ClassVar[str]  # whose the server's files are, where the tests run as root
    driver: ClassVar[str]
    tables: ClassVar[str]  # asks for the names of a database's tables, in order
    stop_signal: ClassVar[str]
    end_signal: ClassVar[str]  # the quickest that leaves nothing in the machine's memory

    def __init__(self) -> None:
        commands = self._commands()
        account = account_of(self.account, self.title)
        self.port = free_port()
        self._password = secrets.token_hex(8)
        self._names = map("test_{}".format, count(1))
        # Not below pytest's own: only its user may enter that, and a socket's path must be short.
        self.directory = Path(tempfile.mkdtemp(prefix=f"buildapi-{self.title.lower()}-"))
        self._kept = Kept(self.directory, self.end_signal, *account)
        self.pid = 0
        self._idle: dict[Make, list[Lent]] = {}
        try:
            self._install(commands)
        except BaseException:
            self.close()
            raise

    def url(self, database: str) -> str:
        """The URL of a database, as an ordinary user reaches it over TCP."""
        return f"{self.driver}://{USER}:{self._password}@127.0.0.1:{self.port}/{database}"

    def fresh_database(self, collation: str | None = None) -> str:
        """Make a database without tables, and return its URL.  collation: the server's word."""
        name = next(self._names)
        self._create(name, collation)
        return self.url(name)

    @abstractmethod
    def drop(self, url: str) -> None:
        """Remove a database, and end the sessions that use it."""

    @abstractmethod
    def run(self, sql: str) -> list[tuple[Any, ...]]:
        """Run a statement as the administrator; return its rows, if it has any."""

    @abstractmethod
    def dismiss(self, url: str) -> None:
        """End the sessions that use a database."""

    @contextlib.contextmanager
    def empty(self, make: Make = make_tables) -> Iterator[str]:
        """
        Lend the URL of a database that is as ``make`` leaves it; far quicker than making it anew.

        The rows are as new and ids count from 1.  Tables that came or went are noticed; a test that
        changes columns or indexes had better take a ``fresh_database``.
        """
        idle = self._idle.setdefault(make, [])
        lent = idle.pop() if idle else Lent(self, make)
        try:
            yield lent.url
        finally:
            lent.reset()
            idle.append(lent)

    @abstractmethod
    def session(self, url: str) -> contextlib.AbstractContextManager[Run]:
        """Run statements in a database as the administrator, whom foreign keys don't stop."""

    @abstractmethod
    def recount(self, run: Run) -> None:
        """Make the ids of all tables of a session's database count from 1 again."""

    def stop(self) -> None:
        """Stop the server in good order: its clients are sent away."""
        self._forget()
        self._kept.order("stop", self.stop_signal)

    def start(self) -> None:
        """Start the server again, on its data and port; returns when it takes connections."""
        self.pid = self._kept.order("start", *self._server())
        self._connected()

    def restart(self) -> None:
        """Stop and start: clients lose their connections and nothing else."""
        self.stop()
        self.start()

    def kill(self) -> None:
        """Kill the server's processes, and start it again: it recovers what was committed."""
        self._forget()
        self._kept.order("kill")
        self.start()

    def close(self) -> None:
        """End the server and remove its files."""
        self._forget()
        self._kept.close()

    @staticmethod
    @abstractmethod
    def _commands() -> dict[str, str]:
        """Where the server's programs are; Missing if they are nowhere."""

    @abstractmethod
    def _install(self, commands: dict[str, str]) -> None:
        """Make the server's files, start it and make the users."""

    @abstractmethod
    def _server(self) -> list[str]:
        """The command line of the server."""

    @abstractmethod
    def _create(self, name: str, collation: str | None) -> None:
        """Make a database."""

    @abstractmethod
    def _connected(self) -> None:
        """Connect as the administrator, as soon as the server takes connections."""

    @abstractmethod
    def _forget(self) -> None:
        """Drop the administrator's connection."""

    def _prepare(self, *command: str) -> None:
        if self._kept.order("run", *command):
            raise RuntimeError(f"{command[0]} failed:\n{self._kept.log()}")


class Lent:
    """A database that tests get one after the other, each as it was when it was made."""

    def __init__(self, server: Server, make: Make) -> None:
        self._server = server
        self._make = make
        self._new()

    def _new(self) -> None:
        self.url = self._server.fresh_database()
        self._make(self.url)
        with self._server.session(self.url) as run:
            self._tables = run(self._server.tables)
            self._rows = {table: run(f"SELECT * FROM {table}") for table in self._filled(run)}

    def reset(self) -> None:
        """Make it again as it was: from the ground up, if its tables are not the same."""
        self._server.dismiss(self.url)
        with self._server.session(self.url) as run:
            same = run(self._server.tables) == self._tables
            if same:
                self._refill(run)
        if not same:
            self._server.drop(self.url)
            self._new()

    def _refill(self, run: Run) -> None:
        for table in self._filled(run):
            run(f"DELETE FROM {table}")
        self._server.recount(run)
        for table, rows in self._rows.items():
            for row in rows:
                run(f"INSERT INTO {table} VALUES ({', '.join(map(repr, row))})")

    def _filled(self, run: Run) -> list[str]:
        one = "(SELECT '{0}' FROM {0} LIMIT 1)".format
        return [table for (table,) in run(" UNION ALL ".join(one(*row) for row in self._tables))]


def name_of(url: str) -> str:
    """The name of the database that a URL is of."""
    name = sa.make_url(url).database
    assert name is not None
    return name


def one_session(kind: Callable[[], Server]) -> Iterator[Any]:
    """A server for all tests of a run, which are skipped if it is missing."""
    try:
        server = kind()
    except Missing as missing:
        pytest.skip(str(missing))
    yield server
    server.close()


KINDS = ["sqlite", "postgresql", "mariadb"]


@pytest.fixture(params=KINDS)
def fresh_url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """The URL of a database without tables, of each kind."""
    if request.param == "sqlite":
        yield f"sqlite:///{tmp_path / 'fresh.sqlite'}"
        return
    server: Server = request.getfixturevalue(request.param)
    url = server.fresh_database()
    yield url
    server.drop(url)


@pytest.fixture(params=KINDS)
def empty_url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """The URL of a database of each kind that has buildapi's tables and nothing in them."""
    if request.param == "sqlite":
        url = f"sqlite:///{tmp_path / 'empty.sqlite'}"
        make_tables(url)
        yield url
        return
    server: Server = request.getfixturevalue(request.param)
    with server.empty() as url:
        yield url
