"""One session on every road: who drops out and comes back has the history that the log has."""

from __future__ import annotations

import json
import os
import random
import select
import socket
import subprocess
import sys
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from http.client import IncompleteRead
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import urlencode

import pytest
from twisted.internet.defer import Deferred

from buildapi.mq.event import Event
from buildapi.mq.stream import Stream
from buildapi.mq.topic import matches, parse_pattern, split_topic
from buildapi.service import BuildAPI
from buildapi.settings import Limits, Settings
from buildapi.testing import (
    Connection,
    EventSource,
    WebSocketClient,
    Wire,
    a_build,
    a_log,
    answered,
    in_memory_api,
    result_of,
)
from buildapi.testing.memory import DATABASE
from buildapi.testing.wire import head

PATTERNS = (
    ("#",),
    ("build.#",),
    ("build.*.step.#", "worker.#", "#.newlog"),
    ("builder.*.new", "build.*.finished"),
)
EVENTS = "/api/v2/events"
# How often a master is killed.
KILLS = int(os.environ.get("CRASH_ROUNDS", "3"))


class Cable(Protocol):
    """A connection that can be torn."""

    closed: bool

    def send(self, data: bytes) -> None:
        """Give bytes to the server."""

    def take(self) -> bytes:
        """Return what has come."""

    def arrival(self) -> Deferred[None]:
        """Fire when there is more."""

    def hang_up(self) -> None:
        """Go away without a word."""


class Torn:
    """A connection of which only so many bytes more come through.  ``left``: None is all."""

    def __init__(self, cable: Cable) -> None:
        self.cable = cable
        self.closed = False
        self.left: int | None = None

    def send(self, data: bytes) -> None:
        """Give bytes to the server."""
        self.cable.send(data)

    def take(self) -> bytes:
        """Return what has come, as far as it comes through."""
        taken = self.cable.take()
        self.closed = self.cable.closed
        if self.left is not None:
            taken = taken[: self.left]
            self.left -= len(taken)
        return taken

    def arrival(self) -> Deferred[None]:
        """Fire when there is more."""
        return self.cable.arrival()


class Road(ABC):
    """
    A client that wants every event once, whatever happens to its connections.

    ``history``: what it has; ``position``: up to where.
    """

    def __init__(self, topics: tuple[str, ...]) -> None:
        self.topics = topics
        self.history: list[Any] = []
        self.position = 0

    @abstractmethod
    def go_on(self) -> None:
        """Connect, if need be, and take what has come."""

    @abstractmethod
    def drop(self, bytes_more: int) -> None:
        """Lose the connection, after so many bytes."""

    def hear(self, told: dict[str, Any]) -> None:
        """Take what was told, as every client of positions does: three lines and nothing else."""
        if "seq" in told:
            assert told["seq"] > self.position, "told twice"
            self.history.append(told)
        assert "gap" not in told
        assert "error" not in told
        self.position = told.get("seq") or told.get("synced") or told["bookmark"]


class Wired(Road):
    """One with a connection.  connect: makes one; None if nobody answers."""

    def __init__(self, topics: tuple[str, ...], connect: Callable[[], Cable | None]) -> None:
        super().__init__(topics)
        self.connection: Torn | None = None
        self._connect = connect

    def go_on(self) -> None:
        """Connect, if need be, and take what has come."""
        if self.connection is None:
            cable = self._connect()
            if cable is None:
                return
            self.connection = Torn(cable)
            self.begin(self.connection)
        self.read()
        if self.connection is not None and self.connection.closed:
            self.connection = None

    def drop(self, bytes_more: int) -> None:
        """Lose the connection, after so many bytes."""
        if self.connection is None:
            return
        self.connection.left = bytes_more
        self.read()
        if self.connection is not None:
            self.connection.cable.hang_up()
        self.connection = None

    @abstractmethod
    def begin(self, connection: Connection) -> None:
        """Ask for what follows the position."""

    @abstractmethod
    def read(self) -> None:
        """Take what has come."""


class OverWebSocket(Wired):
    """By ``subscribe``."""

    def begin(self, connection: Connection) -> None:
        """Shake hands."""
        self._ws = WebSocketClient(connection)
        self._asked = False

    def read(self) -> None:
        """Subscribe as soon as that can be done; then take the frames."""
        self._ws.read()
        if self._ws.status is not None and not self._asked:
            self._asked = True
            topics, since = list(self.topics), self.position
            self._ws.send({"cmd": "subscribe", "_id": "s", "topics": topics, "since": since})
            self._ws.read()
        frames, self._ws.frames = self._ws.frames, []
        for frame in frames:
            if frame.pop("sub", None):
                self.hear(frame)
            else:
                assert frame["code"] == 200, frame


class OverEventSource(Wired):
    """By server-sent events, always at the address of the beginning."""

    last_event_id = ""

    def begin(self, connection: Connection) -> None:
        """Ask for the stream."""
        query = urlencode({"topic": self.topics, "since": 0}, doseq=True)
        resumed = {"Last-Event-ID": self.last_event_id} if self.last_event_id else {}
        self._source = EventSource(connection, f"{EVENTS}?{query}", resumed)

    def read(self) -> None:
        """Take the blocks."""
        for _, data in self._source.taken():
            if data is not None:
                self.hear(data)
        self.last_event_id = self._source.last_event_id or self.last_event_id
        assert self._source.status in (None, 200)


class ByPolls(Wired):
    """By one long-poll after the other."""

    def begin(self, connection: Connection) -> None:
        """Ask for what comes."""
        asked = {"topic": self.topics, "after": self.position, "wait": 20, "limit": 7}
        path = f"{EVENTS}?{urlencode(asked, doseq=True)}"
        given = {"Host": "127.0.0.1:8010", "Connection": "close"}
        self._received = b""
        connection.send(head(f"GET {path} HTTP/1.1", given))

    def read(self) -> None:
        """Take the answer, if it is whole."""
        assert self.connection is not None
        self._received += self.connection.take()
        if b"\r\n\r\n" not in self._received:
            return
        try:
            answer = answered(self._received)
        except IncompleteRead:
            return
        assert answer.status == 200, answer.body
        for event in answer.json()["events"]:
            self.hear(event)
        self.position = answer.json()["meta"]["seq"]
        self.connection.cable.hang_up()
        self.connection = None


class InProcess(Road):
    """By ``api.mq.subscribe``."""

    def __init__(self, topics: tuple[str, ...], api: BuildAPI) -> None:
        super().__init__(topics)
        self._api = api
        self._stream: Stream | None = None
        self._coming: Deferred[Event] | None = None

    def go_on(self) -> None:
        """Take event after event, until one has to be waited for."""
        if self._stream is None:
            self._stream = self._api.mq.subscribe(self.topics, self.position)
        while True:
            coming = self._coming or Deferred.fromCoroutine(anext(self._stream))
            if not coming.called:
                self._coming = coming
                return
            self._coming = None
            self.hear(json.loads(result_of(coming).told))
            self.position = self._stream.position

    def drop(self, bytes_more: int) -> None:  # noqa: ARG002  there are no bytes here
        """Close the stream."""
        if self._stream is not None:
            self._stream.close()
            self._stream = None
        if self._coming is not None:
            self._coming.addErrback(lambda failure: failure.trap(StopAsyncIteration))
            self._coming = None


def a_deed(api: BuildAPI, chance: random.Random) -> None:
    """Change something."""
    updates = api.data.updates
    name = f"{chance.randrange(10**9)}"
    match chance.randrange(6):
        case 0:
            result_of(a_build(api, name[:3], name[3:]))
        case 1:
            result_of(a_log(api, "some\nlines\n", finished=chance.random() < 0.5))
        case 2:
            result_of(updates.findWorkerId(name))
        case 3:
            result_of(updates.setBuildProperty(1, name, "x" * chance.randrange(3000), "test"))
        case 4:
            result_of(updates.setBuildStateString(1, name))
        case _:
            result_of(updates.finishBuild(1, 0))


@pytest.fixture
def narrow(system: str) -> Iterator[BuildAPI]:  # noqa: ARG001  where the service has its database
    """Return a service with small buffers."""
    limits = Limits(subscription_messages=20, subscription_bytes=9_000)
    api = in_memory_api(Settings(limits=limits))
    yield api
    stopping = api.stopService()
    api.reactor.pump([5.0] * 4)
    result_of(stopping)


@pytest.mark.parametrize("seed", range(4))
def test_all_roads_have_the_same_history(narrow: BuildAPI, system: str, seed: int) -> None:
    """However often who takes them drops out, stalls, or comes back; it is the log's."""
    chance = random.Random(f"{system} {seed}")
    api = narrow
    result_of(a_build(api))
    topics = PATTERNS[seed]
    wires: list[Wire] = []

    def connect() -> Wire:
        wires.append(Wire(api))
        return wires[-1]

    roads = [kind(topics, connect) for kind in (OverWebSocket, OverEventSource, ByPolls)]
    everybody: list[Road] = [*roads, InProcess(topics, api)]
    for _ in range(150):
        for _ in range(chance.randrange(4)):
            a_deed(api, chance)
        road = chance.choice(everybody)
        if chance.random() < 0.3:
            road.drop(chance.randrange(5_000))
        elif chance.random() < 0.2 and wires:
            wires[-1].slow = not wires[-1].slow
        else:
            road.go_on()
    for wire in wires:
        wire.slow = False
    for road in everybody * 200:
        road.go_on()

    told = [event for event in log_of(api) if wanted(event["topic"], topics)]
    assert len(told) > 20
    for road in everybody:
        assert road.history == told, type(road).__name__
        road.drop(0)
    assert api.mq.streams == frozenset()


def log_of(api: BuildAPI) -> list[Any]:
    """Return all events of the log, as they are told."""
    history = api.mq.history
    assert history is not None
    events: list[Event] = []
    while found := result_of(history.replayed(events[-1].seq if events else 0, 1000)).events:
        events += found
    return [json.loads(event.told) for event in events]


def wanted(topic: str, patterns: tuple[str, ...]) -> bool:
    """Whether a topic matches one of the patterns."""
    words = split_topic(topic)
    return any(matches(parse_pattern(pattern), words) for pattern in patterns)


# With processes and sockets.


class Socket:
    """A connection to a server's port, which never waits."""

    def __init__(self, port: int) -> None:
        self.closed = False
        self.socket = socket.create_connection(("127.0.0.1", port), timeout=10)

    def send(self, data: bytes) -> None:
        """Give bytes to the server."""
        if self.closed:
            return
        try:
            self.socket.setblocking(True)
            self.socket.sendall(data)
        except OSError:
            self.hang_up()

    def take(self) -> bytes:
        """Return what has come."""
        if self.closed:
            return b""
        self.socket.setblocking(False)
        try:
            taken = self.socket.recv(65_536)
        except BlockingIOError:
            return b""
        except OSError:
            taken = b""
        if not taken:
            self.hang_up()
        return taken

    def arrival(self) -> Deferred[None]:
        """Nobody waits for this one."""
        raise AssertionError("somebody waits for it")

    def hang_up(self) -> None:
        """Go away without a word."""
        self.closed = True
        self.socket.close()


@contextmanager
def a_master(url: str, port: int) -> Iterator[tuple[subprocess.Popen[str], int]]:
    """Run a master while the block runs, and kill it; yield it and its port."""
    command = [sys.executable, str(Path(__file__).with_name("building.py")), url, str(port)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            yield process, int(process.stdout.readline())
        finally:
            process.kill()


def stored(url: str) -> list[Any]:
    """Return all events that a database has."""
    token = DATABASE.set(url)
    api = in_memory_api()
    DATABASE.reset(token)
    try:
        return log_of(api)
    finally:
        result_of(api.stopService())


def take_turns(clients: Iterable[Wired], chance: random.Random) -> None:
    """Let each client go on, or lose its connection, as soon as something has come."""
    cables: list[Any] = [c.connection.cable for c in clients if c.connection is not None]
    select.select([cable.socket for cable in cables if not cable.closed], [], [], 0.05)
    for client in clients:
        if chance.random() < 0.05:
            client.drop(chance.randrange(3_000))
        client.go_on()


def test_a_killed_master_loses_no_event_of_its_clients(fresh_url: str) -> None:
    """What anybody has seen is in the log, and nobody misses any or gets one twice."""
    chance = random.Random(7)
    port = 0

    def connect() -> Cable | None:
        try:
            return Socket(port)
        except OSError:
            return None

    kinds = (OverWebSocket, OverEventSource, ByPolls)
    clients = [kind(topics, connect) for kind in kinds for topics in PATTERNS[:3]]
    for _ in range(KILLS):
        with a_master(fresh_url, port) as (master, port):
            known = [len(client.history) for client in clients]
            while any(len(c.history) < n + 25 for c, n in zip(clients, known, strict=True)):
                take_turns(clients, chance)
                assert master.poll() is None
    for client in clients:
        client.drop(0)

    log = stored(fresh_url)
    for client in clients:
        told = [e for e in log if e["seq"] <= client.position and wanted(e["topic"], client.topics)]
        assert client.history == told, type(client).__name__
