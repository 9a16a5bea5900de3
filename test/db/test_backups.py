"""Backups of a database that is being written, and the log after one was restored."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest
import sqlalchemy as sa
from twisted.internet.defer import Deferred

from buildapi.db.backups import Backup, backup
from buildapi.db.tables import REVISION, alembic_version, metadata
from buildapi.db.upkeep import GENERATION, new_log
from buildapi.errors import CannotOpen, Conflict, Gone, Missed
from buildapi.mq.event import Event
from buildapi.mq.history import Extent
from buildapi.mq.stream import Stream
from buildapi.service import BuildAPI
from buildapi.settings import Database
from buildapi.testing import a_build, in_memory_api, result_of
from buildapi.testing.memory import DATABASE

SEED = """
CREATE TABLE buildapi_log (id INTEGER PRIMARY KEY, uuid TEXT, seq INTEGER, batch INTEGER);
CREATE TABLE buildapi_events (seq INTEGER PRIMARY KEY, at, topic, keys, body, builderid, projectid);
INSERT INTO buildapi_log VALUES (1, 'one', 0, 0);
"""


@pytest.fixture
def state(tmp_path: Path) -> Path:
    """A database with an event log of 500 events, in WAL mode."""
    path = tmp_path / "state.sqlite"
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA journal_mode=WAL")
        connection.executescript(SEED)
        with connection:
            for _ in range(500):
                write(connection)
    return path


def write(connection: sqlite3.Connection) -> None:
    """Write one more event, as a server does."""
    connection.execute("UPDATE buildapi_log SET seq = seq + 1")
    connection.execute(
        "INSERT INTO buildapi_events (seq, body) SELECT seq, hex(zeroblob(2000)) FROM buildapi_log"
    )


def settings(path: Path) -> Database:
    """Return the settings that name a file."""
    return Database(url=f"sqlite:///{path}")


def newest(path: Path) -> int:
    """Return the position at the end of a log."""
    with closing(sqlite3.connect(path)) as connection:
        found: int = connection.execute("SELECT seq FROM buildapi_log").fetchone()[0]
    return found


def test_a_copy_is_one_moment_though_a_server_writes(
    state: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each portion is followed by a commit; none of them makes it begin anew, or waits for it."""
    monkeypatch.setattr("buildapi.db.backups.PAGES_PER_PORTION", 10)
    parts: list[float] = []

    def progress(part: float) -> None:
        parts.append(part)
        with closing(sqlite3.connect(state)) as server, server:
            write(server)

    done = backup(settings(state), tmp_path / "copy.sqlite", progress)

    assert done.seq == newest(tmp_path / "copy.sqlite") == 500
    assert done.size == (tmp_path / "copy.sqlite").stat().st_size
    assert newest(state) == 500 + len(parts)
    assert parts == sorted(parts)
    assert parts[-1] == 1.0
    assert len(parts) > 50
    assert {path.name for path in tmp_path.iterdir() if "copy" in path.name} == {"copy.sqlite"}


def test_only_its_owner_may_read_a_copy(state: Path, tmp_path: Path) -> None:
    """It has what the database has."""
    backup(settings(state), tmp_path / "copy.sqlite")

    assert (tmp_path / "copy.sqlite").stat().st_mode & 0o077 == 0


def test_nothing_is_overwritten(state: Path, tmp_path: Path) -> None:
    """Not the database itself either; and nothing half-made is left."""
    (tmp_path / "copy.sqlite").write_text("precious")
    before = set(tmp_path.iterdir())

    for there in (tmp_path / "copy.sqlite", state):
        with pytest.raises(Conflict, match="overwrites nothing"):
            backup(settings(state), there)

    assert (tmp_path / "copy.sqlite").read_text() == "precious"
    assert {path for path in tmp_path.iterdir() if "copy" in path.name} <= before


def test_a_file_that_appears_meanwhile_is_not_overwritten(state: Path, tmp_path: Path) -> None:
    """Two who make a backup of one name at once: one of them is told."""
    file = tmp_path / "copy.sqlite"

    def progress(_: float) -> None:
        file.write_text("precious")

    with pytest.raises(Conflict, match="overwrites nothing"):
        backup(settings(state), file, progress)

    assert file.read_text() == "precious"


@pytest.mark.parametrize("wrong", ["DELETE FROM buildapi_events WHERE seq = 250", "bytes"])
def test_a_copy_that_is_not_sound_is_no_backup(state: Path, tmp_path: Path, wrong: str) -> None:
    """A hole in the log, or a page that is broken: the operator must know."""
    with closing(sqlite3.connect(state)) as connection:
        if wrong != "bytes":
            connection.execute(wrong)
            connection.commit()
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    if wrong == "bytes":
        with state.open("r+b") as file:
            file.seek(4096 * 100)
            file.write(b"\xff" * 4096 * 20)

    with pytest.raises(CannotOpen, match=r"hole|not sound|malformed"):
        backup(settings(state), tmp_path / "copy.sqlite")
    assert not [path for path in tmp_path.iterdir() if "copy" in path.name]


def test_a_buildbot_database_has_no_log_to_check(tmp_path: Path) -> None:
    """It is copied all the same."""
    engine = sa.create_engine(f"sqlite:///{tmp_path}/state.sqlite")
    metadata.create_all(engine)
    engine.dispose()

    done = backup(settings(tmp_path / "state.sqlite"), tmp_path / "copy.sqlite")

    assert done == Backup((tmp_path / "state.sqlite").stat().st_size, None)


@pytest.mark.parametrize(
    ("url", "word"),
    [
        ("postgresql://ci@db/ci", "pg_dump"),
        ("mariadb://ci@db/ci", "mariadb-dump"),
        ("sqlite://", "in memory"),
        ("sqlite:////no/such/file", "no database"),
    ],
)
def test_what_cannot_be_copied_is_said(tmp_path: Path, url: str, word: str) -> None:
    """For a database server, with the program that can."""
    with pytest.raises(CannotOpen, match=word):
        backup(Database(url=url), tmp_path / "copy.sqlite")


def served(url: str) -> BuildAPI:
    """Return a service without threads on a database that outlives it."""
    token = DATABASE.set(url)
    try:
        return in_memory_api()
    finally:
        DATABASE.reset(token)


def extent(api: BuildAPI) -> Extent:
    """Return what the log has."""
    assert api.mq.history is not None
    found: Extent = result_of(api.mq.history.extent())
    return found


def first(stream: Stream) -> Event:
    """Return what a stream tells first, or raise what it says instead."""
    found: Event = result_of(Deferred.fromCoroutine(anext(stream)))
    return found


def test_a_new_log_refuses_every_position_of_the_old_one(url: str) -> None:
    """With its identity and without, those from after the backup too; the builds are there."""
    api = served(url)
    result_of(a_build(api))
    old = extent(api)
    result_of(api.mq.subscribe("#", since=0, consumer="mailer").ack(3))
    result_of(api.stopService())

    begun = new_log(Database(url=url))

    api = served(url)
    assert extent(api) == (begun.uuid, GENERATION + 1, GENERATION)
    with pytest.raises(Gone):
        first(api.mq.subscribe("#", since=old.newest, log=old.log))
    result_of(api.data.updates.finishBuild(1, 0))
    for position in (0, old.newest, old.newest + 1000):
        with pytest.raises(Missed):
            first(api.mq.subscribe("#", since=position))
    with pytest.raises(Missed):
        first(api.mq.subscribe("#", consumer="mailer"))
    assert first(api.mq.subscribe("#", since=begun.seq)).seq == GENERATION + 1
    assert result_of(api.data.get("builds/1"))["complete"]
    result_of(api.stopService())


def test_each_new_log_begins_above_the_one_before(url: str) -> None:
    """Though nothing was written in between."""
    result_of(served(url).stopService())

    begun = [new_log(Database(url=url)) for _ in range(2)]

    assert [one.seq for one in begun] == [GENERATION, 2 * GENERATION]
    assert begun[0].uuid != begun[1].uuid


def test_a_log_that_is_being_written_is_left_alone(url: str) -> None:
    """The server must be stopped first."""
    api = served(url)
    before = extent(api)

    with pytest.raises(CannotOpen, match="is being written by"):
        new_log(Database(url=url))
    assert extent(api) == before
    result_of(api.stopService())


def test_a_database_without_a_log_is_told_so(tmp_path: Path) -> None:
    """A Buildbot master's, that was never served for writing."""
    path = tmp_path / "state.sqlite"
    engine = sa.create_engine(f"sqlite:///{path}")
    with engine.begin() as connection:
        metadata.create_all(connection)
        connection.execute(sa.insert(alembic_version).values(version_num=REVISION))
    engine.dispose()

    with pytest.raises(CannotOpen, match="no event log yet"):
        new_log(settings(path))
