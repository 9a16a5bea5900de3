"""A WebSocket client that does as little as it can, so that what is measured is the server."""

from __future__ import annotations

import json
import os
import socket
from typing import Any, NamedTuple

PATIENCE_S = 120.0
HANDSHAKE = (
    "GET /ws HTTP/1.1\r\nHost: 127.0.0.1:{}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
)
TEXT, PING, PONG = 0x81, 0x89, 0x8A
# The payload's length is in the second byte, or in so many bytes after it.
LONGER = {126: 2, 127: 8}


def masked(payload: bytes, kind: int = TEXT) -> bytes:
    """A short frame, as clients send it."""
    mask = os.urandom(4)
    body = bytes(byte ^ mask[at % 4] for at, byte in enumerate(payload))
    assert len(payload) < min(LONGER), payload
    return bytes([kind, 0x80 | len(payload)]) + mask + body


class Frames(NamedTuple):
    """Where the payloads of whole frames begin and end, and where the rest begins."""

    texts: list[tuple[int, int]]
    pings: list[tuple[int, int]]
    rest: int


def found(data: bytes) -> Frames:
    """Find the frames in what has come."""
    texts, pings = [], []
    at, end = 0, len(data)
    while at + 2 <= end:
        length, begin = data[at + 1], at + 2
        if length in LONGER:
            begin += LONGER[length]
            length = int.from_bytes(data[at + 2 : begin], "big")
        if begin + length > end:
            break
        (pings if data[at] == PING else texts).append((begin, begin + length))
        at = begin + length
    return Frames(texts, pings, at)


class Client:
    """One WebSocket.  told: the frames that came since it asked."""

    def __init__(self, port: int, buffer: int | None = None) -> None:
        """buffer: bytes that the system may keep for it, if it is not to decide by itself."""
        self.socket = socket.socket()
        if buffer is not None:
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, buffer)
        self.socket.settimeout(PATIENCE_S)
        self.socket.connect(("127.0.0.1", port))
        self.socket.sendall(HANDSHAKE.format(port).encode())
        self._rest = b""
        while b"\r\n\r\n" not in self._rest:
            self._rest += self._received()
        head, _, self._rest = self._rest.partition(b"\r\n\r\n")
        if b" 101 " not in head:
            raise RuntimeError(f"no WebSocket: {head!r}")
        self.told = 0

    def ask(self, command: dict[str, Any], until: bytes) -> bytes:
        """Send a command, and return the first frame that has the text."""
        self.told = 0
        self.socket.sendall(masked(json.dumps(command, separators=(",", ":")).encode()))
        while True:
            for frame in self.frames():
                if until in frame:
                    return frame
                self.told += 1

    def frames(self) -> list[bytes]:
        """Read what is there, and return the payloads."""
        data, frames = self._read()
        return [data[begin:end] for begin, end in frames.texts]

    def count(self) -> None:
        """Read what is there, and count it."""
        self.told += len(self._read()[1].texts)

    def _read(self) -> tuple[bytes, Frames]:
        data = self._rest + self._received()
        frames = found(data)
        self._rest = data[frames.rest :]
        # Who never answers is taken for dead within two beats, and cut off.
        for begin, end in frames.pings:
            self.socket.sendall(masked(data[begin:end], PONG))
        return data, frames

    def _received(self) -> bytes:
        data = self.socket.recv(1 << 18)
        if not data:
            raise ConnectionResetError("the server closed a WebSocket")
        return data
