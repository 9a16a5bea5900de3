"""What was measured, as chapters of a table and for programs."""

from __future__ import annotations

import os
import platform
import sqlite3
from collections.abc import Iterator
from dataclasses import asdict
from typing import Any

from benchmarks.catalog import LIST, ROW, reads
from benchmarks.figures import median
from benchmarks.following import CROWD, PACES
from benchmarks.load import generator
from benchmarks.measure import CHEAP, CONNECTIONS, HEAVY, READERS, Effort, Results
from benchmarks.stalled import CLIENTS, ROADS
from benchmarks.streams import AUDIENCES, MISSED, PACE, STALLED
from benchmarks.table import SERVERS, Aim, Chapter, Figure

# Who appends.
MASTERS = ("embedder", "buildbot")
DATABASES = {
    "sqlite": f"SQLite {sqlite3.sqlite_version}",
    "postgresql": "PostgreSQL",
    "mariadb": "MariaDB",
}


def chapters(results: Results, builds: int) -> list[Chapter]:
    """Arrange what was measured; a chapter that was not measured is left out."""
    found = []
    if results.rest:
        found.append(Chapter("REST, requests/s, keep-alive", list(_requests(results))))
        found.append(Chapter("REST, latency in ms", list(_latencies(results))))
    if results.reads:
        title = "Reads of every kind, requests/s, 16 connections (raw log: 2)"
        found.append(Chapter(title, list(_reads(results, builds))))
    if results.busy:
        title = f"p99 in ms of a single build, {CHEAP} connections"
        found.append(Chapter(title, list(_busy(results))))
    if results.appends:
        title = "Durable appends/s, one line each, 20 builds at once, each waiting for its commit"
        found.append(Chapter(title, list(_appends(results))))
    if results.followers:
        title = "Follower, ms from append to the line at the client"
        found.append(Chapter(title, list(_followers(results))))
    if results.crowds:
        title = f"{CROWD:,} followers of one log, ms from append to the line at each"
        found.append(Chapter(title, list(_crowds(results))))
    return [*found, *_of_events(results)]


def _of_events(results: Results) -> list[Chapter]:
    found = []
    if results.bus:
        title = "Bus, events published per second of processor time, by subscribers"
        found.append(Chapter(title, list(_bus(results))))
    if results.returning:
        found.append(Chapter("Who comes back, and who does not read", list(_returning(results))))
    if ROADS.keys() & results.stalled.keys():
        title = f"{CLIENTS} clients that do not read, MiB each"
        found.append(Chapter(title, list(_stalled(results))))
    if results.fanout:
        title = "Events told over WebSockets, deliveries/s"
        found.append(Chapter(title, list(_fanout(results))))
    return found


def machine(effort: Effort) -> dict[str, Any]:
    """What the figures depend on; ask before the run, so that its own work is not in the load."""
    return {
        "load_before": os.getloadavg()[0],
        "cores": len(os.sched_getaffinity(0)),
        "python": platform.python_version(),
        "database": DATABASES[effort.database],
        "load": generator(),
        "effort": asdict(effort),
    }


def as_json(facts: dict[str, Any], results: Results) -> dict[str, Any]:
    """Everything that was measured, for programs."""
    return {
        "machine": facts,
        "chapters": [
            {
                "title": chapter.title,
                "figures": [
                    asdict(figure)
                    | {"times": figure.times, "share": figure.share, "verdict": figure.verdict}
                    for figure in chapter.figures
                ],
            }
            for chapter in chapters(results, facts["effort"]["builds"])
        ],
        "equal_rows": results.equal_rows,
        "notes": results.notes,
        "wrong": results.wrong,
    }


def _requests(results: Results) -> Iterator[Figure]:
    aims = {
        (ROW, READERS): (Aim(12, "times"), Aim(45, "share")),
        (LIST, READERS): (Aim(70, "times"),),
    }
    for path, name in ((ROW, "single row"), (LIST, "list of 50")):
        for connections in CONNECTIONS:
            rates = [results.rate(path, connections, server) for server in SERVERS]
            yield Figure(_title(name, connections), rates, aims.get((path, connections), ()))


def _latencies(results: Results) -> Iterator[Figure]:
    for path, name in ((ROW, "single row"), (LIST, "list of 50")):
        for connections in CONNECTIONS:
            for what in ("p50", "p99"):
                title = f"{_title(name, connections)}, {what}"
                times = [results.latency(path, connections, one, what) for one in SERVERS]
                yield Figure(title, times, lower_is_better=True)


def _reads(results: Results, builds: int) -> Iterator[Figure]:
    for read in reads(builds):
        rates = [results.read(read, server) for server in SERVERS[:2]]
        aims = () if read.aim is None else (Aim(read.aim, "times"),)
        if rates[0] is not None:
            yield Figure(f"  {read.name}", rates, aims)


def _busy(results: Results) -> Iterator[Figure]:
    for beside, title in ((False, "  alone"), (True, f"  beside {HEAVY} each of:")):
        found = [results.busy.get((server, beside)) for server in SERVERS]
        p99 = [median([rate.p99_ms for rate in rates]) if rates else None for rates in found]
        yield Figure(title, p99, (Aim(20, "at_most"),) if beside else (), lower_is_better=True)
    for path, rates in results.heavy.items():
        yield Figure(f"    {path}, MB/s", [median([rate.megabytes_per_second for rate in rates])])


def _appends(results: Results) -> Iterator[Figure]:
    for reading, aim in ((False, 12_000), (True, 2_000)):

        def found(what: str, reading: bool = reading) -> list[float | None]:
            return [results.appended(one, reading, what) for one in MASTERS]

        title = f"  {READERS} connections reading" if reading else "  idle"
        yield Figure(title, found("per_second"), (Aim(aim, "buildapi"),))
        yield Figure("    p50 of one append, ms", found("p50_ms"), lower_is_better=True)
        yield Figure("    p99 of one append, ms", found("p99_ms"), lower_is_better=True)
        if reading:
            yield Figure("    rows read meanwhile, requests/s", found("reads_per_second"))


def _followers(results: Results) -> Iterator[Figure]:
    for per_second in PACES:
        found = [results.followers.get((one, per_second), {}) for one in MASTERS]
        for what, most in (("p50", 5), ("p99", 25)):
            title = f"  {per_second} appends/s wanted, {what}"
            aims = (Aim(most, "at_most"),) if per_second == PACES[-1] else ()
            values = [one.get(f"{what}_ms") for one in found]
            yield Figure(title, values, aims, lower_is_better=True)
        yield Figure("    appends/s reached", [one.get("reached_per_second") for one in found])


def _crowds(results: Results) -> Iterator[Figure]:
    for per_second in PACES:
        found = results.crowds.get((MASTERS[0], per_second), {})
        for what in ("p50", "p99"):
            title = f"  {per_second} appends/s wanted, {what}"
            yield Figure(title, [found.get(f"{what}_ms")], lower_is_better=True)
        for what, title in (
            ("reached_per_second", "    appends/s reached"),
            ("lines_per_frame", "    lines in a frame"),
            ("cpu_us", "    processor time of the server for a frame, µs"),
        ):
            yield Figure(title, [found.get(what)], lower_is_better=what == "cpu_us")


def _bus(results: Results) -> Iterator[Figure]:
    for title, rates in results.bus.items():
        aims = (Aim(500_000, "buildapi"),) if title.startswith("1,000 not") else ()
        yield Figure(f"  {title}", [median(rates)], aims)


def _fanout(results: Results) -> Iterator[Figure]:
    for clients in AUDIENCES:

        def found(how: str, what: str, clients: int = clients) -> list[float | None]:
            return [results.told(one, clients, how, what) for one in MASTERS]

        aims = (Aim(100_000, "buildapi"),) if clients == AUDIENCES[0] else ()
        yield Figure(
            f"  {clients:,} clients, all events at once", found("at once", "per_second"), aims
        )
        cpu = "    processor time of the server for each, µs"
        yield Figure(cpu, found("at once", "cpu_us"), lower_is_better=True)
        yield Figure(
            f"  {clients:,} clients, {PACE:,} deliveries/s wanted", found("paced", "per_second")
        )
        yield Figure(cpu, found("paced", "cpu_us"), lower_is_better=True)
        for what in ("p50", "p99"):
            yield Figure(f"    ms late, {what}", found("paced", f"{what}_ms"), lower_is_better=True)


def _returning(results: Results) -> Iterator[Figure]:
    (server,) = MASTERS[:1]
    found = results.returning[server]
    for what, title, aims in (
        ("seconds", f"  {MISSED:,} events missed, s until all are there", (Aim(1, "at_most"),)),
        ("cpu_s", "    processor time of the server, s", ()),
    ):
        yield Figure(title, [median([one[what] for one in found])], aims, lower_is_better=True)
    aims = (Aim(8.0625, "at_most"),)
    title = f"  {STALLED} clients that do not read, MiB each"
    yield Figure(title, [results.stalled[server]], aims, lower_is_better=True)


def _stalled(results: Results) -> Iterator[Figure]:
    for road in ROADS:
        found = [results.stalled.get(road)]
        yield Figure(f"  {road}", found, (Aim(8.0625, "at_most"),), lower_is_better=True)


def _title(name: str, connections: int) -> str:
    return f"  {name}, {connections} connection{'s' if connections > 1 else ''}"
