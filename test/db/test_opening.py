"""Opening a database: what is made, what is left alone, and the sentence for what can't be used."""
# ruff: noqa: ASYNC240  the files of a test are small, and on a disk of its own

from __future__ import annotations

import hashlib
import os
import shutil
import socket
import sqlite3
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import pytest_twisted
import sqlalchemy as sa

from buildapi.db import eventlog
from buildapi.db.connect import Reader
from buildapi.db.engine import TooLarge
from buildapi.db.systems import connector
from buildapi.db.tables import alembic_version, indexes, masters, metadata, own
from buildapi.errors import CannotOpen, Unavailable
from buildapi.settings import Events

if TYPE_CHECKING:
    from test.db.conftest import Opener

# Files, and what may be beside them; of servers: test_servers.
pytestmark = pytest.mark.systems("sqlite")

EXAMPLE = {"name": "m1", "name_hash": "x", "active": 1, "last_active": 1}


def a_buildbot_database(path: Path, revision: str = "067", journal_mode: str = "delete") -> None:
    """Make a database as a Buildbot master leaves it, with a row."""
    engine = sa.create_engine(f"sqlite:///{path}")
    with engine.begin() as connection:
        metadata.create_all(connection)
        connection.execute(sa.insert(alembic_version).values(version_num=revision))
        connection.execute(sa.insert(masters).values(EXAMPLE))
    engine.dispose()
    with closing(sqlite3.connect(path)) as raw:
        raw.execute(f"PRAGMA journal_mode={journal_mode}")


def content(path: Path) -> dict[str, list[tuple[object, ...]]]:
    """Return every part of the schema with its SQL, and every row of every table."""
    with closing(sqlite3.connect(path)) as connection:
        schema = connection.execute("SELECT name, type, sql FROM sqlite_master").fetchall()
        return {
            name: [
                (kind, sql),
                *(connection.execute(f"SELECT * FROM {name}") if kind == "table" else ()),
            ]
            for name, kind, sql in schema
        }


def files(folder: Path) -> list[str]:
    """Return the names of what is in a folder."""
    return sorted(path.name for path in folder.iterdir())


def fingerprint(path: Path) -> str:
    """Return a hash of a file."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


@pytest_twisted.ensureDeferred
async def test_a_new_database_is_buildbots_with_our_tables_and_indexes(
    opening: Opener, path: Path
) -> None:
    """It can go the other way: a Buildbot 4.3 master finds its revision."""
    database = await opening()

    found = content(path)
    assert found["alembic_version"][1:] == [("067",)]
    assert {index.name for index in indexes} <= set(found)
    assert set(metadata.tables) | set(own.tables) <= set(found)
    assert found["buildapi_log"][1:] == [(1, database.identity, 0, 0)]


@pytest_twisted.ensureDeferred
async def test_a_buildbot_database_gets_our_tables_and_nothing_else(
    opening: Opener, path: Path
) -> None:
    """What was there is there as it was; no index is added without being asked for."""
    a_buildbot_database(path)
    before = content(path)
    database = await opening()
    await database.close()
    after = content(path)

    assert {name: after[name] for name in before} == before
    added = {n for n in set(after) - set(before) if not n.startswith("sqlite_autoindex_buildapi_")}
    assert added == {
        *own.tables,
        *(index.name for table in own.tables.values() for index in table.indexes),
    }


@pytest_twisted.ensureDeferred
async def test_a_database_keeps_its_identity(opening: Opener) -> None:
    """The log is the same log after a restart, and goes on where it ended."""
    first = await opening()
    await first.add("a")
    await first.close()
    second = await opening()
    await second.add("b")

    assert second.identity == first.identity
    assert second.delivered == [2]
    assert second.seen.is_sound()


@pytest.mark.parametrize("journal_mode", ["delete", "wal"])
@pytest_twisted.ensureDeferred
async def test_reading_only_changes_no_byte(opening: Opener, path: Path, journal_mode: str) -> None:
    """Whether or not the database has a WAL; there is no log then, and nothing can be written."""
    a_buildbot_database(path, journal_mode=journal_mode)
    before = fingerprint(path), content(path)
    database = await opening(read_only=True)

    assert database.identity is None
    count = "SELECT count(*) FROM masters"
    assert await database.read(lambda reader: reader.connection.execute(count).fetchone()) == (1,)
    with pytest.raises(CannotOpen, match="read-only"):
        await database.add("a")
    await database.close()
    assert (fingerprint(path), content(path)) == before


@pytest_twisted.ensureDeferred
async def test_what_a_killed_master_left_in_its_wal_is_read(opening: Opener, path: Path) -> None:
    """Reading only, too; and neither file changes by it."""
    database = await opening()
    await database.add("a")
    # The same files, as they are at this moment, without their owner.
    left = path.with_name("left.sqlite")
    wal = left.with_name("left.sqlite-wal")
    shutil.copy(path, left)
    shutil.copy(path.with_name("state.sqlite-wal"), wal)
    before = fingerprint(left), fingerprint(wal)
    reader = await opening(url=f"sqlite:///{left}", read_only=True)

    assert reader.identity == database.identity
    assert await reader.read(eventlog.newest) == 1
    await reader.close()
    assert (fingerprint(left), fingerprint(wal)) == before


@pytest_twisted.ensureDeferred
async def test_a_reader_beside_a_writer_sees_what_it_writes(opening: Opener) -> None:
    """A second server may read, and follow the log."""
    writer = await opening()
    reader = await opening(read_only=True)
    await writer.add("a")

    assert reader.inline("newest", eventlog.newest) == 1
    events = await reader.read(lambda reader: eventlog.stored(reader, 0, 10))
    assert [event.topic for event in events] == ["master.1.new"]


@pytest_twisted.ensureDeferred
async def test_a_reader_cannot_write(opening: Opener) -> None:
    """Not even by mistake, and not even beside a writer."""
    database = await opening()

    def writes(reader: Reader) -> None:
        reader.connection.execute("DELETE FROM masters")

    with pytest.raises(TooLarge):
        database.inline("writes", writes)
    with pytest.raises(Unavailable, match="readonly"):
        await database.read(writes)


READS = """
import os, sys
from buildapi.db.systems import connector

if os.getuid() == 0:
    os.setuid(65534)
target = connector(sys.argv[1], read_only=True, busy_timeout_s=0)
target.check()
reader = target.reader(lambda: False, 1, patient=False)
print(reader.connection.execute("SELECT name FROM masters").fetchall())
"""


@pytest.mark.parametrize("journal_mode", ["delete", "wal"])
def test_a_database_in_a_folder_without_write_permission_can_be_read(journal_mode: str) -> None:
    """Where SQLite can't make the files that it wants beside one with a WAL."""
    folder = Path(tempfile.mkdtemp())
    try:
        a_buildbot_database(folder / "state.sqlite", journal_mode=journal_mode)
        (folder / "state.sqlite").chmod(0o444)
        folder.chmod(0o555)
        done = subprocess.run(
            [sys.executable, "-c", READS, f"sqlite:///{folder / 'state.sqlite'}"],
            capture_output=True,
            text=True,
            check=False,
        )

        assert (done.stderr, done.stdout) == ("", "[('m1',)]\n")
        assert files(folder) == ["state.sqlite"]
    finally:
        folder.chmod(0o755)
        shutil.rmtree(folder)


@pytest_twisted.ensureDeferred
async def test_another_revision_is_refused_unchanged(opening: Opener, path: Path) -> None:
    """The sentence has both."""
    a_buildbot_database(path, revision="068")
    before = fingerprint(path)

    with pytest.raises(CannotOpen, match=r"revision 068; buildapi needs 067"):
        await opening()
    assert fingerprint(path) == before


@pytest_twisted.ensureDeferred
async def test_somebody_elses_database_is_refused_unchanged(opening: Opener, path: Path) -> None:
    """A browser's bookmarks are no build master's state."""
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("CREATE TABLE bookmarks (url)")
    before = fingerprint(path)

    with pytest.raises(CannotOpen, match="no Buildbot database"):
        await opening()
    assert fingerprint(path) == before


@pytest.mark.parametrize("text", ["These are no tables.\n" * 100, "short"])
@pytest_twisted.ensureDeferred
async def test_a_file_that_is_no_database_is_refused_unchanged(
    opening: Opener, path: Path, text: str
) -> None:
    """Whoever owns it has it still."""
    path.write_text(text)

    with pytest.raises(CannotOpen, match="not a database"):
        await opening()
    assert path.read_text() == text


@pytest_twisted.ensureDeferred
async def test_what_cannot_hold_a_database_is_refused(opening: Opener, path: Path) -> None:
    """A folder in its place, no folder for it, and nothing to read where only reading is wanted."""
    with pytest.raises(CannotOpen, match="there is no database"):
        await opening(read_only=True)
    assert not path.exists()
    path.mkdir()
    with pytest.raises(CannotOpen, match="is a directory"):
        await opening()
    path.rmdir()
    path.parent.rmdir()
    with pytest.raises(CannotOpen, match="does not exist"):
        await opening()
    assert not path.parent.exists()


OPENS = """
import sys
from buildapi.db.systems import connector
from buildapi.errors import CannotOpen

target = connector(sys.argv[1], read_only=False, busy_timeout_s=0)
try:
    target.lock("the other one")
    print("locked", flush=True)
    sys.stdin.readline()
except CannotOpen as error:
    print(error)
"""


@contextmanager
def another_writer(path: Path) -> Iterator[subprocess.Popen[str]]:
    """Run a process that wants to be the writer; it stays so until the block ends."""
    command = [sys.executable, "-c", OPENS, f"sqlite:///{path}"]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        yield process
        process.kill()


def answer(process: subprocess.Popen[str]) -> str:
    """Return the line that a process printed."""
    assert process.stdout is not None
    return process.stdout.readline().strip()


@pytest_twisted.ensureDeferred
async def test_a_second_writing_process_is_kept_out(opening: Opener, path: Path) -> None:
    """The sentence names the first one, which does not notice."""
    database = await opening()

    with another_writer(path) as process:
        sentence = answer(process)
    assert f"is being written by a test (process {os.getpid()} on " in sentence
    assert await database.add("a") == 1


@pytest_twisted.ensureDeferred
async def test_a_killed_writer_is_replaced_at_once(opening: Opener, path: Path) -> None:
    """Its lock died with it; until then its name was known."""
    with another_writer(path) as process:
        assert answer(process) == "locked"
        with pytest.raises(CannotOpen, match="is being written by the other one"):
            await opening()

    database = await opening()
    assert await database.add("a") == 1


@pytest_twisted.ensureDeferred
async def test_another_name_of_the_file_is_no_way_around_the_lock(
    opening: Opener, path: Path
) -> None:
    """Two writers would tear the log apart."""
    await opening()
    link = path.with_name("link.sqlite")
    link.symlink_to(path)

    with another_writer(link) as process:
        assert "is being written by a test" in answer(process)


def hard_link(path: Path, other: Path) -> None:
    """Give a file another name beside its own."""
    other.hardlink_to(path)


@pytest.mark.parametrize("name", [hard_link, Path.rename])
@pytest.mark.parametrize("new", [True, False])
@pytest_twisted.ensureDeferred
async def test_the_file_itself_is_locked_too(
    opening: Opener, path: Path, name: Callable[[Path, Path], object], new: bool
) -> None:
    """Whatever it is called by another process, in whatever folder, and whoever made it."""
    if not new:
        a_buildbot_database(path)
    database = await opening()
    (path.parent / "elsewhere").mkdir()
    other = path.parent / "elsewhere" / "other.sqlite"
    name(path, other)

    with another_writer(other) as process:
        assert "is being written by another process under another name" in answer(process)
    assert await database.add("a")
    await database.close()
    with another_writer(other) as process:
        assert answer(process) == "locked"


@pytest_twisted.ensureDeferred
async def test_who_has_a_hard_link_is_respected(opening: Opener, path: Path) -> None:
    """Until it dies; a start that was refused leaves nothing locked."""
    a_buildbot_database(path)
    link = path.with_name("link.sqlite")
    link.hardlink_to(path)
    with another_writer(link) as process:
        assert answer(process) == "locked"
        with pytest.raises(CannotOpen, match="under another name"):
            await opening()
        with another_writer(path.with_name("third.sqlite")) as third:
            assert answer(third) == "locked"

    database = await opening()
    assert await database.add("a")


@pytest_twisted.ensureDeferred
async def test_where_no_socket_may_be_made_one_lock_is_enough(
    opening: Opener, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A sandbox may forbid them."""

    def forbidden(*_: object) -> None:
        raise PermissionError

    monkeypatch.setattr(socket, "socket", forbidden)
    database = await opening()

    assert await database.add("a") == 1
    with another_writer(path) as process:
        assert "is being written by a test" in answer(process)


@pytest_twisted.ensureDeferred
async def test_a_start_that_failed_leaves_the_lock_free(opening: Opener, path: Path) -> None:
    """Once the cause is mended, the next try succeeds."""
    path.write_text("no database")
    with pytest.raises(CannotOpen):
        await opening()
    path.unlink()

    assert await (await opening()).add("a") == 1


@pytest_twisted.ensureDeferred
async def test_what_was_to_be_written_fails_if_it_cannot_be_opened(
    opening: Opener, path: Path
) -> None:
    """It does not wait forever."""
    database = await opening()
    await database.close()
    path.write_text("no database")
    another = type(database)(f"sqlite:///{path}", Events())
    early = another.add("a")

    with pytest.raises(CannotOpen):
        await another.open()
    with pytest.raises(Unavailable):
        await early


@pytest_twisted.ensureDeferred
async def test_a_locked_database_is_refused_with_a_sentence(opening: Opener, path: Path) -> None:
    """After the wait that is set; and it can be opened when the lock is gone."""
    a_buildbot_database(path)
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")

        with pytest.raises(CannotOpen, match="database is locked"):
            await opening(busy_timeout_s=0.05)
        other.execute("ROLLBACK")
    assert await (await opening()).add("a") == 2


@pytest_twisted.ensureDeferred
async def test_it_stays_in_its_place_when_the_process_moves(
    opening: Opener, path: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """A daemon changes its directory; threads open their connections when they need them."""
    monkeypatch.chdir(tmp_path)
    database = await opening(url="sqlite:///state.sqlite")
    await database.add("a")
    monkeypatch.chdir("/")

    count = "SELECT count(*) FROM masters"
    assert await database.read(lambda reader: reader.connection.execute(count).fetchone()) == (1,)
    assert path.exists()


@pytest_twisted.ensureDeferred
async def test_a_clean_close_leaves_one_file_and_a_lock(opening: Opener, path: Path) -> None:
    """The WAL has been written back: the file can be copied as it is."""
    database = await opening()
    await database.add("a")
    await database.read(lambda reader: reader.connection.execute("SELECT 1").fetchone())
    await database.close()

    assert files(path.parent) == ["state.sqlite", "state.sqlite.buildapi-lock"]
    copy = shutil.copy(path, path.with_name("copy.sqlite"))
    assert content(Path(copy))["masters"][1][1] == "a"


@pytest.mark.parametrize("url", ["db2://x", "nonsense", "oracle://x"])
def test_what_is_no_supported_url_is_refused(url: str) -> None:
    """Before anything is opened."""
    with pytest.raises(CannotOpen):
        connector(url, read_only=False, busy_timeout_s=0)
