"""What all have in common who visit a server that dies: they come back, stall, and speak HTTP."""

from __future__ import annotations

import base64
import contextlib
import json
import os
import random
import socket
import struct
import time
from abc import ABC, abstractmethod
from collections.abc import Iterator
from http.client import HTTPException, HTTPResponse
from threading import Event as Flag
from threading import Thread
from typing import Any, ClassVar

ANSWER_S = 10.0


class Wrong(Exception):
    """The server did what the protocol does not allow."""


class Visitor(Thread, ABC):
    """
    Somebody with one connection after the other.

    ``wrong``: what was not right.  ``given_up``: nobody waits for it any more.
    """

    road: ClassVar[str]

    def __init__(self, port: int, seed: int) -> None:
        super().__init__(daemon=True, name=f"{self.road}-{seed}")
        self.wrong: list[str] = []
        self.given_up = Flag()
        self.connections = self.lost = self.stalls = 0
        self.random = random.Random(seed)
        self._port = port

    @property
    @abstractmethod
    def done(self) -> bool:
        """Whether it has all that it should get."""

    def run(self) -> None:
        """Connect again and again."""
        while not (self.done or self.given_up.is_set()):
            try:
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

    @contextlib.contextmanager
    def connected(self) -> Iterator[socket.socket]:
        """Connect."""
        with socket.create_connection(("127.0.0.1", self._port), timeout=ANSWER_S) as connection:
            self.connections += 1
            yield connection

    def moments(self) -> Iterator[None]:
        """Give the moments at which to read on; now and then one comes late, at last none does."""
        many = self.random.choice((1, 30, 300, 3000))
        stall = self.random.randrange(many * 3)
        for number in range(many):
            if self.done or self.given_up.is_set():
                return
            if number == stall:
                self.stalls += 1
                time.sleep(self.random.uniform(0.05, 2.0))
            yield

    def ask(self, connection: socket.socket, path: str) -> None:
        """Send a GET of a path below /api/v2."""
        request = f"GET /api/v2/{path} HTTP/1.1\r\nHost: 127.0.0.1\r\n"
        connection.sendall(f"{request}Accept: application/json\r\n\r\n".encode())

    def response(self, connection: socket.socket) -> HTTPResponse:
        """Return the answer to what was asked for; there is one, if the server is all there."""
        response = HTTPResponse(connection)
        response.begin()
        if response.status == 503:  # noqa: PLR2004  it starts, or stops
            raise EOFError
        if response.status != 200:  # noqa: PLR2004
            raise Wrong(f"{response.status}: {response.read()[:200]!r}")
        return response

    def answer(self, connection: socket.socket) -> Any:
        """Return the answer's JSON."""
        return json.loads(self.response(connection).read())

    def frames(self, command: dict[str, Any]) -> Iterator[Any]:
        """Give a command on a WebSocket, and the frames that follow."""
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
            _send(connection, 1, json.dumps(command).encode())
            for _ in self.moments():
                opcode, payload = _frame(file)
                if opcode == 1:
                    yield json.loads(payload)
                elif opcode == 8:  # noqa: PLR2004  close
                    return
                elif opcode == 9:  # noqa: PLR2004  ping
                    _send(connection, 10, payload)

    def blocks(self, path: str, last: str) -> Iterator[dict[str, str]]:
        """Give the blocks of an event stream from a ``Last-Event-ID`` on."""
        with self.connected() as connection, connection.makefile("rb") as file:
            connection.sendall(
                f"GET /api/v2/{path} HTTP/1.0\r\nHost: 127.0.0.1\r\n"
                f"Accept: text/event-stream\r\nLast-Event-ID: {last}\r\n\r\n".encode()
            )
            status = file.readline()
            if b" 200 " not in status:
                raise Wrong(f"{status!r}") if status and b" 503 " not in status else EOFError
            while file.readline().strip():
                pass
            for _ in self.moments():
                yield _block(file)


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
