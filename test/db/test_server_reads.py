"""Reads on a server: what stops them, what they see, and who waits for whom."""

from __future__ import annotations

from collections.abc import Callable
from threading import Event as Flag
from threading import Semaphore
from typing import TYPE_CHECKING, Any

import pytest
import pytest_twisted
import sqlalchemy as sa
from twisted.internet.defer import CancelledError, Deferred, gatherResults
from twisted.internet.threads import deferToThread

from buildapi.db.connect import Reader, compiled
from buildapi.db.engine import LISTS, LOGS, QUICK
from buildapi.db.tables import masters
from buildapi.errors import NoSuchResource, TooSlow, Unavailable

if TYPE_CHECKING:
    from test.db.conftest import Opener
    from test.servers import Server

pytestmark = pytest.mark.systems("postgresql", "mariadb")

SLEEP = {"postgresql": "SELECT pg_sleep(1000)", "mariadb": "SELECT SLEEP(1000)"}
SESSION = {"postgresql": "SELECT pg_backend_pid()", "mariadb": "SELECT CONNECTION_ID()"}
SLEEPING = {
    "postgresql": "SELECT count(*) FROM pg_stat_activity"
    " WHERE state = 'active' AND query = 'SELECT pg_sleep(1000)'",
    "mariadb": "SELECT count(*) FROM information_schema.processlist"
    " WHERE info = 'SELECT SLEEP(1000)'",
}

Work = Callable[[Reader], Any]


@pytest.fixture
def server(request: pytest.FixtureRequest, system: str) -> Server:
    """Give the server that the test's database is on."""
    found: Server = request.getfixturevalue(system)
    return found


@pytest.fixture
def sleeps(system: str) -> Work:
    """Give a read that takes far too long."""
    return lambda reader: reader.connection.execute(SLEEP[system]).fetchall()


@pytest.fixture
def session(system: str) -> Work:
    """Give a quick read: the number of the session."""
    return lambda reader: reader.connection.execute(SESSION[system]).fetchone()[0]


@pytest.fixture
def sleeping(server: Server, system: str) -> Callable[[int], Deferred[None]]:
    """Return what waits until so many of these reads run on the server."""

    def wait(number: int) -> None:
        while server.run(SLEEPING[system]) != [(number,)]:
            pass

    return lambda number: deferToThread(wait, number)


def names(reader: Reader) -> list[str]:
    """Read all names."""
    found = reader.connection.execute("SELECT name FROM masters ORDER BY id").fetchall()
    return [name for (name,) in found]


@pytest_twisted.ensureDeferred
async def test_a_session_that_was_killed_is_mended_by_the_next_read(
    opening: Opener, server: Server, url: str, session: Work
) -> None:
    """Nobody hears of it."""
    database = await opening(reader_threads=1)
    before = await database.read(session)
    server.dismiss(url)

    assert await database.read(session) != before


@pytest_twisted.ensureDeferred
async def test_a_session_that_is_killed_in_a_snapshot_is_mended_too(
    opening: Opener, server: Server, url: str
) -> None:
    """The whole work is done once more, in a snapshot of its own."""
    database = await opening(reader_threads=1)
    await database.add("a")
    runs: list[list[str]] = []

    def work(reader: Reader) -> list[str]:
        with reader.snapshot():
            runs.append(names(reader))
            if len(runs) == 1:
                server.dismiss(url)
            return names(reader)

    assert await database.read(work) == ["a"]
    assert runs == [["a"], ["a"]]


@pytest_twisted.ensureDeferred
async def test_what_takes_too_long_is_refused(opening: Opener, sleeps: Work, session: Work) -> None:
    """After the time of the setting; the server works on it no more, and the session goes on."""
    database = await opening(reader_threads=1, statement_timeout_s=0.1)
    before = await database.read(session)

    with pytest.raises(TooSlow, match=r"longer than 0\.1 seconds; ask for less"):
        await database.read(sleeps)
    assert await database.read(session) == before


@pytest_twisted.ensureDeferred
async def test_a_read_that_nobody_waits_for_is_stopped_on_the_server(
    opening: Opener, sleeps: Work, session: Work, sleeping: Callable[[int], Deferred[None]]
) -> None:
    """The only thread is free at once, with the same session."""
    database = await opening(reader_threads=1)
    before = await database.read(session)
    slow = database.read(sleeps)
    await sleeping(1)
    slow.cancel()

    with pytest.raises(CancelledError):
        await slow
    assert await database.read(session) == before
    await sleeping(0)


@pytest_twisted.ensureDeferred
async def test_a_cancel_never_hits_another_read_nor_misses_its_own(
    opening: Opener, sleeps: Work, session: Work
) -> None:
    """Wherever the query is at that moment: not sent, on its way, or running."""
    database = await opening(reader_threads=1)
    await database.read(session)
    for number in range(40):
        begun = Flag()

        def begins(reader: Reader, begun: Flag = begun) -> None:
            begun.set()
            sleeps(reader)

        slow = database.read(begins).addErrback(lambda failure: failure.trap(CancelledError))
        if number % 2:
            assert begun.wait(20)
        slow.cancel()
        await slow

        assert await database.read(session)


@pytest_twisted.ensureDeferred
async def test_a_close_that_is_cancelled_stops_what_is_read(
    opening: Opener, sleeps: Work, sleeping: Callable[[int], Deferred[None]]
) -> None:
    """A service that must end ends, and leaves nothing behind on the server."""
    database = await opening(reader_threads=2)
    slow = [database.read(sleeps) for _ in range(2)]
    await sleeping(2)
    closing_it = database.close()
    closing_it.cancel()

    with pytest.raises(CancelledError):
        await closing_it
    for one in slow:
        with pytest.raises(Unavailable):
            await one
    await database.close()
    await sleeping(0)


@pytest_twisted.ensureDeferred
async def test_a_small_read_waits_for_no_other_lane(
    opening: Opener, sleeps: Work, session: Work, sleeping: Callable[[int], Deferred[None]]
) -> None:
    """While every thread for lists and for logs is busy, it is answered."""
    database = await opening(reader_threads=2, log_threads=1)
    slow = [database.read(sleeps, lane) for lane in (LISTS, LISTS, LISTS, LOGS, LOGS)]
    await sleeping(3)

    answer = database.near("session", lambda reader, _: session(reader), small=True)
    assert isinstance(answer, Deferred)
    assert await answer
    assert not any(one.called for one in slow)
    for one in slow:
        one.cancel()
        with pytest.raises(CancelledError):
            await one


@pytest.mark.parametrize("threads", [1, 3])
@pytest_twisted.ensureDeferred
async def test_as_many_small_reads_are_made_at_once_as_there_are_threads(
    opening: Opener, threads: int
) -> None:
    """The setting says how many; the others wait, and are made then."""
    database = await opening(quick_threads=threads)
    begun, go_on = Semaphore(0), Flag()

    def work(_: Reader, quick: bool) -> bool:
        begun.release()
        assert go_on.wait(20)
        return quick

    reads = [_deferred(database.near(n, work, small=True)) for n in range(threads + 2)]
    for _ in range(threads):
        assert await deferToThread(begun.acquire, timeout=20)

    assert database.waiting_reads[QUICK] == 2
    go_on.set()
    assert await gatherResults(reads) == [True] * (threads + 2)


@pytest_twisted.ensureDeferred
async def test_a_small_read_that_is_none_goes_to_the_lists(opening: Opener, system: str) -> None:
    """For ten seconds all of its shape do so; then they get another chance."""
    database = await opening()
    now = 1000.0
    database.seconds = lambda: now
    tried: list[bool] = []

    def work(reader: Reader, quick: bool) -> str:
        tried.append(quick)
        if quick:
            reader.connection.execute(SLEEP[system])
        return "done"

    for _ in range(2):
        assert await _deferred(database.near("shape", work, small=True)) == "done"
    assert tried == [True, False, False]
    now += 11
    assert await _deferred(database.near("shape", work, small=True)) == "done"
    assert tried == [True, False, False, True, False]


def _deferred(found: Any) -> Deferred[Any]:
    assert isinstance(found, Deferred)
    return found


@pytest_twisted.ensureDeferred
async def test_everything_in_a_snapshot_is_of_one_moment(opening: Opener) -> None:
    """A page, its total and the position of the log, whatever is written meanwhile."""
    database = await opening()
    await database.add("a")
    begun, go_on = Flag(), Flag()

    def work(reader: Reader) -> tuple[list[str], int]:
        with reader.snapshot():
            page = names(reader)
            begun.set()
            assert go_on.wait(20)
            (seq,) = reader.connection.execute("SELECT seq FROM buildapi_log").fetchone()
            assert names(reader) == page
            return page, seq

    reading = database.read(work)
    await deferToThread(begun.wait, 20)
    await database.add("b")
    go_on.set()

    assert await reading == (["a"], 1)
    assert await database.read(names) == ["a", "b"]


@pytest_twisted.ensureDeferred
async def test_a_read_that_fails_leaves_no_snapshot_open(opening: Opener, sleeps: Work) -> None:
    """Whether the fault was found by us or by the server: later reads see what came later."""
    database = await opening(reader_threads=1, statement_timeout_s=0.1)

    def missing(reader: Reader) -> None:
        with reader.snapshot():
            names(reader)
            raise NoSuchResource("there is no build 7")

    def slow(reader: Reader) -> None:
        with reader.snapshot():
            names(reader)
            sleeps(reader)

    def wrong(reader: Reader) -> None:
        reader.connection.execute(reader.connector.BEGIN_SNAPSHOT)
        names(reader)
        reader.connection.execute("SELECT nothing FROM nowhere")

    for number, work in enumerate([missing, slow, wrong]):
        with pytest.raises((NoSuchResource, TooSlow, database.connector.Error)):
            await database.read(work)
        await database.add(f"m{number}")

        assert len(await database.read(names)) == number + 1


@pytest_twisted.ensureDeferred
async def test_portions_that_are_not_wanted_any_more_disturb_no_other_read(
    opening: Opener,
) -> None:
    """The cursor is closed, whatever of its rows was left."""
    database = await opening(reader_threads=1)
    for number in range(30):
        await database.add(f"m{number}")

    def some(reader: Reader) -> list[Any]:
        statement = compiled(sa.select(masters.c.name).order_by(masters.c.id), reader.dialect)
        with reader.snapshot():
            portions = reader.portions(statement, {}, 10)
            first = next(portions)
            portions.close()
            return list(first)

    assert len(await database.read(some)) == 10
    assert len(await database.read(names)) == 30


@pytest_twisted.ensureDeferred
async def test_a_reader_cannot_write(opening: Opener) -> None:
    """Not even by mistake."""
    database = await opening()

    def writes(reader: Reader) -> None:
        reader.connection.execute("DELETE FROM masters")

    with pytest.raises(Unavailable, match=r"(?i)read.only"):
        await database.read(writes)


@pytest.mark.systems("mariadb")
@pytest_twisted.ensureDeferred
async def test_a_server_that_cannot_make_its_files_is_in_trouble(
    opening: Opener, server: Server
) -> None:
    """Of a temporary table: the statement is not to blame, and works when the server can."""
    database = await opening()
    await database.add("a")
    temporary = server.directory / "tmp"

    def work(reader: Reader) -> Any:
        # Texts of this length are never sorted in memory.
        query = "SELECT DISTINCT REPEAT(name, 70000) FROM masters"
        return reader.connection.execute(query).fetchall()

    temporary.rename(server.directory / "away")
    try:
        with pytest.raises(Unavailable, match="the database is not available; try again later"):
            await database.read(work)
    finally:
        (server.directory / "away").rename(temporary)

    assert await database.read(work) == [("a" * 70000,)]
