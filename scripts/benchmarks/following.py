"""
The chapters on a log that grows: one follower, and a thousand.

Otherwise like ``measure``.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator, Sequence
from typing import Any

from benchmarks.catalog import ROW
from benchmarks.measure import Effort, Results
from benchmarks.orders import order
from benchmarks.processes import Processes
from benchmarks.servers import Server
from benchmarks.sockets import PATIENCE_S

PACES = (50, 500)
CROWD = 1_000


def followers(
    servers: Sequence[Server], running: Processes, effort: Effort, results: Results
) -> Iterator[str]:
    """Measure how late a follower has the lines.  Yields what is being done."""
    for per_second in PACES:
        for server in servers:
            yield f"follower, {server.name}, {per_second} appends/s"
            server.fresh(running, ROW.replace("{id}", "1"))
            kind = "buildbot" if server.name == "buildbot" else "buildapi"
            argv = ["benchmarks.follower", kind, str(server.port)]
            found = _followed(server, effort, per_second, argv)
            results.followers[server.name, per_second] = found


def crowds(
    servers: Sequence[Server], running: Processes, effort: Effort, results: Results
) -> Iterator[str]:
    """
    Measure how late a thousand followers have the lines, and what a frame costs.

    Not with Buildbot, whose clients would each fetch each line.  Yields what is being done.
    """
    for per_second in PACES:
        for server in servers:
            yield f"{CROWD} followers of one log, {server.name}, {per_second} appends/s"
            server.fresh(running, ROW.replace("{id}", "1"))
            argv = ["benchmarks.crowd", str(server.port)]
            found = _followed(server, effort, per_second, argv, str(CROWD))
            found["lines_per_frame"] = found["lines"] * CROWD / found["frames"]
            found["cpu_us"] = found["cpu_s"] * 1e6 / found["frames"]
            results.crowds[server.name, per_second] = found


def _followed(
    server: Server, effort: Effort, per_second: int, argv: list[str], *behind: str
) -> dict[str, Any]:
    """
    Have a program follow a new log, which grows, to its end; return its figures and the server's.

    argv: its module and what comes before the id of the log.  behind: what comes after it.
    """
    assert server.orders_port
    logid = order(server.orders_port, "open", buildid=effort.builds)["logid"]
    argv = [sys.executable, "-m", *argv, str(logid), *behind]
    with subprocess.Popen(argv, stdout=subprocess.PIPE, text=True) as program:
        try:
            assert program.stdout
            if program.stdout.readline() != "following\n":
                raise RuntimeError(f"{server.name} can't be followed")
            before_s = _used_s(server)
            paced = order(
                server.orders_port,
                "pace",
                logid=logid,
                per_second=per_second,
                seconds=effort.pace_s,
            )
            output, _ = program.communicate(timeout=PATIENCE_S)
        finally:
            program.kill()
    seen: dict[str, Any] = json.loads(output)
    if seen["lines"] != paced["appends"]:
        raise RuntimeError(f"{server.name}: {seen['lines']} of {paced['appends']} lines came")
    reached = paced["appends"] / paced["seconds"]
    return seen | {"reached_per_second": reached, "cpu_s": _used_s(server) - before_s}


def _used_s(server: Server) -> float:
    assert server.orders_port
    used: float = order(server.orders_port, "cost")["cpu_s"]
    return used
