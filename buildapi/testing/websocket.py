"""A client of the WebSocket, from the handshake to the last frame."""

from __future__ import annotations

import json
import struct
from collections.abc import Callable, Mapping
from itertools import count
from typing import Any

from twisted.internet.defer import Deferred

from buildapi.testing.memory import result_of
from buildapi.testing.wire import Connection, head


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
        # What has been asked: None, until the reply has come.
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
        connection.send(head(f"GET {path} HTTP/1.1", given))
        self.read()

    def ask(self, cmd: str, **arguments: Any) -> Any:
        """Send a command and return its reply, of a server in memory."""
        return result_of(self.asked(cmd, **arguments))

    def sync(self) -> list[Any]:
        """Return what has come, all that was on its way included, of a server in memory."""
        assert self.ask("ping")["msg"] == "pong"  # noqa: S101  a test kit asserts
        return self.frames

    def opened(self) -> Deferred[Any]:
        """Fire after the handshake; what is sent before may be lost, as RFC 6455 has it."""
        return Deferred.fromCoroutine(self._until(lambda: self.status))

    def asked(self, cmd: str, **arguments: Any) -> Deferred[Any]:
        """Send a command, and fire with its reply."""
        number = next(self._numbers)
        self._replies[number] = None
        self.send({"cmd": cmd, "_id": number, **arguments})
        return Deferred.fromCoroutine(self._reply(number))

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
        """Read what has come, and what comes because of that."""
        while taken := self.connection.take():
            self._received += taken
            if self.status is None:
                self._shake_hands()
            if self.status == 101:  # noqa: PLR2004  Switching Protocols
                self._read_frames()

    def _shake_hands(self) -> None:
        answer, end, rest = bytes(self._received).partition(b"\r\n\r\n")
        if end:
            self.status = int(answer.split()[1])
            self._received = bytearray(rest)

    def _read_frames(self) -> None:
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
            if type(number) is int and number in self._replies:
                self._replies[number] = value
            else:
                self.frames.append(value)

    async def _reply(self, number: int) -> Any:
        await self._until(lambda: self._replies[number])
        return self._replies.pop(number)

    async def _until(self, satisfied: Callable[[], object]) -> list[Any]:
        self.read()
        while not satisfied() and not self.connection.closed:
            await self.connection.arrival()
            self.read()
        return self.frames


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
