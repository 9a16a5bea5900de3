"""
Our own load generator, for machines without wrk: raw sockets, keep-alive, a few processes.

Takes what ``wrk.lua`` takes and prints the same line of JSON; SIGINT ends it early. A request costs
it more processor time than it costs wrk, which on a small machine the server then lacks.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import random
import selectors
import signal
import socket
import time
from typing import Any

from benchmarks.figures import percentile

PROCESSES = 2
DRAWS = 20_000
HEAD_END = b"\r\n\r\n"
LENGTH = b"content-length:"


class Connection:
    """One keep-alive connection with one request under way."""

    def __init__(self, port: int, request: bytes) -> None:
        self.socket = socket.create_connection(("127.0.0.1", port))
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.send(request)

    def send(self, request: bytes) -> None:
        """Send a request."""
        self._answer = b""
        self._began = time.perf_counter()
        self.socket.sendall(request)

    def read(self) -> tuple[bool, float] | None:
        """
        Read what is there; None until the answer has ended.

        Then: whether it was a 200, and how many seconds it took.
        """
        data = self.socket.recv(262_144)
        if not data:
            raise ConnectionResetError("closed before the answer's end")
        self._answer += data
        head, end, body = self._answer.partition(HEAD_END)
        if not end or len(body) < _length(head):
            return None
        return head.split(b" ", 2)[1] == b"200", time.perf_counter() - self._began


def _length(head: bytes) -> int:
    for line in head.split(b"\r\n"):
        if line.lower().startswith(LENGTH):
            return int(line[len(LENGTH) :])
    raise ValueError("an answer without Content-Length")


def load(port: int, path: str, most: int, connections: int, seconds: float, seed: int) -> Any:
    """Keep so many connections busy; return the seconds that answers took, and the failures."""
    draw = random.Random(seed)  # noqa: S311  nothing is kept secret with it
    requests = [
        f"GET {path.replace('{id}', str(draw.randint(1, most)))} HTTP/1.1\r\n"
        f"Host: 127.0.0.1:{port}\r\nAccept: application/json\r\n\r\n".encode()
        for _ in range(DRAWS if "{id}" in path else 1)
    ]
    took: list[float] = []
    failed = 0
    selector = selectors.DefaultSelector()
    for turn in range(connections):
        opened = Connection(port, requests[turn % len(requests)])
        selector.register(opened.socket, selectors.EVENT_READ, opened)
    until = time.monotonic() + seconds
    stopped = []
    signal.signal(signal.SIGINT, lambda *_: stopped.append(True))
    while selector.get_map() and time.monotonic() < until and not stopped:
        for key, _ in selector.select(0.1):
            try:
                answer = key.data.read()
            except (ConnectionError, ValueError):
                failed += 1
                selector.unregister(key.fileobj)
                continue
            if answer:
                good, seconds_taken = answer
                took.append(seconds_taken)
                failed += not good
                key.data.send(requests[len(took) % len(requests)])
    return took, failed


def main() -> None:
    """Share the connections out among processes and add up what they saw."""
    parser = argparse.ArgumentParser(description=__doc__)
    for name in ("port", "most", "connections"):
        parser.add_argument(name, type=int)
    parser.add_argument("seconds", type=float)
    parser.add_argument("path")
    given = parser.parse_args()
    shares = [
        given.connections // PROCESSES + (n < given.connections % PROCESSES) for n in range(2)
    ]
    jobs = [
        (given.port, given.path, given.most, share, given.seconds, seed)
        for seed, share in enumerate(shares)
        if share
    ]
    started = time.monotonic()
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    with multiprocessing.get_context("fork").Pool(len(jobs)) as pool:
        tallies = pool.starmap(load, jobs)
    took = [seconds for tally, _ in tallies for seconds in tally]
    result = {
        "requests": len(took),
        "seconds": time.monotonic() - started,
        "p50_ms": percentile(took, 0.5) * 1000,
        "p99_ms": percentile(took, 0.99) * 1000,
        "failed": sum(failed for _, failed in tallies),
    }
    print(json.dumps(result))


if __name__ == "__main__":
    main()
