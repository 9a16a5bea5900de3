"""The chapters on events: the bus alone, many WebSockets.  Otherwise like ``measure``."""

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

EVENTS = 100_000
AUDIENCES = (100, 1_000)
# Deliveries: at once, and per second.
AT_ONCE = 300_000
PACE = 100_000
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
