"""
Many WebSockets that are told the same events, in one process that does as little as it can.

``python -m benchmarks.audience buildapi|buildbot PORT CLIENTS BUILDID EVENTS``

Prints "listening" when all have subscribed to the events of the build, and one line of JSON when
each has been told so many. Most clients only count frames by their headers; every tenth looks for
the stamp in them: how late a delivery came.
"""

from __future__ import annotations

import json
import os
import re
import selectors
import socket
import sys
import time
from collections.abc import Sequence
from typing import Any

from benchmarks.figures import percentile

PATIENCE_S = 120.0
SAMPLE_EVERY = 10
NS_PER_MS = 1e6
STAMP = re.compile(rb'"state_string": ?"\d+ (\d+)')
HANDSHAKE = (
    "GET /ws HTTP/1.1\r\nHost: 127.0.0.1:{}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
)
# The payload's length is in the second byte, or in so many bytes after it.
LONGER = {126: 2, 127: 8}


def masked(payload: bytes) -> bytes:
    """A text frame, as clients send it."""
    mask = os.urandom(4)
    body = bytes(byte ^ mask[at % 4] for at, byte in enumerate(payload))
    assert len(payload) < min(LONGER), payload
    return bytes([0x81, 0x80 | len(payload)]) + mask + body


def payloads(data: bytes) -> tuple[list[tuple[int, int]], int]:
    """Where the payloads of whole frames begin and end, and where the rest begins."""
    found = []
    at, end = 0, len(data)
    while at + 2 <= end:
        length, begin = data[at + 1], at + 2
        if length in LONGER:
            begin += LONGER[length]
            length = int.from_bytes(data[at + 2 : begin], "big")
        if begin + length > end:
            break
        at = begin + length
        found.append((begin, at))
    return found, at


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
        data = self._rest + self._received()
        found, at = payloads(data)
        self._rest = data[at:]
        return [data[begin:end] for begin, end in found]

    def count(self) -> None:
        """Read what is there, and count it."""
        data = self._rest + self._received()
        found, at = payloads(data)
        self._rest = data[at:]
        self.told += len(found)

    def _received(self) -> bytes:
        data = self.socket.recv(1 << 18)
        if not data:
            raise ConnectionResetError("the server closed a WebSocket")
        return data


class Sample(Client):
    """One that takes the time.  ms: how late each event came."""

    def __init__(self, port: int) -> None:
        super().__init__(port)
        self.ms: list[float] = []

    def count(self) -> None:
        """Read what is there, and see how late it is."""
        frames = self.frames()
        now_ns = time.monotonic_ns()
        for frame in frames:
            if stamp := STAMP.search(frame):
                self.ms.append((now_ns - int(stamp[1])) / NS_PER_MS)
        self.told += len(frames)


def listening(kind: str, port: int, number: int, buildid: int) -> list[Client]:
    """Return so many clients that have subscribed to the updates of a build."""
    clients = [Client(port) if n % SAMPLE_EVERY else Sample(port) for n in range(number)]
    for client in clients:
        if kind == "buildbot":
            command = {"cmd": "startConsuming", "path": f"builds/{buildid}/update", "_id": 1}
            client.ask(command, b"code")
        else:
            topic = f"build.{buildid}.update"
            client.ask({"cmd": "subscribe", "topic": topic, "_id": 1}, b"synced")
    return clients


def told(clients: Sequence[Client], events: int) -> dict[str, Any]:
    """
    Read until all have been told so many events; say how late these came.

    ended: when the last one came, on the clock that all processes share.
    """
    selector = selectors.DefaultSelector()
    for client in clients:
        client.told = 0
        selector.register(client.socket, selectors.EVENT_READ, client)
    until = time.monotonic() + PATIENCE_S
    while selector.get_map():
        if time.monotonic() > until:
            raise TimeoutError(f"after {PATIENCE_S} s events are missing")
        for key, _ in selector.select(1):
            key.data.count()
            if key.data.told >= events:
                selector.unregister(key.fileobj)
    ms = [one for client in clients if isinstance(client, Sample) for one in client.ms]
    return {
        "deliveries": sum(client.told for client in clients),
        "ended": time.monotonic(),
        "p50_ms": percentile(ms, 0.5),
        "p99_ms": percentile(ms, 0.99),
    }


def main(kind: str, port: str, number: str, buildid: str, events: str) -> None:
    """Listen to the end and print the figures."""
    clients = listening(kind, int(port), int(number), int(buildid))
    print("listening", flush=True)
    print(json.dumps(told(clients, int(events))))


if __name__ == "__main__":
    main(*sys.argv[1:6])
