"""
Many followers of one log, each on a WebSocket of its own, in one process.

``python -m benchmarks.crowd PORT LOGID FOLLOWERS``

Prints "following" when all have begun, and at the log's end one line of JSON. Each checks that the
frames follow one another; some also look how late each line is.
"""

from __future__ import annotations

import json
import re
import selectors
import sys
import time
from typing import Any

from benchmarks.delays import Delays
from benchmarks.figures import percentile
from benchmarks.sockets import PATIENCE_S, Client

SAMPLES = 20
EXTENT = re.compile(rb'"first":(\d+),"next":(\d+)')


class Follower(Client):
    """
    One of them.

    delays: where it takes the time; None if it does not.  next: the line that comes next.
    """

    def __init__(self, port: int, logid: int, delays: Delays | None) -> None:
        super().__init__(port)
        self.delays = delays
        self.next = 0
        self.ended = False
        self.ask({"cmd": "followLog", "logid": logid, "_id": 1}, b'"msg"')
        self.told = 0

    def take(self) -> None:
        """Take what has come."""
        frames = self.frames()
        now_ns = time.monotonic_ns()
        for frame in frames:
            extent = EXTENT.search(frame)
            if extent is None:
                self.ended = json.loads(frame)["end"]["num_lines"] == self.next
                continue
            first, end = map(int, extent.groups())
            if first != self.next:
                raise ValueError(f"line {first} came instead of line {self.next}")
            self.next = end
            self.told += 1
            if self.delays is not None:
                self.delays.take(json.loads(frame)["content"], now_ns)


def told(followers: list[Follower]) -> dict[str, Any]:
    """Read until all have come to the end; say what came, and how late."""
    selector = selectors.DefaultSelector()
    for follower in followers:
        selector.register(follower.socket, selectors.EVENT_READ, follower)
    until = time.monotonic() + PATIENCE_S
    while selector.get_map():
        if time.monotonic() > until:
            raise TimeoutError(f"after {PATIENCE_S} s lines are missing")
        for key, _ in selector.select(1):
            key.data.take()
            if key.data.ended:
                selector.unregister(key.fileobj)
    ms = [one for follower in followers if follower.delays for one in follower.delays.ms]
    return {
        "lines": min(follower.next for follower in followers),
        "frames": sum(follower.told for follower in followers),
        "p50_ms": percentile(ms, 0.5),
        "p99_ms": percentile(ms, 0.99),
    }


def main(port: str, logid: str, number: str) -> None:
    """Follow to the end and print the figures."""
    every = max(1, int(number) // SAMPLES)
    followers = [
        Follower(int(port), int(logid), None if n % every else Delays()) for n in range(int(number))
    ]
    print("following", flush=True)
    print(json.dumps(told(followers)))


if __name__ == "__main__":
    main(*sys.argv[1:4])
