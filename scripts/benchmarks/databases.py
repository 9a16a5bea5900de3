"""
The generated rows in a database system, and a copy of them for each server.

The SQLite file is kept in ``.bench`` until the generator changes: it is made once per size.  The
servers of the tests are started for PostgreSQL and MariaDB, with settings as in earnest, and filled
anew in each run.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib
import shutil
import sqlite3
import sys
import time
from abc import ABC, abstractmethod
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import sqlalchemy as sa

from benchmarks import generate, setup
from benchmarks.generate import parts
from buildapi.db import tables


@dataclass(frozen=True)
class Copy:
    """A database of its own for one server: its URL for buildapi, and for Buildbot."""

    buildapi: str
    buildbot: str


class Data(ABC):
    """A database system that holds the rows of so many builds."""

    def __init__(self, run: Path, builds: int) -> None:
        self.run = run
        self.builds = builds

    @abstractmethod
    def prepare(self) -> None:
        """Make the rows, or find those of an earlier run."""

    @abstractmethod
    def copy(self, name: str) -> Copy:
        """Make a copy for the server of this name."""

    @abstractmethod
    def close(self) -> None:
        """Stop what serves it."""


def stamp(builds: int) -> str:
    """Return what the cached data of so many builds is called; it changes with the generator."""
    source = Path(generate.__file__).read_bytes() + Path(tables.__file__).read_bytes()
    return f"builds-{builds}-{hashlib.sha256(source).hexdigest()[:8]}"


class SQLiteFile(Data):
    """A file, copied for each server."""

    def prepare(self) -> None:
        """Make the file that is copied."""
        self._path = setup.FOLDER / f"{stamp(self.builds)}.sqlite"
        if self._path.exists():
            return
        for outdated in setup.FOLDER.glob(f"builds-{self.builds}-*.sqlite"):
            outdated.unlink()
        started = time.monotonic()
        unfinished = self._path.with_suffix(".unfinished")
        unfinished.unlink(missing_ok=True)
        _fill_sqlite(unfinished, self.builds)
        unfinished.replace(self._path)
        size, seconds = self._path.stat().st_size / 2**20, time.monotonic() - started
        setup.say(f"made {self._path.name}, {size:.0f} MB, in {seconds:.0f} s")

    def copy(self, name: str) -> Copy:
        """Copy the file."""
        folder = self.run / name
        folder.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(self._path, folder / "state.sqlite")
        url = f"sqlite:///{folder / 'state.sqlite'}"
        return Copy(url, url)

    def close(self) -> None:
        """Nothing serves it."""


def _fill_sqlite(path: Path, builds: int) -> None:
    engine = sa.create_engine(f"sqlite:///{path}")
    tables.metadata.create_all(engine)
    engine.dispose()
    connection = sqlite3.connect(path, isolation_level=None)
    # Half a database is thrown away, so nothing has to survive a crash.
    for pragma in ("journal_mode = OFF", "synchronous = OFF", "cache_size = -200000"):
        connection.execute(f"PRAGMA {pragma}")
    connection.execute("BEGIN")
    for table, rows in parts(builds):
        marks = ", ".join("?" * len(table.columns))
        connection.executemany(f"INSERT INTO {table.name} VALUES ({marks})", rows)
    connection.execute("COMMIT")
    connection.close()


class Served(Data):
    """A database of a server that this run starts, filled once and copied there for the others."""

    kind: ClassVar[str]
    options: ClassVar[tuple[str, ...]]
    buildbots_driver: ClassVar[str]
    buildbots_query: ClassVar[dict[str, str]] = {}

    def prepare(self) -> None:
        """Start the server and fill a database."""
        place = str(setup.ROOT / "test")
        if place not in sys.path:
            sys.path.append(place)
        modules = importlib.import_module("conftest").loaded()
        started = time.monotonic()
        self._server = _in_earnest(
            getattr(modules[f"test.{self.kind.lower()}"], self.kind), self.options
        )
        try:
            self._filled = sa.make_url(self._server.fresh_database())
            engine = sa.create_engine(self._filled)
            tables.metadata.create_all(engine)
            self.fill(engine)
            engine.dispose()
        except BaseException:
            self.close()
            raise
        setup.say(f"filled {self.kind} in {time.monotonic() - started:.0f} s")

    @abstractmethod
    def fill(self, engine: sa.Engine) -> None:
        """Insert all rows, and make the server look at them as it would some day by itself."""

    def copy(self, name: str) -> Copy:  # noqa: ARG002  the server's databases are numbered
        """Copy the database inside the server."""
        url = self._copied()
        buildbots = url.set(drivername=self.buildbots_driver).update_query_dict(
            self.buildbots_query
        )
        return Copy(*(one.render_as_string(hide_password=False) for one in (url, buildbots)))

    @abstractmethod
    def _copied(self) -> sa.URL: ...

    def close(self) -> None:
        """End the server and remove its files."""
        self._server.close()


def _in_earnest(kind: type[Any], options: tuple[str, ...]) -> Any:
    """Start a server of the tests, but as it would be run: what they need for speed is undone."""

    class InEarnest(kind):  # type: ignore[misc]  # its module is found when it is needed
        def _server(self) -> list[str]:
            return [*super()._server(), *options]

    return InEarnest()


class PostgreSQL(Served):
    """PostgreSQL, filled by COPY."""

    kind = "PostgreSQL"
    options = (
        *("-cfsync=on", "-cfull_page_writes=on", "-cautovacuum=on"),
        *("-cshared_buffers=512MB", "-cmax_wal_size=4GB"),
    )
    buildbots_driver = "postgresql+psycopg2"

    def fill(self, engine: sa.Engine) -> None:
        """Copy the rows in, and let the sequences go on behind them."""
        with contextlib.closing(engine.raw_connection()) as connection:
            cursor = connection.cursor()
            for table, rows in parts(self.builds):
                with cursor.copy(f"COPY {table.name} FROM STDIN") as copy:  # type: ignore[attr-defined]
                    for row in rows:
                        copy.write_row(row)
            for table in tables.metadata.sorted_tables:
                if table.autoincrement_column is not None:
                    name, column = table.name, table.autoincrement_column.name
                    sequence = f"pg_get_serial_sequence('{name}', '{column}')"
                    newest = f"(SELECT coalesce(max({column}), 1) FROM {name})"
                    cursor.execute(f"SELECT setval({sequence}, {newest})")
            connection.commit()
        with engine.connect() as connection:
            connection.execution_options(isolation_level="AUTOCOMMIT")
            connection.exec_driver_sql("VACUUM ANALYZE")

    def _copied(self) -> sa.URL:
        name = sa.make_url(self._server.fresh_database()).database
        self._server.run(f"DROP DATABASE {name}")
        self._server.run(
            f"CREATE DATABASE {name} OWNER {self._filled.username} TEMPLATE {self._filled.database}"
        )
        return self._filled.set(database=name)


class MariaDB(Served):
    """MariaDB, filled by INSERTs of many rows."""

    kind = "MariaDB"
    options = (
        *("--innodb-flush-method=fsync", "--innodb-flush-log-at-trx-commit=1"),
        *("--innodb-buffer-pool-size=512M", "--innodb-log-file-size=256M"),
    )
    buildbots_driver = "mysql+pymysql"
    buildbots_query: ClassVar = {"storage_engine": "InnoDB"}

    def fill(self, engine: sa.Engine) -> None:
        """Insert the rows."""
        with contextlib.closing(engine.raw_connection()) as connection:
            cursor = connection.cursor()
            cursor.execute("SET foreign_key_checks = 0, unique_checks = 0")
            for table, rows in parts(self.builds):
                marks = ", ".join(["%s"] * len(table.columns))
                cursor.executemany(f"INSERT INTO {table.name} VALUES ({marks})", rows)  # type: ignore[arg-type]
                connection.commit()
            names = ", ".join(table.name for table in tables.metadata.sorted_tables)
            cursor.execute(f"ANALYZE TABLE {names}")

    def _copied(self) -> sa.URL:
        url = sa.make_url(self._server.fresh_database())
        engine = sa.create_engine(url)
        tables.metadata.create_all(engine)
        with engine.begin() as connection:
            connection.exec_driver_sql("SET foreign_key_checks = 0, unique_checks = 0")
            for table in tables.metadata.sorted_tables:
                connection.exec_driver_sql(
                    f"INSERT INTO {table.name} SELECT * FROM {self._filled.database}.{table.name}"
                )
        engine.dispose()
        return url
