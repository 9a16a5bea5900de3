"""
The chapters on events: the bus alone, many WebSockets, and who comes back.

Otherwise like ``measure``.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from typing import Any

from benchmarks.catalog import ROW
from benchmarks.measure import Effort, Results
from benchmarks.orders import order
from benchmarks.processes import Processes
from benchmarks.servers import Server
from benchmarks.sockets import Client

EVENTS = 100_000
AUDIENCES = (100, 1_000)
# Deliveries: at once, and per second.
AT_ONCE = 300_000
PACE = 100_000
MISSED = 10_000
STALLED = 100
# Together they have more than what may wait for a client.
BIG_EVENTS, BIG_BYTES = 2_000, 20_000
SMALL_BUFFER = 4_096
# Buildbot would be busy for minutes.
BUILDBOT_AT_ONCE = 10_000


def bus(
    servers: Sequence[Server],  # noqa: ARG001  chapters have one signature
    running: Processes,  # noqa: ARG001
    effort: Effort,
    results: Results,
) -> Iterator[str]:
    """Measure what one bus publishes, by processor time.  Yields what is being done."""
    argv = [sys.executable, "-m", "benchmarks.publishing", str(EVENTS)]
    for _ in range(effort.rounds):
        yield "events published, with 1 to 1,000 subscribers"
        output = subprocess.run(argv, capture_output=True, text=True, check=True).stdout
        for title, rate in json.loads(output).items():
            results.bus.setdefault(title, []).append(rate)


def fanout(
    servers: Sequence[Server], running: Processes, effort: Effort, results: Results
) -> Iterator[str]:
    """Measure what many WebSockets are told of the same events.  Yields what is being done."""
    for clients in AUDIENCES:
        for server in servers:
            at_once = BUILDBOT_AT_ONCE if server.name == "buildbot" else AT_ONCE
            yield f"{clients} clients told of {at_once // clients} events at once, {server.name}"
            told = [
                _tell(server, running, effort, clients, at_once // clients)
                for _ in range(effort.rounds)
            ]
            results.fanout[server.name, clients, "at once"] = told
        for server in servers:
            if server.name != "buildbot":
                per_second = PACE // clients
                yield f"{clients} clients told of {per_second} events/s, {server.name}"
                events = round(per_second * effort.pace_s)
                told = [
                    _tell(server, running, effort, clients, events, per_second)
                    for _ in range(effort.rounds)
                ]
                results.fanout[server.name, clients, "paced"] = told


def _tell(
    server: Server,
    running: Processes,
    effort: Effort,
    clients: int,
    events: int,
    per_second: int = 0,
) -> dict[str, Any]:
    assert server.orders_port
    server.fresh(running, ROW.replace("{id}", "1"))
    kind = "buildbot" if server.name == "buildbot" else "buildapi"
    numbers = map(str, (server.port, clients, effort.builds, events))
    argv = [sys.executable, "-m", "benchmarks.audience", kind, *numbers]
    with subprocess.Popen(argv, stdout=subprocess.PIPE, text=True) as audience:
        try:
            assert audience.stdout
            if audience.stdout.readline() != "listening\n":
                raise RuntimeError(f"{server.name} does not serve {clients} WebSockets")
            before = order(server.orders_port, "cost")
            began = time.monotonic()
            order(
                server.orders_port,
                "tell",
                buildid=effort.builds,
                events=events,
                per_second=per_second,
            )
            output, _ = audience.communicate(timeout=120)
        finally:
            audience.kill()
    heard: dict[str, Any] = json.loads(output)
    used_s = order(server.orders_port, "cost")["cpu_s"] - before["cpu_s"]
    return heard | {
        "per_second": heard["deliveries"] / (heard["ended"] - began),
        "cpu_us": used_s * 1e6 / heard["deliveries"],
    }


def returning(
    servers: Sequence[Server], running: Processes, effort: Effort, results: Results
) -> Iterator[str]:
    """
    Measure how long a client that comes back waits for what it missed, and what those cost who do
    not read.  Yields what is being done.
    """
    for server in servers:
        yield f"{MISSED} events missed, {server.name}"
        server.fresh(running, ROW.replace("{id}", "1"))
        assert server.orders_port
        order(server.orders_port, "tell", buildid=effort.builds, events=MISSED, per_second=0)
        for _ in range(effort.rounds):
            before = order(server.orders_port, "cost")["cpu_s"]
            took_s = _missed(server)
            used_s = order(server.orders_port, "cost")["cpu_s"] - before
            results.returning.setdefault(server.name, []).append(
                {"seconds": took_s, "cpu_s": used_s}
            )
        yield f"{STALLED} clients that do not read, {server.name}"
        # In a process that has no memory to spare yet.
        running.stop(server.name)
        server.start(running)
        results.stalled[server.name] = _stalled(server, effort.builds)


def _missed(server: Server) -> float:
    """Return the seconds in which a client has all that it missed."""
    client = Client(server.port)
    hello = client.ask({"cmd": "hello", "_id": 1}, b'"oldest"')
    command = {"cmd": "subscribe", "topic": "#", "since": json.loads(hello)["seq"] - MISSED}
    began = time.monotonic()
    client.ask(command | {"_id": 2}, b'"synced"')
    took_s = time.monotonic() - began
    if client.told < MISSED:
        raise RuntimeError(f"{client.told} of {MISSED} events came")
    client.socket.close()
    return took_s


def _stalled(server: Server, buildid: int) -> float:
    """Return by how many MiB a client that does not read makes the server grow."""
    assert server.orders_port
    _publish_big(server.orders_port, buildid, 50)
    clients = [Client(server.port, SMALL_BUFFER) for _ in range(STALLED)]
    for client in clients:
        client.ask({"cmd": "subscribe", "topic": "build.#", "_id": 1}, b'"synced"')
    before = order(server.orders_port, "cost")["rss_bytes"]
    _publish_big(server.orders_port, buildid, BIG_EVENTS)
    after = order(server.orders_port, "cost")["peak_bytes"]
    for client in clients[1:]:
        client.socket.close()
    # What waited, or was dropped and read again, is all there.
    clients[0].told = 0
    while clients[0].told < BIG_EVENTS:
        clients[0].count()
    grown: float = (after - before) / STALLED / 2**20
    return grown


def _publish_big(port: int, buildid: int, events: int) -> None:
    order(port, "property", buildid=buildid, events=events, size=BIG_BYTES)
