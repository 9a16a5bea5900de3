"""Statements that the reactor thread asks a server, and who finds out about those that fail."""

from __future__ import annotations

from threading import Event as Flag
from typing import TYPE_CHECKING, Any

import pytest
import pytest_twisted
from twisted.internet.defer import CancelledError, Deferred, gatherResults, maybeDeferred

from buildapi.data.api import ROUTER
from buildapi.data.fetch import Plain
from buildapi.data.query import EVERYTHING
from buildapi.data.sql import plan, shape_of
from buildapi.db.connect import Compiled, Params, Reader
from buildapi.db.engine import QUICK
from buildapi.db.pipeline import MOST_PREPARED, Pipeline
from buildapi.db.systems import connector
from buildapi.errors import BadArgument, Unavailable

if TYPE_CHECKING:
    from test.db.conftest import Opened, Opener
    from test.servers import Server

pytestmark = pytest.mark.systems("postgresql")


@pytest.fixture
def server(postgresql: Server) -> Server:
    """Give the server that the tests' databases are on."""
    return postgresql


class Asking:
    """Asks a database single statements as the layer above does."""

    def __init__(self, database: Opened) -> None:
        self.database = database

    def __call__(self, sql: str, **params: Any) -> Deferred[Any]:
        """Return the one value that a statement gives."""
        ready = self.ready(sql)

        def work(reader: Reader, quick: bool) -> Any:  # noqa: ARG001
            ((value,),) = reader.run_all(ready, params)
            return value

        return maybeDeferred(
            self.database.near, sql, work, small=True, all_of_it=(ready, dict(params))
        )

    @staticmethod
    def ready(sql: str) -> Compiled:
        """Return a statement with ``%(name)s`` in it as the database takes it."""
        made = Compiled.__new__(Compiled)
        made.sql, made.constants = sql, {}
        return made

    def directly(self, sql: str, **params: Any) -> Deferred[Any]:
        """Fire with all rows, or None if the pipeline has no answer."""
        pipeline = self.database._pipeline
        assert pipeline is not None
        answer = pipeline.ask(self.ready(sql), params)
        assert answer is not None
        return answer

    async def session(self) -> int:
        """Return the number of the session of the pipeline."""
        ((found,),) = await self.directly("SELECT pg_backend_pid()")
        assert isinstance(found, int)
        return found


async def piped(database: Opened) -> Asking:
    """Return what asks, as soon as the reactor thread has a session for it."""
    ask = Asking(database)
    assert database._pipeline is not None
    while (found := database._pipeline.ask(ask.ready("SELECT 1"), {})) is None:
        await database.read(lambda _: None)
    assert await found == [(1,)]
    return ask


@pytest_twisted.ensureDeferred
async def test_a_single_statement_waits_for_no_thread(opening: Opener) -> None:
    """It is answered while every thread is busy."""
    database = await opening(quick_threads=1)
    ask = await piped(database)
    begun, go_on = Flag(), Flag()

    def wait(_: Reader) -> bool:
        begun.set()
        return go_on.wait(20)

    busy = database.read(wait, QUICK)
    assert begun.wait(20)

    assert await ask("SELECT 41 + %(more)s::BIGINT", more=1) == 42
    assert not busy.called
    go_on.set()
    assert await busy


@pytest_twisted.ensureDeferred
async def test_everyone_gets_his_own_answer(opening: Opener) -> None:
    """However many ask at once, whatever, and though some of it is wrong."""
    ask = await piped(await opening())
    sql = "SELECT 100 / %(n)s::BIGINT", "SELECT %(n)s::BIGINT || '%%'"
    asked = [ask(sql[n % 2], n=n) for n in range(1, 101)]
    wrong = [ask(sql[0], n=0), ask("SELECT nothing")]
    asked += [ask(sql[n % 2], n=n) for n in range(1, 101)]

    expected = [f"{n}%" if n % 2 else 100 // n for n in range(1, 101)]
    assert await gatherResults(asked) == [*expected, *expected]
    with pytest.raises(BadArgument, match="division by zero"):
        await wrong[0]
    with pytest.raises(Exception, match='column "nothing" does not exist'):
        await wrong[1]


@pytest_twisted.ensureDeferred
async def test_every_single_object_can_be_asked_for(opening: Opener) -> None:
    """The server knows the types of all values, wherever they stand."""
    ask = await piped(await opening())
    dialect = ask.database.connector.dialect
    for route in ROUTER.routes:
        if route.kind != "one" or issubclass(route.resource, Plain):
            continue
        shape = shape_of(
            route.resource, route.pattern, EVERYTHING, None, single=True, with_seq=True
        )
        page = plan(shape, dialect).page
        names = [part.partition(":") for part in route.pattern.split("/") if ":" in part]
        params: Params = {name: 1 if kind == "n" else "x" for kind, _, name in names}

        assert await ask.directly(page.sql, **page.bound(params)) == [], route.pattern


@pytest_twisted.ensureDeferred
async def test_what_takes_too_long_is_read_where_it_may(opening: Opener) -> None:
    """The server stops it; the session is free for others at once."""
    ask = await piped(await opening())
    session = await ask.session()
    slow = ask("SELECT 'slow' FROM pg_sleep(0.2)")

    assert await ask.session() == session
    assert await slow == "slow"


@pytest_twisted.ensureDeferred
async def test_a_session_that_is_killed_costs_nobody_his_answer(
    opening: Opener, server: Server, url: str
) -> None:
    """What was asked of it is asked again, and so is what comes next; on a new one some day."""
    ask = await piped(await opening())
    session = await ask.session()
    asked = [ask("SELECT %(n)s::BIGINT", n=n) for n in range(20)]
    server.dismiss(url)
    asked += [ask("SELECT %(n)s::BIGINT", n=n) for n in range(20)]

    assert await gatherResults(asked) == [*range(20), *range(20)]
    again = await piped(ask.database)
    assert await again.session() != session


@pytest_twisted.ensureDeferred
async def test_a_server_that_went_away_is_unavailable_until_it_is_back(
    opening: Opener, server: Server
) -> None:
    """Nobody waits for a session that can't be."""
    ask = await piped(await opening())
    server.stop()

    with pytest.raises(Unavailable):
        await ask("SELECT 1")
    server.start()
    assert await ask("SELECT 1") == 1
    assert await piped(ask.database)


@pytest_twisted.ensureDeferred
async def test_who_does_not_wait_disturbs_nobody(opening: Opener) -> None:
    """An answer that nobody wants any more is passed over."""
    ask = await piped(await opening())
    asked = [ask("SELECT %(n)s::BIGINT", n=n) for n in range(3)]
    asked[1].cancel()

    with pytest.raises(CancelledError):
        await asked[1]
    assert [await asked[0], await asked[2]] == [0, 2]


@pytest_twisted.ensureDeferred
async def test_the_server_remembers_a_limited_number_of_statements(opening: Opener) -> None:
    """Whoever invents shapes fills no memory there; each is answered."""
    ask = await piped(await opening())
    kinds = range(2 * MOST_PREPARED + 10)
    asked = [ask(f"SELECT {n} + %(more)s::BIGINT", more=1) for n in kinds]

    assert await gatherResults(asked) == [n + 1 for n in kinds]
    for _ in range(2 * MOST_PREPARED):
        assert await ask.directly("SELECT 1 / %(n)s::BIGINT", n=0) is None
    count = "SELECT count(*) FROM pg_prepared_statements"
    ((remembered,),) = await ask.directly(count)
    assert 0 < remembered <= MOST_PREPARED


@pytest_twisted.ensureDeferred
async def test_a_table_that_was_changed_is_read_as_it_is(
    opening: Opener, server: Server, url: str
) -> None:
    """A prepared statement that does not fit any more is prepared anew."""
    ask = await piped(await opening())
    everything, name = "SELECT masters FROM masters", "changed"
    await ask.database.add(name)
    whole = "SELECT * FROM masters"
    (before,) = await ask.directly(whole)
    with server.session(url) as run:
        run("ALTER TABLE masters ADD COLUMN colour text")
    try:
        assert await ask.directly(whole) is None
        (after,) = await ask.directly(whole)
    finally:
        with server.session(url) as run:
            run("ALTER TABLE masters DROP COLUMN colour")

    assert after == (*before, None)
    assert name in await ask(everything)


@pytest_twisted.ensureDeferred
async def test_values_and_rows_may_be_larger_than_what_is_sent_at_once(opening: Opener) -> None:
    """They go and come bit by bit, in order with what is small."""
    ask = await piped(await opening(statement_timeout_s=30))
    long = "x" * 5_000_000
    sql = "SELECT %(text)s::TEXT || %(text)s"
    asked = [ask.directly(sql, text=text) for text in (long, "y", long, "z")]

    found = await gatherResults(asked)
    assert [rows if rows is None else len(rows[0][0]) for rows in found][1::2] == [2, 2]
    assert all(rows is None or rows == [(2 * long,)] for rows in found[::2])


@pytest.mark.parametrize("text", ["\0", "\udc80"])
@pytest_twisted.ensureDeferred
async def test_values_that_the_server_cannot_have_are_not_sent(opening: Opener, text: str) -> None:
    """A thread says what is wrong with them; others are not disturbed."""
    ask = await piped(await opening())

    assert await ask.directly("SELECT %(text)s::TEXT", text=text) is None
    assert await ask("SELECT %(text)s::TEXT", text="fine") == "fine"


@pytest_twisted.ensureDeferred
async def test_what_was_asked_is_answered_at_the_close(opening: Opener) -> None:
    """And nothing that is asked after it."""
    ask = await piped(await opening())
    asked = [ask("SELECT %(n)s::BIGINT", n=n) for n in range(20)]
    closed = ask.database.close()

    with pytest.raises(Unavailable, match="not open"):
        await ask("SELECT 1")
    assert await gatherResults(asked) == list(range(20))
    await closed


@pytest_twisted.ensureDeferred
async def test_a_close_waits_for_a_session_that_is_being_opened(
    opening: Opener, server: Server
) -> None:
    """No connection is left behind."""
    database = await opening()
    asked = Asking(database)("SELECT 1")
    await database.close()

    assert await asked == 1
    others = "SELECT count(*) FROM pg_stat_activity WHERE usename = 'buildapi'"
    while server.run(others) != [(0,)]:
        pass


@pytest_twisted.ensureDeferred
async def test_a_close_that_is_cancelled_gives_up_what_was_asked(opening: Opener) -> None:
    """Whoever asked is told so."""
    ask = await piped(await opening())
    slow = [ask("SELECT 1 FROM pg_sleep(0.04)") for _ in range(50)]
    closed = ask.database.close()
    closed.cancel()

    for one in slow:
        with pytest.raises(Unavailable):
            await one
    with pytest.raises(CancelledError):
        await closed
    await ask.database.close()


@pytest_twisted.ensureDeferred
async def test_it_can_be_turned_off(opening: Opener) -> None:
    """Then all reads are made by threads."""
    database = await opening(inline_reads=False)

    assert database._pipeline is None
    assert await Asking(database)("SELECT 1") == 1


def test_a_reactor_without_sockets_has_none() -> None:
    """Then all reads are made by threads."""
    assert not Pipeline.is_possible(object())


def test_other_systems_have_none() -> None:
    """Their drivers wait for each answer."""
    made = connector("mariadb://nobody@127.0.0.1/none", read_only=True, busy_timeout_s=1)

    assert made.pipeline(object(), 1) is None
