"""
A test kit for those who embed buildapi: everything in memory, in one thread, without a reactor.

    api = in_memory_api()
    builderid = result_of(api.data.updates.findBuilderId("runtests"))
    assert WebClient(api).get("/api/v2/builders/1").status == 200

    ws = WebSocketClient(Wire(api))
    assert ws.ask("startConsuming", path="builders/*/update")["code"] == 200

Deferreds have fired when they are returned, and time is a ``Clock`` that stands still. The web is
the real one, from the first byte of a request to the last of its answer; only the network is not
there: a ``Wire`` stands for a connection, and is as slow as a test wants.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from email.message import Message
from http.client import HTTPResponse
from io import BytesIO
from itertools import count
from typing import Any, Protocol, cast

from twisted.internet.address import IPv4Address
from twisted.internet.defer import Deferred
from twisted.internet.error import ConnectionDone, ConnectionLost
from twisted.internet.interfaces import IPushProducer, ITransport
from twisted.internet.task import Clock
from twisted.python.failure import Failure
from zope.interface import implementer

from buildapi.mq.event import Event
from buildapi.service import BuildAPI
from buildapi.settings import Settings

# 2026-11-21 12:00:00 UTC
NOON = 1_795_262_400


def in_memory_api(
    settings: Settings | None = None,
    master: str | None = "test:/master",
    clock: Clock | None = None,
) -> BuildAPI:
    """
    Return a started BuildAPI on a new database in memory, which listens nowhere.

    clock: where its time comes from; by default one that stands at noon.
    """
    settings = settings or Settings()
    if clock is None:
        clock = Clock()
        clock.advance(NOON)
    api = BuildAPI(
        replace(
            settings,
            server=replace(settings.server, listen=None),
            database=replace(settings.database, url="sqlite://"),
        ),
        master=master,
        reactor=clock,
    )
    api.startService()
    result_of(api.ready())
    return api


def result_of(deferred: Deferred[Any]) -> Any:
    """Return what a Deferred has fired with, or raise what it has failed with."""
    fired: list[Any] = []
    deferred.addBoth(fired.append)
    if not fired:
        raise AssertionError("the Deferred has not fired")
    deferred.addErrback(lambda _: None)
    if hasattr(fired[0], "raiseException"):
        fired[0].raiseException()
    return fired[0]


class RecordingSubscriber:
    """Records every event that matches a pattern: ``events``, and their ``topics``."""

    def __init__(self, api: BuildAPI, pattern: str = "#") -> None:
        self.events: list[Event] = []
        self._listener = api.mq.listen([pattern], self.events.append)

    @property
    def topics(self) -> list[str]:
        """Return the topics, in the order in which the events came."""
        return [event.topic for event in self.events]

    def close(self) -> None:
        """Record no more."""
        self._listener.close()


class Connection(Protocol):
    """What a client needs of a connection to a server, in memory or not."""

    closed: bool

    def send(self, data: bytes) -> None:
        """Give bytes to the server."""

    def take(self) -> bytes:
        """Return what the server has sent since the last time."""

    def arrival(self) -> Deferred[None]:
        """Fire when there is more to take, or nothing ever will be."""


@implementer(ITransport, IPushProducer)
class Wire:
    """
    A connection to a server's web, in memory; the test is the other end of it.

    ``protocol`` gets what is sent; a WebSocket takes the place of HTTP there.  ``slow``: nothing is
    taken from the wire, and the server is told so as soon as more than FULL bytes are on it.
    ``cut``: the server did not close it, but cut it.
    """

    FULL = 65_536

    def __init__(self, api: BuildAPI) -> None:
        assert api.web is not None  # noqa: S101  the service works
        self.slow = False
        self.closed = False
        self.cut = False
        self._later = api.reactor.callLater
        self._written = bytearray()
        self._producer: Any = None
        self._paused = False
        self._arrival: Deferred[None] | None = None
        site: Any = api.web.site
        self.protocol = site.buildProtocol(self.getPeer())
        self.protocol.makeConnection(self)

    @property
    def disconnecting(self) -> bool:
        """Return whether nothing more will be sent."""
        return self.closed

    @property
    def waiting(self) -> int:
        """Return how many bytes the server has written that nobody has taken."""
        return len(self._written)

    def send(self, data: bytes) -> None:
        """Give bytes to the server."""
        if not self.closed:
            self.protocol.dataReceived(data)

    def take(self) -> bytes:
        """Return what the server has sent since the last time; nothing while ``slow``."""
        if self.slow:
            return b""
        taken = bytes(self._written)
        self._written.clear()
        if self._paused:
            self._paused = False
            self._producer.resumeProducing()
        return taken

    def arrival(self) -> Deferred[None]:
        """Fire when there is more to take; for servers that use Twisted's reactor."""
        self._arrival = Deferred()
        if self._written or self.closed:
            self._news()
        return self._arrival or Deferred()

    def hang_up(self) -> None:
        """Go away without a word."""
        self._lost(ConnectionLost())

    # What the server sees of it.

    def write(self, data: bytes) -> None:
        """Take bytes from the server."""
        if self.closed:
            return
        self._written += data
        self._news()
        if self.slow and len(self._written) > self.FULL and self._producer and not self._paused:
            self._paused = True
            self._producer.pauseProducing()

    def writeSequence(self, data: Any) -> None:
        """Take bytes from the server."""
        self.write(b"".join(data))

    def registerProducer(self, producer: Any, streaming: bool) -> None:  # noqa: ARG002  ITransport's
        """Tell ``producer`` when the wire is full, and when it isn't."""
        assert self._producer is None, "there is a producer already"  # noqa: S101  as Twisted does
        self._producer = producer

    def unregisterProducer(self) -> None:
        """Tell nobody."""
        self._producer, self._paused = None, False

    def loseConnection(self) -> None:
        """Close the wire; what is on it can still be taken."""
        self._lost(ConnectionDone())

    def abortConnection(self) -> None:
        """Cut the wire: what is on it is lost."""
        self.cut = True
        self._written.clear()
        self._lost(ConnectionLost())

    def pauseProducing(self) -> None:
        """Do not read: nobody sends unasked here."""

    def resumeProducing(self) -> None:
        """Read on."""

    def stopProducing(self) -> None:
        """Read no more."""

    def getPeer(self) -> IPv4Address:
        """Return the test's address."""
        return IPv4Address("TCP", "127.0.0.1", 31337)

    def getHost(self) -> IPv4Address:
        """Return the server's address."""
        return IPv4Address("TCP", "127.0.0.1", 8010)

    def _lost(self, reason: Exception) -> None:
        if not self.closed:
            self.closed = True
            self.unregisterProducer()
            self.protocol.connectionLost(Failure(reason))
            self._news()

    def _news(self) -> None:
        arrival, self._arrival = self._arrival, None
        if arrival is not None:
            # Not at once: the server is in the middle of something.
            self._later(0, arrival.callback, None)


@dataclass(frozen=True)
class Answer:
    """What a server answered; ``headers`` are found by name in any case."""

    status: int
    headers: Message
    body: bytes

    def json(self) -> Any:
        """Return the body as JSON."""
        return json.loads(self.body)


def answered(received: bytes, method: str = "GET") -> Answer:
    """Return the answer to a request; http.client.HTTPException if it is not a whole one."""
    response = HTTPResponse(cast("Any", _Received(received)), method=method)
    response.begin()
    return Answer(response.status, response.headers, response.read())


class _Received:
    """Received bytes, as the standard library's socket has them."""

    def __init__(self, data: bytes) -> None:
        self._data = data

    def makefile(self, mode: str) -> BytesIO:  # noqa: ARG002  a socket's signature
        return BytesIO(self._data)


class WebClient:
    """A client of a server's REST and JSON-RPC; every request has a ``Wire`` of its own."""

    def __init__(self, api: BuildAPI) -> None:
        self._api = api

    def get(self, path: str, headers: Mapping[str, str] | None = None) -> Answer:
        """Answer a GET, of a server in memory."""
        return self.request("GET", path, headers)

    def call(self, path: str, method: str, /, **params: Any) -> Answer:
        """Answer a JSON-RPC call on ``path``, of a server in memory."""
        call = {"jsonrpc": "2.0", "id": 1, "method": method, "params": params}
        headers = {"Content-Type": "application/json"}
        return self.request("POST", path, headers, json.dumps(call).encode())

    def request(
        self, method: str, path: str, headers: Mapping[str, str] | None = None, body: bytes = b""
    ) -> Answer:
        """Answer a request, of a server in memory."""
        answer: Answer = result_of(self.fetch(method, path, headers, body))
        return answer

    def fetch(
        self, method: str, path: str, headers: Mapping[str, str] | None = None, body: bytes = b""
    ) -> Deferred[Answer]:
        """Answer a request; of a server that uses Twisted's reactor, too."""
        return Deferred.fromCoroutine(self._fetched(method, path, headers or {}, body))

    async def _fetched(
        self, method: str, path: str, headers: Mapping[str, str], body: bytes
    ) -> Answer:
        wire = Wire(self._api)
        given = {"Host": "127.0.0.1:8010", "Connection": "close", **headers}
        if body:
            given["Content-Length"] = str(len(body))
        wire.send(_head(f"{method} {path} HTTP/1.1", given) + body)
        received = wire.take()
        while not wire.closed:
            await wire.arrival()
            received += wire.take()
        return answered(received + wire.take(), method)


class WebSocketClient:
    """
    A client of ``/ws``.

    ``status``: the handshake's, 101 if there is a WebSocket.  ``frames``: the JSON of what came and
    answered no ``ask``.  ``ended``: the code and the reason with which the server closed.
    """

    def __init__(
        self,
        connection: Connection,
        path: str = "/ws",
        headers: Mapping[str, str] | None = None,
    ) -> None:
        self.connection = connection
        self.status: int | None = None
        self.frames: list[Any] = []
        self.ended: tuple[int, str] | None = None
        self._replies: dict[int, Any] = {}
        self._numbers = count(1_000_000)
        self._received = bytearray()
        given = {
            "Host": "127.0.0.1:8010",
            "Upgrade": "websocket",
            "Connection": "Upgrade",
            "Sec-WebSocket-Version": "13",
            "Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ==",
            **(headers or {}),
        }
        connection.send(_head(f"GET {path} HTTP/1.1", given))
        self.read()

    def ask(self, cmd: str, **arguments: Any) -> Any:
        """Send a command and return its reply, of a server in memory."""
        return result_of(self.asked(cmd, **arguments))

    def sync(self) -> list[Any]:
        """Return what has come, all that was on its way included, of a server in memory."""
        assert self.ask("ping")["msg"] == "pong"  # noqa: S101  a test kit asserts
        return self.frames

    def asked(self, cmd: str, **arguments: Any) -> Deferred[Any]:
        """Send a command, and fire with its reply."""
        number = next(self._numbers)
        self.send({"cmd": cmd, "_id": number, **arguments})
        return Deferred.fromCoroutine(self._reply(arguments.get("_id", number)))

    def until(self, satisfied: Callable[[list[Any]], object]) -> Deferred[list[Any]]:
        """Fire with the frames as soon as ``satisfied(frames)``, or at the connection's end."""
        return Deferred.fromCoroutine(self._until(lambda: satisfied(self.frames)))

    def send(self, frame: Any) -> None:
        """Send a value as a text frame; bytes as they are."""
        self.send_frame(0x1, frame if isinstance(frame, bytes) else json.dumps(frame).encode())

    def send_frame(self, opcode: int, payload: bytes) -> None:
        """Send a frame of any kind: 1 text, 2 binary, 8 close, 9 ping."""
        self.connection.send(masked(opcode, payload))

    def read(self) -> None:
        """Read what has come."""
        self._received += self.connection.take()
        if self.status is None and b"\r\n\r\n" in self._received:
            head, _, rest = bytes(self._received).partition(b"\r\n\r\n")
            self.status = int(head.split()[1])
            self._received = bytearray(rest)
        if self.status == 101:  # noqa: PLR2004  Switching Protocols
            at = 0
            while (found := _frame(self._received, at)) is not None:
                opcode, payload, at = found
                self._heard(opcode, payload)
            del self._received[:at]

    def _heard(self, opcode: int, payload: bytes) -> None:
        if opcode == 0x8:  # noqa: PLR2004  close
            (code,) = struct.unpack("!H", payload[:2])
            self.ended = self.ended or (code, payload[2:].decode())
            self.send_frame(opcode, payload[:2])
        elif opcode == 0x9:  # noqa: PLR2004  ping
            self.send_frame(0xA, payload)
        elif opcode == 0x1:
            value = json.loads(payload)
            number = value.get("_id")
            if isinstance(number, int) and "sub" not in value:
                self._replies[number] = value
            else:
                self.frames.append(value)

    async def _reply(self, number: int) -> Any:
        await self._until(lambda: number in self._replies)
        return self._replies.pop(number)

    async def _until(self, satisfied: Callable[[], object]) -> list[Any]:
        self.read()
        while not satisfied() and not self.connection.closed:
            await self.connection.arrival()
            self.read()
        return self.frames


def _head(line: str, headers: Mapping[str, str]) -> bytes:
    lines = [line, *(f"{name}: {value}" for name, value in headers.items()), "", ""]
    # What is no text may stand in a request as it may in a file name of Python's.
    return "\r\n".join(lines).encode("utf-8", "surrogateescape")


def masked(opcode: int, payload: bytes) -> bytes:
    """Return a whole frame as a client sends it."""
    size = len(payload)
    if size < 126:  # noqa: PLR2004  the length's three forms: RFC 6455, section 5.2
        head = struct.pack("!BB", 0x80 | opcode, 0x80 | size)
    elif size < 2**16:
        head = struct.pack("!BBH", 0x80 | opcode, 0x80 | 126, size)
    else:
        head = struct.pack("!BBQ", 0x80 | opcode, 0x80 | 127, size)
    return head + bytes(4) + payload  # a mask of zeros changes nothing


def _frame(data: bytearray, at: int) -> tuple[int, bytes, int] | None:
    """Return a frame's opcode, its payload and where it ends; None if it is not whole."""
    if len(data) < at + 2:
        return None
    short = data[at + 1] & 0x7F
    form, width = {126: ("!H", 2), 127: ("!Q", 8)}.get(short, ("", 0))
    start = at + 2 + width
    if len(data) < start:
        return None
    size = struct.unpack_from(form, data, at + 2)[0] if width else short
    if len(data) < start + size:
        return None
    return data[at] & 0x0F, bytes(data[start : start + size]), start + size
