"""
Copy a SQLite database that a server may be writing.

The whole copy is one snapshot, held from the first page to the last: without it SQLite would begin
anew after every commit of the server, and never end. The server goes on writing meanwhile; only its
write-ahead log can't be shortened until the copy is done.
"""

from __future__ import annotations

import os
import sqlite3
import tempfile
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import NamedTuple

from buildapi.db.connect import sentence
from buildapi.db.sqlite import SQLite
from buildapi.db.systems import connector
from buildapi.db.tables import buildapi_events, buildapi_log
from buildapi.errors import CannotOpen, Conflict
from buildapi.settings import Database

# Some 4 MiB with pages of the usual size.
PAGES_PER_PORTION = 1_000

_ELSEWHERE = {
    "postgresql": "pg_dump --format=custom --file=FILE DATABASE",
    "mysql": "mariadb-dump --single-transaction --result-file=FILE DATABASE",
    "mariadb": "mariadb-dump --single-transaction --result-file=FILE DATABASE",
}

Progress = Callable[[float], None]


class Backup(NamedTuple):
    """
    What was copied.

    size: bytes of the file.  seq: position of the newest event in it; None if it has no event log.
    """

    size: int
    seq: int | None


def backup(database: Database, file: Path, progress: Progress = lambda _: None) -> Backup:
    """
    Copy the database into a new file, and check the copy.

    progress: called with the part that is done, from 0 to 1.
    The file appears when everything is in it, never before; only its owner may read it.
    Raises Conflict if it is there already; CannotOpen if there is no such database, if it is not
    SQLite's (the sentence names the program to use), if it can't be read or the copy is not sound.
    """
    source = _source(database)
    if file.exists():
        raise Conflict(f"{file} is there already; a backup overwrites nothing")
    if not file.parent.is_dir():
        raise CannotOpen(f"the directory {file.parent} does not exist; make it first")
    handle, name = tempfile.mkstemp(prefix=f".{file.name}.", dir=file.parent)
    os.close(handle)
    part = Path(name)
    try:
        _copy(source, part, progress)
        seq = _checked(part)
        # Unlike a renaming, it fails if somebody has made one meanwhile.
        os.link(part, file)
    except FileExistsError:
        raise Conflict(f"{file} is there already; a backup overwrites nothing") from None
    except (sqlite3.Error, OSError) as error:
        raise CannotOpen(f"cannot copy {source.name} to {file}: {sentence(error)}") from None
    finally:
        part.unlink()
    return Backup(file.stat().st_size, seq)


def _source(database: Database) -> SQLite:
    source = connector(database.url, read_only=True, busy_timeout_s=database.busy_timeout_s)
    if not isinstance(source, SQLite):
        command = _ELSEWHERE[source.dialect.name]
        raise CannotOpen(f"a database server makes its backups itself: {command}")
    if source.in_memory:
        raise CannotOpen("a database in memory is gone with its process; there is nothing to copy")
    source.must_exist()
    return source


def _copy(source: SQLite, part: Path, progress: Progress) -> None:
    def copied(_: int, remaining: int, total: int) -> None:
        progress(1 - remaining / max(total, 1))

    with closing(source.inspector()) as reading, closing(sqlite3.connect(part)) as writing:
        reading.execute(source.BEGIN_SNAPSHOT)
        # A snapshot begins with the first read.
        reading.execute("SELECT count(*) FROM sqlite_master").fetchone()
        reading.backup(writing, pages=PAGES_PER_PORTION, progress=copied)
        reading.execute("COMMIT")


def _checked(part: Path) -> int | None:
    """Return the position of the newest event of a copy; raise CannotOpen if it is not sound."""
    with closing(sqlite3.connect(part)) as connection:
        found = connection.execute("PRAGMA integrity_check").fetchmany(3)
        if found != [("ok",)]:
            wrong = "; ".join(str(row[0]) for row in found)
            raise CannotOpen(f"the copy is not sound, and so is the database: {wrong}")
        tables = {name for (name,) in connection.execute("SELECT name FROM sqlite_master")}
        if buildapi_log.name not in tables:
            return None
        row = connection.execute(f"SELECT seq FROM {buildapi_log.name}").fetchone()
        if row is None:
            return None
        first, last, number = connection.execute(
            f"SELECT min(seq), max(seq), count(*) FROM {buildapi_events.name}"
        ).fetchone()
        seq: int = row[0]
        if number and (last != seq or number != last - first + 1):
            raise CannotOpen(f"the event log of the copy has a hole before its end, {seq}")
        return seq
