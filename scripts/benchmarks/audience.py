"""
Many WebSockets that are told the same events, in one process that does as little as it can.

``python -m benchmarks.audience buildapi|buildbot PORT CLIENTS BUILDID EVENTS``

Prints "listening" when all have subscribed to the events of the build, and one line of JSON when
each has been told so many. Most clients only count frames by their headers; every tenth looks for
the stamp in them: how late a delivery came.
"""

from __future__ import annotations

import json
import re
import selectors
import sys
import time
from collections.abc import Sequence
from typing import Any

from benchmarks.figures import percentile
from benchmarks.sockets import PATIENCE_S, Client

SAMPLE_EVERY = 10
NS_PER_MS = 1e6
STAMP = re.compile(rb'"state_string": ?"\d+ (\d+)')


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
