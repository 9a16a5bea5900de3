"""Following and reading with real threads, files and sockets: what memory cannot show."""

from __future__ import annotations

from collections.abc import AsyncIterator
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any

import pytest_twisted
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from twisted.internet import reactor as the_reactor
from twisted.internet.defer import Deferred, gatherResults
from twisted.internet.endpoints import TCP4ClientEndpoint, connectProtocol
from twisted.internet.protocol import Protocol, connectionDone
from twisted.python.failure import Failure

from buildapi.errors import Conflict
from buildapi.service import BuildAPI
from buildapi.settings import Database, Server, Settings
from buildapi.testing import WebClient, WebSocketClient, a_build, a_log, a_step

reactor: Any = the_reactor
LINE = "x" * 1023 + "\n"


class Socket(Protocol):
    """A TCP connection to a server, as the test kit's clients want one."""

    def __init__(self) -> None:
        self.closed = False
        self._received = b""
        self._arrival: Deferred[None] | None = None

    def send(self, data: bytes) -> None:
        """Give bytes to the server."""
        assert self.transport is not None
        self.transport.write(data)

    def take(self) -> bytes:
        """Return what has come since the last time."""
        taken, self._received = self._received, b""
        return taken

    def arrival(self) -> Deferred[None]:
        """Fire when there is more."""
        arrival: Deferred[None] = Deferred()
        if self._received or self.closed:
            arrival.callback(None)
        else:
            self._arrival = arrival
        return arrival

    def dataReceived(self, data: bytes) -> None:
        """Keep what comes."""
        self._received += data
        self._news()

    def connectionLost(self, reason: Failure = connectionDone) -> None:  # noqa: ARG002  Twisted's
        """Remember it."""
        self.closed = True
        self._news()

    def _news(self) -> None:
        arrival, self._arrival = self._arrival, None
        if arrival is not None:
            arrival.callback(None)


@pytest_twisted.async_yield_fixture
async def api(tmp_path: Path) -> AsyncIterator[BuildAPI]:
    """Serve a database file, on any port."""
    settings = Settings(
        server=Server(listen="tcp:0:interface=127.0.0.1"),
        database=Database(url=f"sqlite:///{tmp_path}/state.sqlite"),
    )
    async with BuildAPI(settings, master="test:/master") as api:
        yield api


async def a_socket(api: BuildAPI) -> Socket:
    """Connect to a server."""
    assert api.port is not None
    port: Any = api.port.getHost()
    connecting: Deferred[Socket] = connectProtocol(
        TCP4ClientEndpoint(reactor, "127.0.0.1", port.port), Socket()
    )
    return await connecting


async def a_client(api: BuildAPI) -> WebSocketClient:
    """Connect to a server's WebSocket."""
    client = WebSocketClient(await a_socket(api))
    await client.opened()
    return client


def cut(client: WebSocketClient) -> None:
    """Break a client's connection."""
    socket: Any = client.connection
    socket.transport.abortConnection()


def lines_of(frames: list[Any], sub: int, first: int) -> str:
    """Return a stream's lines, having checked that none is missing or there twice."""
    parts = [frame for frame in frames if frame.get("sub") == sub and "content" in frame]
    for frame in parts:
        assert frame["first"] == first
        first = frame["next"]
    text = "".join(frame["content"] for frame in parts)
    assert not parts or text.count("\n") == first - parts[0]["first"]
    return text


def ended(frames: list[Any], subs: set[int]) -> bool:
    """Say whether all these streams have come to their end."""
    return subs <= {frame["sub"] for frame in frames if "end" in frame}


class Story:
    """What happens to one log and its followers, nothing waiting for anything."""

    def __init__(self, api: BuildAPI, logid: int, client: WebSocketClient) -> None:
        self.api = api
        self.logid = logid
        self.client = client
        self.written = 0
        self.working: list[Deferred[Any]] = []
        # Where each stream of this client begins.
        self.followed: dict[int, int] = {}
        self.names = count()

    async def append(self, sizes: list[int]) -> None:
        """Append so many lines each."""
        for lines in sizes:
            text = "".join(f"{self.written + i}\n" for i in range(lines))
            self.working.append(self.api.data.updates.appendLog(self.logid, text))
            self.written += lines

    async def compress(self, _: None) -> None:
        """Merge chunks.  Two at a time may meet; one of them then does nothing."""
        compressing = self.api.data.updates.compressLog(self.logid)
        self.working.append(compressing.addErrback(lambda failure: failure.trap(Conflict)))

    async def wait(self, _: None) -> None:
        """Wait for what was begun last."""
        await gatherResults(self.working[-1:])

    async def follow(self, offset: int) -> None:
        """Begin a stream."""
        sub = next(self.names)
        self.followed[sub] = offset
        self.client.send({"cmd": "followLog", "_id": sub, "logid": self.logid, "offset": offset})

    async def drop(self, _: None) -> None:
        """End the newest stream."""
        if self.followed:
            sub, _offset = self.followed.popitem()
            self.client.send({"cmd": "unsubscribe", "_id": "drop", "sub": sub})

    async def vanish(self, _: None) -> None:
        """Let the client go without a word, and another one come."""
        cut(self.client)
        self.followed.clear()
        self.client = await a_client(self.api)

    async def end(self) -> None:
        """Finish the log; check that every stream has every line once."""
        await gatherResults(self.working)
        await self.api.data.updates.finishLog(self.logid)
        contents = await self.api.data.get(f"logs/{self.logid}/contents?limit=1000000")
        whole = contents["content"].splitlines(keepends=True)
        assert whole == [f"{i}\n" for i in range(self.written)]
        frames = await self.client.until(lambda frames: ended(frames, set(self.followed)))
        for sub, first in self.followed.items():
            assert lines_of(frames, sub, first) == "".join(whole[first:])


# Where "from the end" is nobody can know here: negative offsets are tested in memory.
happenings = st.lists(
    st.one_of(
        st.tuples(st.just("append"), st.lists(st.integers(1, 300), min_size=1, max_size=20)),
        st.tuples(st.just("follow"), st.integers(0, 200)),
        st.tuples(st.sampled_from(("compress", "wait", "drop", "vanish")), st.none()),
    ),
    min_size=3,
    max_size=15,
)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(actions=happenings)
@pytest_twisted.ensureDeferred
async def test_each_line_comes_exactly_once(api: BuildAPI, actions: list[tuple[str, Any]]) -> None:
    """While threads write, merge and read, and clients come and go as they like."""
    story = Story(api, await a_log(api), await a_client(api))
    try:
        for action, value in actions:
            await getattr(story, action)(value)
        await story.end()
    finally:
        cut(story.client)


@pytest_twisted.ensureDeferred
async def test_a_reader_that_stops_gets_everything_when_it_reads_on(api: BuildAPI) -> None:
    """The network is full, nothing piles up; later each line comes once."""
    logid = await a_log(api)
    client = await a_client(api)
    assert (await client.asked("followLog", logid=logid))["code"] == 200
    socket: Any = client.connection
    socket.transport.pauseProducing()
    assert api.web is not None
    (served,) = api.web.sockets.open

    for _ in range(40):
        await api.data.updates.appendLog(logid, LINE * 500)
    await api.data.updates.finishLog(logid)
    assert served.outbox.paused
    assert served.outbox.waiting_bytes < 400_000
    assert len(served.transport._tempDataBuffer) < 10

    socket.transport.resumeProducing()
    frames = await client.until(lambda frames: frames and "end" in frames[-1])
    assert "".join(frame.get("content", "") for frame in frames) == LINE * 20_000
    assert frames[-1]["end"]["num_lines"] == 20_000
    cut(client)


@pytest_twisted.ensureDeferred
async def test_a_long_list_is_read_in_the_pool(api: BuildAPI) -> None:
    """More rows than a portion, over a connection that is in no hurry."""
    for i in range(450):
        await api.data.updates.findBuilderId(f"builder-{i}")
    web = WebClient(api)

    for accept in ("application/json", "text/plain"):
        answer = await web.fetch("GET", "/api/v2/builders", {"Accept": accept})
        assert len(answer.json()["builders"]) == 450


@pytest_twisted.ensureDeferred
async def test_calls_are_answered_when_they_are_durable(api: BuildAPI) -> None:
    """Which comes later than the return of the function that took them."""
    await a_step(api)
    body = b'{"jsonrpc": "2.0", "id": 1, "method": "rebuild", "params": {}}'
    headers = {"Content-Type": "application/json"}

    answer = await WebClient(api).fetch("POST", "/api/v2/builds/1", headers, body)

    assert answer.json() == {"jsonrpc": "2.0", "id": 1, "result": [2, {"1": 2}]}


@pytest_twisted.ensureDeferred
async def test_a_page_of_our_own_is_answered_like_any_client(api: BuildAPI) -> None:
    """Its requests have an Origin, and answers that come later."""
    await a_log(api, "a\n")
    headers = {"Origin": "http://127.0.0.1:8010"}

    answer = await WebClient(api).fetch("GET", "/api/v2/logs/1/contents", headers)

    assert answer.json()["logchunks"][0]["content"] == "a\n"
    assert answer.headers["access-control-allow-origin"] == "http://127.0.0.1:8010"


@pytest_twisted.ensureDeferred
async def test_server_sent_events_come_over_a_real_socket(api: BuildAPI) -> None:
    """Chunk by chunk, as things happen; who hangs up is forgotten."""
    before = api.mq.listeners
    socket = await a_socket(api)
    socket.send(b"GET /sse/builds/*/new HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")
    received = b""
    while b"handshake" not in received:
        await socket.arrival()
        received += socket.take()

    await a_step(api)
    while b"event: event" not in received:
        await socket.arrival()
        received += socket.take()

    assert b"transfer-encoding: chunked" in received.lower()
    assert b'data: {"key":["builds","1","new"],"message":{' in received
    assert socket.transport is not None
    assert api.web is not None
    (stream,) = api.web.streams.open
    gone = stream._request.notifyFinish()
    socket.transport.loseConnection()
    await gone.addErrback(lambda _: None)
    assert api.mq.listeners == before


async def test_who_watches_has_what_a_get_answers_under_load(api: BuildAPI) -> None:
    """With writer and readers in threads: long and short lists, while everything changes."""
    updates = api.data.updates
    builds = [await a_build(api) for _ in range(20)]
    paths = ["builds", "builds?order=state_string&limit=5", "builds?complete=false", "builds/3"]
    client = await a_client(api)
    for sub, path in enumerate(paths):
        client.send({"cmd": "watch", "path": path, "_id": sub})
    replies = list(await client.until(lambda frames: len(frames) == len(paths)))
    client.frames.clear()
    changes = [
        updates.setBuildStateString(buildid, f"{buildid * number % 7}")
        for number in range(30)
        for buildid in builds
    ]
    await gatherResults(changes)
    await gatherResults([updates.finishBuild(buildid, 0) for buildid in builds[1:]])
    for reply in replies:
        found = await api.data.get(paths[reply["_id"]])
        wanted = list(found) if isinstance(found, list) else [found]
        rows = dict(zip(reply["ids"], reply["rows"], strict=True))
        has_it = partial(replayed, sub=reply["_id"], rows=rows, wanted=wanted)
        await client.until(has_it)

        assert list(rows.values()) == wanted


def replayed(frames: list[Any], sub: int, rows: dict[Any, Any], wanted: list[Any]) -> bool:
    """Apply the deltas of a stream that have come; say whether it has what is wanted."""
    for frame in [one for one in frames if one.get("sub") == sub]:
        frames.remove(frame)
        for ident in frame.get("leave", ()):
            del rows[ident]
        rows.update(dict(frame.get("update", ())) | dict(frame.get("enter", ())))
        if "order" in frame:
            known = dict(rows)
            rows.clear()
            rows.update((ident, known[ident]) for ident in frame["order"])
    return list(rows.values()) == wanted
