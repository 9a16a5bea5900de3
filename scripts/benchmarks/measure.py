"""
The three chapters of a run: REST, durable appends, followers.

A chapter takes the servers that run and returns what it measured as plain data; what must be right
it checks, and adds a sentence to ``wrong`` if it is not.
"""

from __future__ import annotations

import json
import random
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from benchmarks.appender import line
from benchmarks.figures import median
from benchmarks.load import Load, Rate, Running, measured
from benchmarks.orders import order
from benchmarks.processes import Processes
from benchmarks.servers import Server

ROW, LIST = "/api/v2/builds/{id}", "/api/v2/builds?limit=50&order=-buildid"
CONNECTIONS = (1, 16, 64)
READERS = 16
PRODUCERS = 20
APPENDS = 10_000
PACES = (50, 500)
SAMPLES = 20


@dataclass(frozen=True)
class Effort:
    """How long to measure."""

    builds: int
    rounds: int
    load_s: float
    most_append_s: float
    pace_s: float


@dataclass
class Results:
    """
    What was measured.

    rest: by path, connections and server.  appends: by server and whether 16 connections read.
    followers: by server and appends per second.
    """

    rest: dict[tuple[str, int, str], list[Rate]] = field(default_factory=dict)
    appends: dict[tuple[str, bool], list[dict[str, Any]]] = field(default_factory=dict)
    followers: dict[tuple[str, int], dict[str, Any]] = field(default_factory=dict)
    equal_rows: bool | None = None
    wrong: list[str] = field(default_factory=list)

    def rate(self, path: str, connections: int, server: str) -> float | None:
        """Requests per second, the middle one of the rounds."""
        rates = self.rest.get((path, connections, server))
        return median([rate.per_second for rate in rates]) if rates else None

    def latency(self, path: str, connections: int, server: str, what: str) -> float | None:
        """The p50 or p99 of an answer in milliseconds, the middle one of the rounds."""
        rates = self.rest.get((path, connections, server))
        return median([getattr(rate, f"{what}_ms") for rate in rates]) if rates else None

    def appended(self, server: str, reading: bool, what: str = "per_second") -> float | None:
        """A figure of the appends, the middle one of the rounds."""
        found = self.appends.get((server, reading))
        return median([one[what] for one in found]) if found else None


def rest(
    servers: Sequence[Server], running: Processes, effort: Effort, results: Results
) -> Iterator[str]:
    """
    Measure single rows and lists of 50, in turn on each server, so that all have the same weather.

    Yields what is being done.
    """
    _compare(servers, effort, results)
    for path in (ROW, LIST):
        for connections in CONNECTIONS:
            yield f"{path}, {connections} connections"
            load = Load(path, connections, effort.builds)
            for _ in range(effort.rounds):
                for server in servers:
                    server.fresh(running, path.replace("{id}", "1"))
                    rate = measured(load, server.port, effort.load_s)
                    results.rest.setdefault((path, connections, server.name), []).append(rate)
                    if rate.failed:
                        what = f"{rate.failed} of {rate.requests} requests for {path}"
                        results.wrong.append(f"{server.name}: {what} failed")


def _compare(servers: Sequence[Server], effort: Effort, results: Results) -> None:
    """Check that the two real servers give the same rows; what Buildbot counts as total differs."""
    real = [server for server in servers if server.name in {"buildapi", "buildbot"}]
    if len(real) < len({"buildapi", "buildbot"}):
        return
    draw = random.Random(1)  # noqa: S311  nothing is kept secret with it
    drawn = [draw.randint(1, effort.builds) for _ in range(SAMPLES)]
    results.equal_rows = True
    for path in [LIST, *(ROW.replace("{id}", str(n)) for n in drawn)]:
        one, other = (server.get(path)["builds"] for server in real)
        if one != other:
            results.equal_rows = False
            results.wrong.append(f"buildapi and Buildbot differ in {path}")


def appends(
    servers: Sequence[Server], running: Processes, effort: Effort, results: Results
) -> Iterator[str]:
    """Measure durable appends, idle and while others read.  Yields what is being done."""
    for reading in (False, True):
        for server in servers:
            yield f"appends, {server.name}{f', {READERS} connections reading' if reading else ''}"
            for _ in range(effort.rounds):
                server.fresh(running, ROW.replace("{id}", "1"))
                answer = _append(server, effort, reading=reading)
                found = results.appends.setdefault((server.name, reading), [])
                found.append(answer)
                server.fresh(running, ROW.replace("{id}", "1"))
                results.wrong += _misstored(server, answer.pop("logs"))


def _append(server: Server, effort: Effort, *, reading: bool) -> dict[str, Any]:
    assert server.orders_port
    arguments = {
        "buildids": list(range(effort.builds - PRODUCERS + 1, effort.builds + 1)),
        "appends": APPENDS,
        "most_s": effort.most_append_s,
    }
    if not reading:
        answer = order(server.orders_port, "append", **arguments)
    else:
        load = Load(ROW, READERS, effort.builds)
        with Running(load, server.port, effort.most_append_s + 10) as reads:
            time.sleep(0.5)  # until all readers are at work
            answer = order(server.orders_port, "append", **arguments)
            answer["reads_per_second"] = reads.result(now=True).per_second
    answer["per_second"] = answer["appends"] / answer["seconds"]
    return answer


def _misstored(server: Server, logs: Mapping[str, int]) -> Iterable[str]:
    """Say what is wrong with logs that should hold every line once, in order."""
    for producer, (logid, lines) in enumerate(logs.items()):
        wanted = "".join(line(producer, number) + "\n" for number in range(lines))
        (log,) = server.get(f"/api/v2/logs/{logid}")["logs"]
        (chunk,) = server.get(f"/api/v2/logs/{logid}/contents")["logchunks"]
        if chunk["content"] != wanted or log["num_lines"] != lines:
            yield f"{server.name}: log {logid} does not hold its {lines} lines once and in order"


def followers(
    servers: Sequence[Server], running: Processes, effort: Effort, results: Results
) -> Iterator[str]:
    """Measure how late a follower has the lines.  Yields what is being done."""
    for per_second in PACES:
        for server in servers:
            yield f"follower, {server.name}, {per_second} appends/s"
            server.fresh(running, ROW.replace("{id}", "1"))
            results.followers[server.name, per_second] = _follow(server, effort, per_second)


def _follow(server: Server, effort: Effort, per_second: int) -> dict[str, Any]:
    assert server.orders_port
    logid = order(server.orders_port, "open", buildid=effort.builds)["logid"]
    kind = "buildbot" if server.name == "buildbot" else "buildapi"
    argv = [sys.executable, "-m", "benchmarks.follower", kind, str(server.port), str(logid)]
    with subprocess.Popen(argv, stdout=subprocess.PIPE, text=True) as follower:
        try:
            assert follower.stdout
            if follower.stdout.readline() != "following\n":
                raise RuntimeError(f"{server.name} can't be followed")
            paced = order(
                server.orders_port,
                "pace",
                logid=logid,
                per_second=per_second,
                seconds=effort.pace_s,
            )
            output, _ = follower.communicate(timeout=60)
        finally:
            follower.kill()
    seen: dict[str, Any] = json.loads(output)
    if seen["lines"] != paced["appends"]:
        raise RuntimeError(f"{server.name}: {seen['lines']} of {paced['appends']} lines came")
    return seen | {"reached_per_second": paced["appends"] / paced["seconds"]}
