"""
The chapters of a run: REST, reads of every kind, a busy server, durable appends.

A chapter takes the servers that run and returns what it measured as plain data; what must be right
it checks, and adds a sentence to ``wrong`` if it is not.
"""

from __future__ import annotations

import random
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any

from benchmarks.appender import line
from benchmarks.catalog import LIST, ROW, Read, heaviest, reads
from benchmarks.figures import median
from benchmarks.load import Load, Rate, Running, measured
from benchmarks.orders import order
from benchmarks.processes import Processes
from benchmarks.servers import WARM_UP, Server

CONNECTIONS = (1, 16, 64)
READERS = 16
PRODUCERS = 20
APPENDS = 10_000
SAMPLES = 20
# While heavy requests run: connections that ask for each of them, and for the cheap one.
HEAVY, CHEAP = 2, 4
# Buildbot takes seconds for some answers; a few should come.
BUILDBOT_LOAD_S, BUILDBOT_LOG_S = 4, 12


@dataclass(frozen=True)
class Effort:
    """What to measure on, and for how long."""

    database: str
    builds: int
    rounds: int
    load_s: float
    most_append_s: float
    pace_s: float


@dataclass
class Results:
    """
    What was measured.

    rest: by path, connections and server.  reads: by name and server.  busy: cheap reads, by server
    and whether they were beside the heaviest; heavy: those, by path.  appends: by server and
    whether 16 connections read.  followers: by server and appends per second.  bus: events/s, by
    subscribers.  fanout: what clients were told, by server, clients and "at once" or "paced".
    returning: what it took to tell what was missed, stalled: MiB of a client that does not read,
    both by server.  notes: what could not be measured, and why.
    """

    rest: dict[tuple[str, int, str], list[Rate]] = field(default_factory=dict)
    reads: dict[tuple[str, str], list[Rate]] = field(default_factory=dict)
    busy: dict[tuple[str, bool], list[Rate]] = field(default_factory=dict)
    heavy: dict[str, list[Rate]] = field(default_factory=dict)
    appends: dict[tuple[str, bool], list[dict[str, Any]]] = field(default_factory=dict)
    followers: dict[tuple[str, int], dict[str, Any]] = field(default_factory=dict)
    crowds: dict[tuple[str, int], dict[str, Any]] = field(default_factory=dict)
    bus: dict[str, list[float]] = field(default_factory=dict)
    returning: dict[str, list[dict[str, float]]] = field(default_factory=dict)
    stalled: dict[str, float] = field(default_factory=dict)
    fanout: dict[tuple[str, int, str], list[dict[str, Any]]] = field(default_factory=dict)
    equal_rows: bool | None = None
    notes: list[str] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)

    def rate(self, path: str, connections: int, server: str) -> float | None:
        """Requests per second, the middle one of the rounds."""
        rates = self.rest.get((path, connections, server))
        return median([rate.per_second for rate in rates]) if rates else None

    def latency(self, path: str, connections: int, server: str, what: str) -> float | None:
        """The p50 or p99 of an answer in milliseconds, the middle one of the rounds."""
        rates = self.rest.get((path, connections, server))
        return median([getattr(rate, f"{what}_ms") for rate in rates]) if rates else None

    def read(self, read: Read, server: str) -> float | None:
        """Answers or megabytes per second, the middle one of the rounds."""
        rates = self.reads.get((read.name, server), [])
        per_second = [r.megabytes_per_second if read.megabytes else r.per_second for r in rates]
        return median(per_second) if rates else None

    def appended(self, server: str, reading: bool, what: str = "per_second") -> float | None:
        """A figure of the appends, the middle one of the rounds."""
        found = self.appends.get((server, reading))
        return median([one[what] for one in found]) if found else None

    def told(self, server: str, clients: int, how: str, what: str) -> float | None:
        """A figure of the fan-out, the middle one of the rounds."""
        found = self.fanout.get((server, clients, how))
        return median([one[what] for one in found]) if found else None


def rest(
    servers: Sequence[Server], running: Processes, effort: Effort, results: Results
) -> Iterator[str]:
    """
    Measure single rows and lists of 50, in turn on each server, so that all have the same weather.

    Yields what is being done.
    """
    _compare(servers, [LIST, *_some_rows(effort)], results)
    for path in (ROW, LIST):
        for connections in CONNECTIONS:
            yield f"{path}, {connections} connections"
            load = Load(path, connections, effort.builds)
            for _ in range(effort.rounds):
                for server in servers:
                    server.fresh(running, path.replace("{id}", "1"))
                    rate = measured(load, server.port, effort.load_s)
                    results.rest.setdefault((path, connections, server.name), []).append(rate)
                    _tell_failures(server, path, rate, results)


def _some_rows(effort: Effort) -> list[str]:
    draw = random.Random(1)  # noqa: S311  nothing is kept secret with it
    return [ROW.replace("{id}", str(draw.randint(1, effort.builds))) for _ in range(SAMPLES)]


def _compare(servers: Sequence[Server], paths: Iterable[str], results: Results) -> None:
    """Check that the two real servers give the same rows; what Buildbot counts as total differs."""
    real = [server for server in servers if server.name in {"buildapi", "buildbot"}]
    if len(real) < len({"buildapi", "buildbot"}):
        return
    if results.equal_rows is None:
        results.equal_rows = True
    for path in paths:
        one, other = (_rows(server.get(path)) for server in real)
        if one != other:
            results.equal_rows = False
            results.wrong.append(f"buildapi and Buildbot differ in {path}")


def _rows(answer: dict[str, Any]) -> list[Any]:
    """
    Return the rows of an answer as far as two servers can agree on them.

    Buildbot takes builders that its configuration does not have from its master when it starts, and
    gives changes in an order of its own; without an order, elements of lists come as they come.
    """
    (rows,) = (value for name, value in answer.items() if name != "meta")
    found = [
        {name: sorted(value) if name in {"tags", "files"} else value for name, value in row.items()}
        for row in rows
    ]
    for row in found:
        row.pop("masterids", None)
    return sorted(found, key=lambda row: row.get("changeid", 0))


def all_reads(
    servers: Sequence[Server], running: Processes, effort: Effort, results: Results
) -> Iterator[str]:
    """Measure reads of every kind, in turn on each server.  Yields what is being done."""
    for read in reads(effort.builds):
        warm_path = read.path.replace("{id}", "1")
        etag = servers[0].etag(warm_path) if read.unchanged else None
        if read.unchanged and etag is None:
            results.notes.append(f"{read.name.strip()}: no ETag, so nothing to measure")
            continue
        if not read.megabytes:
            for server in servers:
                server.recover(running, warm_path)
            _compare(servers, [warm_path], results)
        yield f"{read.path}, {read.connections} connections{', unchanged' if etag else ''}"
        load = Load(read.path, read.connections, read.most, etag)
        for _ in range(effort.rounds):
            for server in servers:
                try:
                    server.fresh(running, warm_path, most=1 if read.megabytes else WARM_UP)
                except TimeoutError:
                    if not server.fragile:
                        raise
                    results.notes.append(f"{server.name} gave no answer to {read.path}")
                    continue
                rate = measured(load, server.port, _patience(server, read, effort))
                results.reads.setdefault((read.name, server.name), []).append(rate)
                _tell_failures(server, read.path, rate, results)


def _patience(server: Server, read: Read, effort: Effort) -> float:
    """Return how long to load: Buildbot takes seconds for an answer, and one should come."""
    if not server.fragile:
        return effort.load_s
    return max(BUILDBOT_LOG_S if read.megabytes else BUILDBOT_LOAD_S, effort.load_s)


def _tell_failures(server: Server, path: str, rate: Rate, results: Results) -> None:
    if rate.failed:
        what = f"{rate.failed} of {rate.requests} requests for {path}"
        results.wrong.append(f"{server.name}: {what} failed")


def busy(
    servers: Sequence[Server], running: Processes, effort: Effort, results: Results
) -> Iterator[str]:
    """
    Measure a cheap read alone, and beside the heaviest requests to the first of the servers.

    On the others too: what they lose, they lose to the machine.  Yields what is being done.
    """
    paths = heaviest(effort.builds)
    for _ in range(effort.rounds):
        yield "a cheap read alone"
        _probe(servers, running, effort, results, beside=False)
        yield f"a cheap read beside {HEAVY} each of {len(paths)} heavy ones"
        seconds = effort.load_s * len(servers) + 3
        with ExitStack() as stack:
            heavy = [
                Running(Load(path, HEAVY), servers[0].port, seconds, polite=True) for path in paths
            ]
            for one in heavy:
                stack.enter_context(one)
            time.sleep(1)  # until all of them are at work
            _probe(servers, running, effort, results, beside=True)
            for path, one in zip(paths, heavy, strict=True):
                results.heavy.setdefault(path, []).append(one.result())


def _probe(
    servers: Sequence[Server],
    running: Processes,
    effort: Effort,
    results: Results,
    *,
    beside: bool,
) -> None:
    load = Load(ROW, CHEAP, effort.builds)
    for server in servers:
        server.fresh(running, ROW.replace("{id}", "1"))
        rate = measured(load, server.port, effort.load_s)
        results.busy.setdefault((server.name, beside), []).append(rate)
        _tell_failures(server, ROW, rate, results)


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
