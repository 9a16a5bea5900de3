"""
The generated rows in a database system, and a copy of them for each server.

What takes long is kept in ``.bench`` until the generator changes: it is made once per size.
"""

from __future__ import annotations

import hashlib
import shutil
import sqlite3
import time
from abc import ABC, abstractmethod
from dataclasses import dataclass
from pathlib import Path

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

    packages: tuple[str, ...] = ()
    """What Buildbot's environment needs besides Buildbot."""

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
