"""
The chapter on clients that do not read: by how much each makes the server grow.

A hundred on each road, in a process that has no memory to spare yet; they have more to read than
may wait for them. Otherwise like ``measure``.
"""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from benchmarks.audience import PATIENCE_S, Client
from benchmarks.measure import Effort, Results
from benchmarks.orders import order
from benchmarks.processes import Processes
from benchmarks.servers import Server

CLIENTS = 100
# To begin with, so that what everybody needs is in memory; then together more than may wait.
FEW, MANY = 50, 2_000
SIZE = 20_000
SMALL_BUFFER = 4_096


def _told(command: dict[str, Any], until: bytes) -> Callable[[int], socket.socket]:
    def connect(port: int) -> socket.socket:
        client = Client(port, SMALL_BUFFER)
        client.ask({"_id": 1, **command}, until)
        return client.socket

    return connect


def _answered(path: str) -> Callable[[int], socket.socket]:
    def connect(port: int) -> socket.socket:
        client = socket.socket()
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, SMALL_BUFFER)
        client.settimeout(PATIENCE_S)
        client.connect(("127.0.0.1", port))
        request = f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nAccept: text/event-stream\r\n"
        client.sendall(f"{request}\r\n".encode())
        # The answer has begun.
        client.recv(64)
        return client

    return connect


ROADS: dict[str, Callable[[int], socket.socket]] = {
    "subscribe": _told({"cmd": "subscribe", "topic": "build.#"}, b'"synced"'),
    "subscribe from position 0": _told({"cmd": "subscribe", "topic": "#", "since": 0}, b'"code"'),
    "startConsuming": _told({"cmd": "startConsuming", "path": "build.#"}, b'"code"'),
    "server-sent events": _answered("/api/v2/events?topic=build.%23"),
    "/sse/listen": _answered("/sse/listen/builds/*/*/*"),
}


def stalled(
    servers: Sequence[Server], running: Processes, effort: Effort, results: Results
) -> Iterator[str]:
    """Measure it on each road.  Yields what is being done."""
    for server in servers:
        for road, connect in ROADS.items():
            yield f"{CLIENTS} clients that do not read, {road}"
            running.stop(server.name)
            server.start(running)
            results.stalled[road] = _grown(server, connect, effort.builds)


def _grown(server: Server, connect: Callable[[int], socket.socket], buildid: int) -> float:
    """Return the MiB for each client."""
    assert server.orders_port
    order(server.orders_port, "property", buildid=buildid, events=FEW, size=SIZE)
    clients = [connect(server.port) for _ in range(CLIENTS)]
    before = order(server.orders_port, "cost")["rss_bytes"]
    order(server.orders_port, "property", buildid=buildid, events=MANY, size=SIZE)
    after = order(server.orders_port, "cost")["peak_bytes"]
    for client in clients:
        client.close()
    grown: float = (after - before) / CLIENTS / 2**20
    return grown
