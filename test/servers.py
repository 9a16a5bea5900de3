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
import json
import os
import pwd
import random
import secrets
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any, ClassVar, TypeVar

import psycopg
import pymysql
import pytest
import sqlalchemy as sa

from buildapi.db.migrate import create_tables
from buildapi.db.tables import REVISION, alembic_version, indexes, own

KEEPER = Path(__file__).with_name("keeper.py")
PATIENCE_S = 60.0
USER = "buildapi"

T = TypeVar("T")
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


class Missing(LookupError):
    """The server's programs, or the user to run them as, are not there; the text says so."""


class Kept:
    """A keeper, whose processes and directory go with the tests; see ``keeper`` for its orders."""

    def __init__(self, directory: Path, end_signal: str, *account: str) -> None:
        self.directory = directory
        argv = [sys.executable, str(KEEPER), str(directory), end_signal, *account]
        self._process = subprocess.Popen(
            argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, start_new_session=True
        )

    def order(self, *order: str) -> int:
        """Have an order obeyed, and return the answer."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        print(json.dumps(order), file=self._process.stdin, flush=True)
        answer: int = json.loads(self._process.stdout.readline())
        return answer

    def log(self) -> str:
        """The end of what the programs printed."""
        return (self.directory / "log").read_text(errors="replace")[-3000:]

    def patiently(self, connect: Callable[[], T], *errors: type[Exception]) -> T:
        """Return what ``connect`` returns once it does not fail any more."""
        deadline = time.monotonic() + PATIENCE_S
        while True:
            try:
                return connect()
            except errors:
                if time.monotonic() > deadline:
                    raise RuntimeError(f"the server does not answer:\n{self.log()}") from None
                # Another program's start: nothing tells when it is done.
                time.sleep(0.02)

    def close(self) -> None:
        """End the processes and remove the directory."""
        self._process.communicate()


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
        account = _account(self.account, self.title)
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


class PostgreSQL(Server):
    """PostgreSQL, from the PATH or from Debian's folder of the newest version."""

    title = "PostgreSQL"
    account = "postgres"
    driver = "postgresql+psycopg"
    tables = "SELECT tablename FROM pg_tables WHERE schemaname = 'public' ORDER BY 1"
    stop_signal = "SIGINT"
    end_signal = "SIGQUIT"

    def drop(self, url: str) -> None:  # noqa: D102
        self.run(f"DROP DATABASE {_name(url)} WITH (FORCE)")

    def run(self, sql: str) -> list[tuple[Any, ...]]:  # noqa: D102
        return _rows(self._admin, sql)

    def dismiss(self, url: str) -> None:  # noqa: D102
        self.run(
            "SELECT pg_terminate_backend(pid, 20000) FROM pg_stat_activity"
            f" WHERE datname = '{_name(url)}'"
        )

    @contextlib.contextmanager
    def session(self, url: str) -> Iterator[Run]:  # noqa: D102
        with self._connect(_name(url)) as connection:
            connection.execute("SET session_replication_role = replica")
            yield partial(_rows, connection)

    def recount(self, run: Run) -> None:  # noqa: D102
        used = "SELECT sequencename FROM pg_sequences WHERE last_value IS NOT NULL"
        for (name,) in run(used):
            run(f"ALTER SEQUENCE {name} RESTART")

    @staticmethod
    def _commands() -> dict[str, str]:
        def version(folder: Path) -> list[int]:
            return [int(part) for part in folder.parent.name.split(".") if part.isdigit()]

        debian = sorted(Path("/usr/lib/postgresql").glob("*/bin"), key=version, reverse=True)
        path = os.pathsep.join([os.environ.get("PATH", ""), *map(str, debian)])
        return _found("PostgreSQL", path, "postgres", "initdb")

    def _install(self, commands: dict[str, str]) -> None:
        self._postgres = commands["postgres"]
        self._prepare(
            *(commands["initdb"], "--pgdata=data", "--username=postgres", "--no-sync"),
            *("--encoding=UTF8", "--locale=C.UTF-8", "--auth-local=trust", "--auth-host=md5"),
        )
        self.start()
        self.run(f"CREATE ROLE {USER} LOGIN PASSWORD '{self._password}'")

    def _server(self) -> list[str]:
        settings = {
            "listen_addresses": "127.0.0.1",
            "port": self.port,
            "unix_socket_directories": self.directory,
            # Quick to check; the tests connect often.
            "password_encryption": "md5",
            "fsync": "off",
            "full_page_writes": "off",
            "synchronous_commit": "on",
            "wal_level": "minimal",
            "max_wal_senders": 0,
            "shared_buffers": "32MB",
            "autovacuum": "off",
            "checkpoint_timeout": "1h",
        }
        return [self._postgres, "-D", "data", *(f"-c{k}={v}" for k, v in settings.items())]

    def _create(self, name: str, collation: str | None) -> None:
        libc = {"C", "POSIX", "C.UTF-8", None}
        locale = "" if collation in libc else f" LOCALE_PROVIDER icu ICU_LOCALE '{collation}'"
        if collation is not None:
            libc_name = collation if collation in libc else "C.UTF-8"
            locale += f" LOCALE '{libc_name}' TEMPLATE template0"
        self.run(f"CREATE DATABASE {name} OWNER {USER}{locale}")

    def _connected(self) -> None:
        self._admin = self._kept.patiently(
            lambda: self._connect("postgres"), psycopg.OperationalError
        )

    def _connect(self, database: str) -> psycopg.Connection[tuple[Any, ...]]:
        return psycopg.connect(
            host=str(self.directory),
            port=self.port,
            dbname=database,
            user="postgres",
            autocommit=True,
        )

    def _forget(self) -> None:
        with contextlib.suppress(AttributeError):
            self._admin.close()


def _rows(connection: psycopg.Connection[tuple[Any, ...]], sql: str) -> list[tuple[Any, ...]]:
    cursor = connection.execute(sql)
    return cursor.fetchall() if cursor.description else []


class MariaDB(Server):
    """MariaDB, from the PATH or from where Debian has it."""

    title = "MariaDB"
    account = "mysql"
    driver = "mariadb+pymysql"
    tables = "SHOW TABLES"
    stop_signal = "SIGTERM"
    end_signal = "SIGKILL"

    def drop(self, url: str) -> None:  # noqa: D102
        self.dismiss(url)
        self.run(f"DROP DATABASE {_name(url)}")

    def run(self, sql: str) -> list[tuple[Any, ...]]:  # noqa: D102
        with self._admin.cursor() as cursor:
            cursor.execute(sql)
            return list(cursor.fetchall())

    def dismiss(self, url: str) -> None:  # noqa: D102
        sessions = f"SELECT id FROM information_schema.processlist WHERE db = '{_name(url)}'"
        for (ident,) in self.run(sessions):
            with contextlib.suppress(pymysql.OperationalError):
                self.run(f"KILL {ident}")

    @contextlib.contextmanager
    def session(self, url: str) -> Iterator[Run]:  # noqa: D102
        self._admin.select_db(_name(url))
        yield self.run
        self._admin.select_db("mysql")

    def recount(self, run: Run) -> None:  # noqa: D102
        used = (
            "SELECT table_name FROM information_schema.tables"
            " WHERE table_schema = DATABASE() AND auto_increment > 1"
        )
        for (table,) in run(used):
            run(f"ALTER TABLE {table} AUTO_INCREMENT = 1")

    @staticmethod
    def _commands() -> dict[str, str]:
        path = os.pathsep.join([os.environ.get("PATH", ""), "/usr/sbin"])
        return _found("MariaDB", path, "mariadbd", "mariadb-install-db")

    def _install(self, commands: dict[str, str]) -> None:
        self._mariadbd = commands["mariadbd"]
        self._prepare(
            *(commands["mariadb-install-db"], "--no-defaults", f"--datadir={self.directory}/data"),
            *("--skip-test-db", "--auth-root-authentication-method=normal"),
            *("--innodb-flush-method=nosync", "--innodb-log-file-size=16M"),
        )
        self.start()
        self.run(f"CREATE USER {USER}@'%' IDENTIFIED BY '{self._password}'")
        self.run(f"GRANT ALL ON `test\\_%`.* TO {USER}@'%'")
        # The installation leaves root without a password, from the network too.
        self.run("DELETE FROM mysql.global_priv WHERE User = 'root' AND Host <> 'localhost'")
        self.run("FLUSH PRIVILEGES")

    def _server(self) -> list[str]:
        settings = {
            "datadir": self.directory / "data",
            "socket": self.directory / "socket",
            "pid-file": self.directory / "pid",
            "bind-address": "127.0.0.1",
            "port": self.port,
            "skip-name-resolve": 1,
            "skip-log-bin": 1,
            "character-set-server": "utf8mb4",
            "innodb-flush-method": "nosync",
            # To the system at each commit, so that a killed server loses nothing.
            "innodb-flush-log-at-trx-commit": 2,
            "innodb-log-file-size": "16M",
            "innodb-buffer-pool-size": "64M",
            "innodb-file-per-table": 0,
        }
        return [self._mariadbd, "--no-defaults", *(f"--{k}={v}" for k, v in settings.items())]

    def _create(self, name: str, collation: str | None) -> None:
        collate = f" COLLATE {collation}" if collation else ""
        self.run(f"CREATE DATABASE {name} CHARACTER SET utf8mb4{collate}")

    def _connected(self) -> None:
        def knock() -> None:
            socket.create_connection(("127.0.0.1", self.port)).close()

        # A driver's connection that fails is not always closed.
        self._kept.patiently(knock, OSError)
        place = str(self.directory / "socket")
        self._admin = pymysql.connect(unix_socket=place, user="root", autocommit=True)
        # What a test left open must not stop the tests after it.
        self.run("SET lock_wait_timeout = 20")
        self.run("SET foreign_key_checks = 0")

    def _forget(self) -> None:
        with contextlib.suppress(AttributeError, pymysql.Error):
            self._admin.close()


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


def _name(url: str) -> str:
    name = sa.make_url(url).database
    assert name is not None
    return name


def _found(title: str, path: str, *programs: str) -> dict[str, str]:
    found = {program: shutil.which(program, path=path) for program in programs}
    if absent := [program for program, place in found.items() if place is None]:
        raise Missing(f"{title} is not installed: there is no {absent[0]}")
    return {program: str(place) for program, place in found.items()}


def _account(user: str, title: str) -> list[str]:
    """Whom to run as, if it can't be ourselves."""
    if os.getuid() != 0:
        return []
    with contextlib.suppress(KeyError):
        return [pwd.getpwnam(user).pw_name]
    raise Missing(f"{title} does not run as root, and there is no user {user}")


def free_port() -> int:
    """A port below those that the system gives to clients, which may take one at any moment."""
    while True:
        port = random.randrange(20000, 32000)
        with contextlib.suppress(OSError), socket.create_server(("127.0.0.1", port)):
            return port


def _session(kind: Callable[[], Server]) -> Iterator[Any]:
    try:
        server = kind()
    except Missing as missing:
        pytest.skip(str(missing))
    yield server
    server.close()


@pytest.fixture(scope="session")
def postgresql() -> Iterator[PostgreSQL]:
    """The session's PostgreSQL."""
    yield from _session(PostgreSQL)


@pytest.fixture(scope="session")
def mariadb() -> Iterator[MariaDB]:
    """The session's MariaDB."""
    yield from _session(MariaDB)


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
