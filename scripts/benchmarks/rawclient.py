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
from dataclasses import dataclass

from benchmarks.figures import percentile

PROCESSES = 2
DRAWS = 20_000
HEAD_END = b"\r\n\r\n"
LENGTH = b"content-length:"
LAST_CHUNK = b"0\r\n\r\n"
GOOD = (b"200", b"304")


@dataclass(frozen=True)
class Job:
    """What one process asks for."""

    port: int
    path: str
    etag: str | None
    most: int
    connections: int
    seconds: float
    seed: int


class Connection:
    """
    One keep-alive connection with one request under way.

    received: bytes, of all answers.
    """

    def __init__(self, port: int, request: bytes) -> None:
        self.socket = socket.create_connection(("127.0.0.1", port))
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.received = 0
        self.send(request)

    def send(self, request: bytes) -> None:
        """Send a request."""
        self._head = b""
        self._body: Body | None = None
        self._began = time.perf_counter()
        self.socket.sendall(request)

    def read(self) -> tuple[bool, float] | None:
        """
        Read what is there; None until the answer has ended.

        Then: whether it was a 200 or 304, and how many seconds it took.
        """
        data = self.socket.recv(262_144)
        if not data:
            raise ConnectionResetError("closed before the answer's end")
        self.received += len(data)
        if self._body is None:
            self._head, end, data = (self._head + data).partition(HEAD_END)
            if not end:
                return None
            self._body = Body(self._head)
        if not self._body.ends_with(data):
            return None
        return self._head.split(b" ", 2)[1] in GOOD, time.perf_counter() - self._began


class Body:
    """What follows a head: so many bytes, or chunks up to an empty one."""

    def __init__(self, head: bytes) -> None:
        headers = head.lower().split(b"\r\n")
        lengths = [line[len(LENGTH) :] for line in headers if line.startswith(LENGTH)]
        self._chunked = b"transfer-encoding: chunked" in headers
        self._left = int(lengths[0]) if lengths else 0
        self._tail = b""

    def ends_with(self, data: bytes) -> bool:
        """Whether the body ends with these bytes, the next of it."""
        self._left -= len(data)
        self._tail = (self._tail + data)[-len(LAST_CHUNK) :]
        return self._tail == LAST_CHUNK if self._chunked else self._left <= 0


def load(job: Job) -> tuple[list[float], int, int]:
    """Keep the connections busy; return the seconds that answers took, the failures, the bytes."""
    requests = _requests(job)
    took: list[float] = []
    failed = 0
    selector = selectors.DefaultSelector()
    connections = [
        Connection(job.port, requests[turn % len(requests)]) for turn in range(job.connections)
    ]
    for opened in connections:
        selector.register(opened.socket, selectors.EVENT_READ, opened)
    until = time.monotonic() + job.seconds
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
    return took, failed, sum(connection.received for connection in connections)


def _requests(job: Job) -> list[bytes]:
    draw = random.Random(job.seed)  # noqa: S311  nothing is kept secret with it
    known = f"If-None-Match: {job.etag}\r\n" if job.etag else ""
    return [
        f"GET {job.path.replace('{id}', str(draw.randint(1, job.most)))} HTTP/1.1\r\n"
        f"Host: 127.0.0.1:{job.port}\r\nAccept: application/json\r\n{known}\r\n".encode()
        for _ in range(DRAWS if "{id}" in job.path else 1)
    ]


def main() -> None:
    """Share the connections out among processes and add up what they saw."""
    parser = argparse.ArgumentParser(description=__doc__)
    for name in ("port", "most", "connections"):
        parser.add_argument(name, type=int)
    parser.add_argument("seconds", type=float)
    parser.add_argument("path")
    parser.add_argument("--etag")
    given = parser.parse_args()
    shares = [
        given.connections // PROCESSES + (n < given.connections % PROCESSES) for n in range(2)
    ]
    jobs = [
        Job(given.port, given.path, given.etag, given.most, share, given.seconds, seed)
        for seed, share in enumerate(shares)
        if share
    ]
    started = time.monotonic()
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    with multiprocessing.get_context("fork").Pool(len(jobs)) as pool:
        tallies = pool.map(load, jobs)
    took = [seconds for tally, *_ in tallies for seconds in tally]
    result = {
        "requests": len(took),
        "seconds": time.monotonic() - started,
        "p50_ms": percentile(took, 0.5) * 1000,
        "p99_ms": percentile(took, 0.99) * 1000,
        "megabytes": sum(received for *_, received in tallies) / 1e6,
        "failed": sum(failed for _, failed, _ in tallies),
    }
    print(json.dumps(result))


if __name__ == "__main__":
    main()
