"""A server that goes away, or its connection, at every moment; and who writes after that."""

from __future__ import annotations

import contextlib
import random
import socket
from collections.abc import Awaitable, Callable, Iterator
from threading import Thread
from typing import TYPE_CHECKING, Any, cast

import pytest
import pytest_twisted
import sqlalchemy as sa
from twisted.internet import reactor
from twisted.internet.defer import Deferred, gatherResults
from twisted.internet.interfaces import IReactorThreads
from twisted.internet.threads import deferToThread
from twisted.logger import ILogObserver, LogEvent, formatEvent, globalLogPublisher
from zope.interface import provider

from buildapi.db.transaction import Tx
from buildapi.errors import Unavailable

if TYPE_CHECKING:
    from test.db.conftest import Opened, Opener
    from test.servers import Server

pytestmark = pytest.mark.systems("postgresql", "mariadb")
PRODUCERS = 12


@pytest.fixture
def server(request: pytest.FixtureRequest, system: str) -> Server:
    """Give the server that the test's database is on."""
    found: Server = request.getfixturevalue(system)
    return found


class Relay:
    """
    A way to a server that can be cut.

    cut: "request" loses the next thing that a client says; "answer" lets the server do it, and
    loses what it says of it.  is_open: whether new connections get through.
    """

    def __init__(self, port: int) -> None:
        self.cut: str | None = None
        self.cuts = 0
        self.is_open = True
        self._to = ("127.0.0.1", port)
        self._listening = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listening.getsockname()[1]
        Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        """Take no more connections."""
        # A close alone does not wake the thread that waits in accept.
        self._listening.shutdown(socket.SHUT_RDWR)
        self._listening.close()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = self._listening.accept()
                if not self.is_open:
                    client.close()
                    continue
                server = socket.create_connection(self._to)
                for ends in ((client, server, "request"), (server, client, "answer")):
                    Thread(target=self._pass_on, args=ends, daemon=True).start()

    def _pass_on(self, source: socket.socket, target: socket.socket, what: str) -> None:
        with contextlib.suppress(OSError):
            while (data := source.recv(65536)) and self.cut != what:
                target.sendall(data)
            if data:
                self.cut, self.cuts = None, self.cuts + 1
        for end in (source, target):
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
            end.close()


class AtCommit:
    """What happens just before the next COMMIT."""

    def __init__(self) -> None:
        self.does: Callable[[], None] | None = None

    def now(self) -> None:
        """Do it, once."""
        does, self.does = self.does, None
        if does is not None:
            does()


@pytest.fixture
def at_commit(monkeypatch: pytest.MonkeyPatch) -> AtCommit:
    """Have something happen after the last statement of a transaction."""
    moment, count = AtCommit(), Tx.count

    def counts(tx: Tx, batch: int) -> None:
        count(tx, batch)
        moment.now()

    monkeypatch.setattr(Tx, "count", counts)
    return moment


@pytest.fixture
def relay(url: str) -> Iterator[Relay]:
    """Give a way to the server."""
    relay = Relay(sa.make_url(url).port or 0)
    yield relay
    relay.close()


def through(relay: Relay, url: str) -> str:
    """Return the URL of a database, reached through the relay."""
    return sa.make_url(url).set(port=relay.port).render_as_string(hide_password=False)


@pytest.mark.parametrize(("what", "runs"), [("request", 2), ("answer", 1)])
@pytest_twisted.ensureDeferred
async def test_a_connection_that_is_cut_at_commit_costs_nothing(
    opening: Opener, url: str, relay: Relay, at_commit: AtCommit, what: str, runs: int
) -> None:
    """Before the server heard of it, the batch is run again; after it had done it, it is not."""
    database = await opening(url=through(relay, url))
    ran: list[None] = []

    def body(_: Tx) -> None:
        ran.append(None)

    def cut() -> None:
        relay.cut = what

    release, held = database.held()
    adding: list[Deferred[Any]] = [database.add("a"), database.write(body), database.add("b")]
    release.set()
    await held
    at_commit.does = cut
    await gatherResults(adding)
    await database.add("c")

    assert (relay.cuts, len(ran)) == (1, runs)
    assert database.seen.names() == ["a", "b", "c"]
    assert database.delivered == [1, 2, 3]
    assert database.seen.is_sound()


@pytest.mark.parametrize("what", ["request", "answer"])
@pytest_twisted.ensureDeferred
async def test_who_was_overtaken_in_doubt_says_so_and_writes_no_more(
    opening: Opener, url: str, relay: Relay, at_commit: AtCommit, what: str
) -> None:
    """The counter row tells of another process then: to guess would lose the batch or double it."""
    database = await opening(url=through(relay, url))
    await database.add("a")
    away: Deferred[None] = Deferred()

    def cut() -> None:
        relay.cut, relay.is_open = what, False
        cast("IReactorThreads", reactor).callFromThread(away.callback, None)

    at_commit.does = cut
    doubtful = database.add("b")
    await away
    other = await opening()
    await other.add("c")
    await other.close()
    relay.is_open = True

    with pytest.raises(Unavailable, match="not known: another process has written"):
        await doubtful
    with pytest.raises(Unavailable, match="start this one again"):
        await database.add("d")
    assert database.seen.names() == (["a", "c"] if what == "request" else ["a", "b", "c"])
    assert database.seen.is_sound()
    await database.close()
    assert await (await opening()).add("e")


@pytest_twisted.ensureDeferred
async def test_who_lost_the_lock_does_not_write_beside_the_next_one(
    opening: Opener, server: Server, url: str
) -> None:
    """Nor after it: what it knows is out of date, and it says so until it is started again."""
    database = await opening(busy_timeout_s=0.2)
    await database.add("a")
    server.dismiss(url)
    other = await opening()

    with pytest.raises(Unavailable, match="being written by another session"):
        await database.add("b")
    await other.add("c")
    with pytest.raises(Unavailable, match="being written by another session"):
        await database.add("d")
    await other.close()
    for _ in range(2):
        with pytest.raises(Unavailable, match="another process has written"):
            await database.add("e")
    assert database.seen.names() == ["a", "c"]
    assert database.seen.is_sound()


@pytest_twisted.ensureDeferred
async def test_a_lock_that_another_had_without_writing_is_taken_again(
    opening: Opener, server: Server, url: str
) -> None:
    """Nothing was missed."""
    database = await opening()
    await database.add("a")
    server.dismiss(url)
    other = await opening()
    await other.close()

    await database.add("b")

    assert database.seen.names() == ["a", "b"]
    assert database.delivered == [1, 2]


class Producers:
    """Write until they are told to end."""

    def __init__(self, database: Opened) -> None:
        self.acknowledged: list[str] = []
        self._database = database
        self._ending = False
        self._wanted = 0
        self._reached: Deferred[None] = Deferred()
        self._done = [Deferred.fromCoroutine(self._write(n)) for n in range(PRODUCERS)]

    async def _write(self, producer: int) -> None:
        number = 0
        while not self._ending:
            name = f"{producer}-{number}"
            await self._database.add(name)
            self.acknowledged.append(name)
            number += 1
            if len(self.acknowledged) == self._wanted:
                self._reached.callback(None)

    def more(self, number: int) -> Awaitable[None]:
        """Fire when so many more were acknowledged."""
        self._wanted = len(self.acknowledged) + number
        self._reached = Deferred()
        return self._reached

    async def end(self) -> None:
        """Write no more."""
        self._ending = True
        await gatherResults(self._done)


@pytest_twisted.ensureDeferred
async def test_sessions_and_servers_that_are_killed_at_any_moment_lose_nothing(
    opening: Opener, server: Server, url: str
) -> None:
    """What was acknowledged is there once, events have no hole, and nobody has to come again."""
    database = await opening(busy_timeout_s=60.0)
    producers = Producers(database)
    for trouble in [*[lambda: server.dismiss(url)] * 6, server.kill, server.restart]:
        await producers.more(random.randint(1, 300))
        await deferToThread(trouble)
    await producers.more(PRODUCERS)
    await producers.end()

    assert sorted(database.seen.names()) == sorted(producers.acknowledged)
    assert database.delivered == list(range(1, len(producers.acknowledged) + 1))
    assert database.seen.is_sound()


@pytest_twisted.ensureDeferred
async def test_a_server_that_stays_away_makes_writes_unavailable(
    opening: Opener, server: Server
) -> None:
    """After the time of the setting; then nothing is half-written, and it goes on by itself."""
    told: list[str] = []

    @provider(ILogObserver)
    def observe(event: LogEvent) -> None:
        if event.get("log_namespace", "").endswith("Contact"):
            told.append(formatEvent(event))

    globalLogPublisher.addObserver(observe)
    database = await opening(busy_timeout_s=0.1)
    await database.add("a")
    await deferToThread(server.stop)
    try:
        # Where it is stands in the log, and not in what clients are told.
        with pytest.raises(Unavailable, match=r"again later$"):
            await database.add("b")
        with pytest.raises(Unavailable, match=r"again later$"):
            await database.read(lambda reader: reader.connection.execute("SELECT 1"))
        with pytest.raises(Unavailable, match="the database is not available"):
            await database.answers()
    finally:
        await deferToThread(server.start)

    await database.add("c")
    globalLogPublisher.removeObserver(observe)
    # The log says it once, however many failed.
    name = database.connector.name
    assert [line.partition(": ")[0] for line in told] == [
        f"{name} does not answer",
        f"{name} answers again",
    ]
    assert database.seen.names() == ["a", "c"]
    assert database.delivered == [1, 2]
    assert database.seen.is_sound()
