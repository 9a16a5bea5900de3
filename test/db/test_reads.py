"""Reads: at once under a budget, or in a pool; and what becomes of those that nobody wants."""

from __future__ import annotations

import gc
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path
from threading import Event as Flag
from threading import current_thread
from typing import TYPE_CHECKING, Any

import pytest
import pytest_twisted
from twisted.internet.defer import CancelledError, gatherResults
from twisted.internet.task import Clock

from buildapi.db.connect import Reader
from buildapi.db.engine import EXILE_S, MOST_EXILED, TooLarge
from buildapi.errors import CorruptChunk, NoSuchResource, Stopping, Unavailable

if TYPE_CHECKING:
    from test.db.conftest import Opener

# Instructions, and what an embedded database does; of servers: test_server_reads.
pytestmark = pytest.mark.systems("sqlite")

# Counts to a number of rows: 10 rows are small, a million are not.
COUNT = """
WITH RECURSIVE number(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM number WHERE n < {})
SELECT max(n) FROM number
"""
ENDLESS = COUNT.format(10**12)


def counts(to: int) -> Any:
    """Return a read that takes as long as it counts."""
    return lambda reader: reader.connection.execute(COUNT.format(to)).fetchone()[0]


def names(reader: Reader) -> list[str]:
    """Read all names."""
    found = reader.connection.execute("SELECT name FROM masters ORDER BY id").fetchall()
    return [name for (name,) in found]


@pytest_twisted.ensureDeferred
async def test_a_small_read_is_made_at_once(opening: Opener) -> None:
    """Without a thread, and it sees what was just written."""
    database = await opening()
    await database.add("a")

    assert database.inline("names", names) == ["a"]


@pytest_twisted.ensureDeferred
async def test_a_large_read_goes_to_the_pool(opening: Opener) -> None:
    """There it may take as long as it needs."""
    database = await opening()

    with pytest.raises(TooLarge):
        database.inline("count", counts(1_000_000))
    assert await database.read(counts(1_000_000)) == 1_000_000


@pytest_twisted.ensureDeferred
async def test_a_search_in_long_texts_is_large(opening: Opener) -> None:
    """Though it takes few instructions: one of them looks at a whole text."""
    database = await opening()
    search = COUNT.format(1000).replace("max(n)", "sum(instr(hex(zeroblob(100000 + n)), 'x'))")

    with pytest.raises(TooLarge):
        database.inline("search", lambda reader: reader.connection.execute(search).fetchone())


@pytest_twisted.ensureDeferred
async def test_a_collection_of_garbage_makes_no_read_large(opening: Opener) -> None:
    """It takes longer than the whole budget, and may happen in the middle of any read."""
    database = await opening()
    kept: list[object] = [[] for _ in range(200_000)]

    def around(reader: Reader) -> int:
        counts(5_000)(reader)
        gc.collect()
        return int(counts(5_000)(reader))

    assert database.inline("count", around) == 5_000
    assert kept


@pytest_twisted.ensureDeferred
async def test_a_shape_that_was_too_large_goes_to_the_pool_for_ten_seconds(
    opening: Opener,
) -> None:
    """Others are not its fault; after that it gets another chance."""
    database, clock = await opening(), Clock()
    database.seconds = clock.seconds
    with pytest.raises(TooLarge):
        database.inline("count", counts(1_000_000))

    clock.advance(EXILE_S - 0.1)
    with pytest.raises(TooLarge):
        database.inline("count", counts(10))
    assert database.inline("another", counts(10)) == 10
    clock.advance(0.2)
    assert database.inline("count", counts(10)) == 10


@pytest_twisted.ensureDeferred
async def test_who_invents_shapes_fills_no_memory(opening: Opener) -> None:
    """The list of exiles is bounded."""
    database = await opening()

    def too_large(_: Reader) -> None:
        raise TooLarge

    for number in range(MOST_EXILED + 10):
        with pytest.raises(TooLarge):
            database.inline(number, too_large)

    assert len(database._exiled) <= MOST_EXILED


@pytest_twisted.ensureDeferred
async def test_the_budget_is_of_one_read_not_of_a_statement(opening: Opener) -> None:
    """SQLite counts on over the runs of a cached statement: a thousand small runs are small."""
    database = await opening()

    assert {database.inline("count", counts(100)) for _ in range(1000)} == {100}


@pytest_twisted.ensureDeferred
async def test_a_read_that_was_interrupted_leaves_no_snapshot_open(opening: Opener) -> None:
    """Else every later read on the reactor thread would show the past."""
    database = await opening()
    reader = database._inline
    assert reader is not None

    def in_snapshot(reader: Reader) -> None:
        with reader.snapshot():
            reader.connection.execute(ENDLESS)

    def without_end(reader: Reader) -> None:
        # As if the budget had interrupted the COMMIT that ends the snapshot, too.
        reader.connection.execute("BEGIN")
        names(reader)
        reader.connection.execute(ENDLESS)

    for number, work in enumerate([in_snapshot, without_end]):
        with pytest.raises(TooLarge):
            database.inline(work, work)
        await database.add(f"m{number}")

        assert len(database.inline("names", names)) == number + 1


@pytest_twisted.ensureDeferred
async def test_a_read_that_failed_in_the_middle_does_not_hold_its_snapshot(
    opening: Opener,
) -> None:
    """Even while somebody still looks at the error, and so at the open cursor."""
    database = await opening(reader_threads=1)
    for name in "ab":
        await database.add(name)

    def fails(reader: Reader) -> None:
        cursor = reader.connection.execute("SELECT name FROM masters")
        raise CorruptChunk(f"{cursor.fetchone()} is damaged")

    with pytest.raises(CorruptChunk) as inline_error:
        database.inline("fails", fails)
    with pytest.raises(CorruptChunk) as pool_error:
        await database.read(fails)
    await database.add("c")

    assert database.inline("names", names) == ["a", "b", "c"]
    assert await database.read(names) == ["a", "b", "c"]
    assert inline_error.tb
    assert pool_error.tb


@pytest_twisted.ensureDeferred
async def test_a_lock_never_stops_the_reactor(opening: Opener, path: Path) -> None:
    """Who may not wait leaves the read to the pool, which may."""
    database = await opening(busy_timeout_s=0.2)
    # A database in use by others need not have a WAL, and without one writers keep readers out.
    await database.add("a")
    await database.close()
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("PRAGMA journal_mode=DELETE")
        reader = await opening(read_only=True, busy_timeout_s=0.2)
        other.execute("BEGIN EXCLUSIVE")

        with pytest.raises(TooLarge):
            reader.inline("names", names)
        with pytest.raises(Unavailable, match="database is locked"):
            await reader.read(names)
        other.execute("ROLLBACK")
    assert await reader.read(names) == ["a"]


@pytest_twisted.ensureDeferred
async def test_inline_reads_can_be_turned_off(opening: Opener) -> None:
    """For slow disks: then everything is read in threads."""
    database = await opening(inline_reads=False)

    with pytest.raises(TooLarge):
        database.inline("names", names)
    assert await database.read(lambda _: current_thread().name) != current_thread().name


@pytest_twisted.ensureDeferred
async def test_an_error_of_a_read_reaches_who_asked(opening: Opener) -> None:
    """On both ways, as what it is; and the thread goes on."""
    database = await opening()

    def missing(_: Reader) -> None:
        raise NoSuchResource("there is no build 7")

    def wrong(reader: Reader) -> None:
        reader.connection.execute("SELECT locked FROM busy")

    def ends(_: Reader) -> None:
        raise SystemExit

    with pytest.raises(NoSuchResource):
        database.inline("missing", missing)
    with pytest.raises(NoSuchResource):
        await database.read(missing)
    with pytest.raises(TooLarge):
        database.inline("wrong", wrong)
    with pytest.raises(sqlite3.OperationalError, match="no such table"):
        await database.read(wrong)
    for _ in range(3):
        with pytest.raises(SystemExit):
            await database.read(ends)
    assert await database.read(names) == []


@pytest_twisted.ensureDeferred
async def test_text_that_is_no_utf8_is_shown_with_replacements(opening: Opener) -> None:
    """A program wrote it once; to refuse the whole list for it would help nobody."""
    database = await opening()

    def add(tx: Any) -> None:
        tx.connection.execute(
            "INSERT INTO masters (name, name_hash, active, last_active)"
            " VALUES (CAST(x'61ff62' AS TEXT), 'x', 0, 0)"
        )

    await database.write(add)

    with pytest.raises(TooLarge):
        database.inline("names", names)
    assert await database.read(names) == ["a\ufffdb"]
    assert await database.write(names) == ["a\ufffdb"]


@pytest_twisted.ensureDeferred
async def test_a_read_that_nobody_waits_for_is_interrupted(opening: Opener) -> None:
    """A client that went away occupies no thread: here there is only one."""
    database = await opening(reader_threads=1)
    endless = database.read(lambda reader: reader.connection.execute(ENDLESS).fetchone())
    endless.cancel()

    with pytest.raises(CancelledError):
        await endless
    assert await database.read(counts(10)) == 10


@pytest_twisted.ensureDeferred
async def test_a_read_that_nobody_waits_for_any_more_is_not_begun(opening: Opener) -> None:
    """While it waited for its thread, its client went away."""
    database = await opening(reader_threads=1)
    begun = Flag()
    release, occupied = database.occupied()
    unwanted = database.read(lambda _: begun.set())
    unwanted.cancel()
    release.set()
    await occupied

    with pytest.raises(CancelledError):
        await unwanted
    assert await database.read(counts(10)) == 10
    assert not begun.is_set()


@pytest_twisted.ensureDeferred
async def test_reads_that_were_accepted_are_finished_at_the_close(opening: Opener) -> None:
    """Those that come later are refused, and open nothing again."""
    database = await opening(reader_threads=1)
    release, occupied = database.occupied()
    waiting = [database.read(names) for _ in range(3)]
    closing_it = database.close()

    with pytest.raises(Unavailable, match="not open"):
        await database.read(names)
    release.set()
    await closing_it
    assert await gatherResults([occupied, *waiting]) == [None, [], [], []]
    with pytest.raises(TooLarge):
        database.inline("names", names)


@pytest_twisted.ensureDeferred
async def test_a_write_that_follows_from_an_accepted_read_is_finished(opening: Opener) -> None:
    """A long text is cut in the pool on its way into a log."""
    database = await opening(reader_threads=1)
    release, occupied = database.occupied()
    following = occupied.addCallback(lambda _: database.add("a"))
    closing_it = database.close()
    release.set()

    assert await following == 1
    await closing_it


@pytest_twisted.ensureDeferred
async def test_a_close_that_is_cancelled_interrupts_what_is_read(opening: Opener) -> None:
    """And closes for good soon after."""
    database = await opening(reader_threads=1)
    endless = database.read(lambda reader: reader.connection.execute(ENDLESS).fetchone())
    waiting = database.read(names)
    closing_it = database.close()
    closing_it.cancel()

    with pytest.raises(CancelledError):
        await closing_it
    with pytest.raises(Unavailable):
        await endless
    with pytest.raises(Stopping):
        await waiting
    await database.close()


HANGS = """
import sys
from buildapi.db.engine import Database
from buildapi.settings import Database as Settings
from twisted.internet import reactor
from twisted.internet.defer import Deferred, TimeoutError, ensureDeferred
from twisted.internet.task import react
import threading

async def main(reactor):
    database = Database(Settings(url=sys.argv[1]), reactor, lambda _: None, None)
    await database.open()
    forever = threading.Event()
    for occupy in (database.read, database.write):
        begun = threading.Event()
        occupy(lambda _: (begun.set(), forever.wait())).addErrback(lambda _: None)
        begun.wait()
    try:
        await database.close().addTimeout(0.1, reactor)
    except TimeoutError:
        print("gave up")

react(lambda reactor: ensureDeferred(main(reactor)))
"""


def test_a_process_ends_though_its_threads_do_not(path: Path) -> None:
    """A reader and the writer wait forever; the deadline is the deadline."""
    done = subprocess.run(
        [sys.executable, "-c", HANGS, f"sqlite:///{path}"],
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )

    assert (done.returncode, done.stdout, done.stderr) == (0, "gave up\n", "")
