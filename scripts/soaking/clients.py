"""
Clients that come, go, stall and resume, by three roads; they know nothing but the protocol.

Each keeps its history: every event with a ``seq`` above the last one it has, as the protocol says.
"""

from __future__ import annotations

import base64
import contextlib
import json
import os
import random
import re
import socket
import struct
import time
from abc import ABC, abstractmethod
from collections.abc import Iterator
from http.client import HTTPException, HTTPResponse
from threading import Event as Flag
from threading import Thread
from typing import Any, ClassVar
from urllib.parse import quote

ANSWER_S = 10.0


class Wrong(Exception):
    """The server did what the protocol does not allow."""


class Client(Thread, ABC):
    """
    One client.

    ``history``: events by seq, in the order in which they came.  ``wrong``: what was not right.
    ``target``: the last seq that it should get, once that is known; the client ends there.
    """

    road: ClassVar[str]

    def __init__(self, port: int, topic: str, seed: int) -> None:
        super().__init__(daemon=True, name=f"{self.road}-{seed}")
        self.topic = topic
        self.history: dict[int, Any] = {}
        self.wrong: list[str] = []
        self.target: int | None = None
        self.given_up = Flag()
        self.last = 0
        self.connections = self.lost = self.stalls = self.repeated = 0
        self._port = port
        self._random = random.Random(seed)
        self._previous = 0

    @property
    def done(self) -> bool:
        """Whether it has all that it should get."""
        return self.target is not None and self.last >= self.target

    def run(self) -> None:
        """Connect again and again."""
        while not (self.done or self.given_up.is_set()):
            try:
                self._previous = self.last
                self.session()
            except (OSError, HTTPException, EOFError):
                # The server has been killed, perhaps; it comes back.
                self.lost += 1
                time.sleep(0.1)
            except Exception as error:  # noqa: BLE001  the verdict says it
                self.wrong.append(f"{type(error).__name__}: {error}")
                return

    @abstractmethod
    def session(self) -> None:
        """Have one connection, from the last position, as long as it pleases."""

    def take(self, event: Any) -> None:
        """Take an event."""
        seq = event["seq"]
        if seq <= self._previous:
            raise Wrong(f"{seq} came after {self._previous} on one connection")
        self._previous = seq
        if seq > self.last:
            self.history[seq] = [event["topic"], event["at"], event["m"]]
            self.last = seq
        else:
            self.repeated += 1

    @contextlib.contextmanager
    def connected(self) -> Iterator[socket.socket]:
        """Connect."""
        with socket.create_connection(("127.0.0.1", self._port), timeout=ANSWER_S) as connection:
            self.connections += 1
            yield connection

    def moments(self) -> Iterator[None]:
        """Give the moments at which to read on; now and then one comes late, at last none does."""
        many = self._random.choice((1, 30, 300, 3000))
        stall = self._random.randrange(many * 3)
        for number in range(many):
            if self.done or self.given_up.is_set():
                return
            if number == stall:
                self.stalls += 1
                time.sleep(self._random.uniform(0.05, 2.0))
            yield

    def since(self) -> int:
        """Return where to go on: mostly where it was, sometimes before."""
        if self._random.random() < 0.2:  # noqa: PLR2004
            self._previous = max(0, self.last - self._random.randint(1, 50))
        return self._previous


class WebSocketClient(Client):
    """``subscribe`` on ``/ws``."""

    road = "websocket"

    def session(self) -> None:
        """Shake hands, subscribe and read frames."""
        with self.connected() as connection, connection.makefile("rb") as file:
            key = base64.b64encode(os.urandom(16)).decode()
            connection.sendall(
                f"GET /ws HTTP/1.1\r\nHost: 127.0.0.1:{self._port}\r\nUpgrade: websocket\r\n"
                f"Connection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
                f"Sec-WebSocket-Key: {key}\r\n\r\n".encode()
            )
            if b" 101 " not in file.readline():
                raise EOFError
            while file.readline().strip():
                pass
            command = {"cmd": "subscribe", "topic": self.topic, "since": self.since(), "_id": 1}
            _send(connection, 1, json.dumps(command).encode())
            for _ in self.moments():
                opcode, payload = _frame(file)
                if opcode == 1:
                    self._heard(json.loads(payload))
                elif opcode == 8:  # noqa: PLR2004  close
                    return
                elif opcode == 9:  # noqa: PLR2004  ping
                    _send(connection, 10, payload)

    def _heard(self, frame: Any) -> None:
        if "topic" in frame:
            self.take(frame)
        elif "gap" in frame or "error" in frame:
            raise Wrong(str(frame))


class EventSource(Client):
    """``GET /api/v2/events`` as server-sent events."""

    road = "eventstream"

    def session(self) -> None:
        """Resume by Last-Event-ID and read blocks."""
        with self.connected() as connection, connection.makefile("rb") as file:
            connection.sendall(
                f"GET /api/v2/events?topic={quote(self.topic)} HTTP/1.0\r\nHost: 127.0.0.1\r\n"
                f"Accept: text/event-stream\r\nLast-Event-ID: {self.since()}\r\n\r\n".encode()
            )
            status = file.readline()
            if b" 200 " not in status:
                raise Wrong(f"{status!r}") if status else EOFError
            while file.readline().strip():
                pass
            for _ in self.moments():
                fields = _block(file)
                if fields.get("event") == "event":
                    event = json.loads(fields["data"])
                    if int(fields["id"]) != event["seq"]:
                        raise Wrong(f"the id of {event['seq']} is {fields['id']}")
                    self.take(event)
                elif fields.get("event") == "gap":
                    raise Wrong(str(fields))


class LongPoll(Client):
    """``GET /api/v2/events?wait=…``, one connection for many answers."""

    road = "longpoll"

    def session(self) -> None:
        """Ask for what follows; sometimes go away before the answer."""
        position = self.since()
        with self.connected() as connection:
            for _ in self.moments():
                limit = self._random.choice((1, 10, 1000))
                path = f"/api/v2/events?topic={quote(self.topic)}&after={position}"
                connection.sendall(
                    f"GET {path}&wait=1&limit={limit} HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n".encode()
                )
                if self._random.random() < 0.05:  # noqa: PLR2004
                    return
                response = HTTPResponse(connection)
                response.begin()
                body = response.read()
                if response.status != 200:  # noqa: PLR2004
                    if response.status == 503:  # noqa: PLR2004  it starts, or stops
                        raise EOFError
                    raise Wrong(f"{response.status}: {body[:200]!r}")
                answer = json.loads(body)
                for event in answer["events"]:
                    self.take(event)
                position = answer["meta"]["seq"]


ROADS: tuple[type[Client], ...] = (WebSocketClient, EventSource, LongPoll)
TOPICS = ("#", "build.*.step.#", "build.#", "#.finished")


def pattern(topic: str) -> re.Pattern[str]:
    """Return what a topic pattern matches: ``*`` one word, ``#`` any number of words."""
    words = {"*": r"\.[^.]+", "#": r"(\.[^.]+)*"}
    parts = (words.get(word, rf"\.{re.escape(word)}") for word in topic.split("."))
    return re.compile("".join(parts))


def matches(topic: str, name: str) -> bool:
    """Say whether an event of this name belongs to a topic pattern."""
    return pattern(topic).fullmatch(f".{name}") is not None


def _send(connection: socket.socket, opcode: int, payload: bytes) -> None:
    size = len(payload)
    # The two forms of the length that our frames need; a mask of zeros changes nothing.
    head = (
        struct.pack("!BB", 0x80 | opcode, 0x80 | size)
        if size < 126  # noqa: PLR2004
        else struct.pack("!BBH", 0x80 | opcode, 0x80 | 126, size)
    )
    connection.sendall(head + bytes(4) + payload)


def _frame(file: Any) -> tuple[int, bytes]:
    first, short = _exactly(file, 2)
    size = short
    if short >= 126:  # noqa: PLR2004
        form, width = ("!H", 2) if short == 126 else ("!Q", 8)  # noqa: PLR2004
        (size,) = struct.unpack(form, _exactly(file, width))
    return first & 0x0F, _exactly(file, size)


def _exactly(file: Any, size: int) -> bytes:
    data: bytes = file.read(size)
    if len(data) < size:
        raise EOFError
    return data


def _block(file: Any) -> dict[str, str]:
    fields: dict[str, str] = {}
    while line := file.readline():
        if not line.endswith(b"\n"):
            raise EOFError
        if not line.strip():
            return fields
        name, _, value = line.decode().rstrip("\n").partition(": ")
        fields[name] = value
    raise EOFError
