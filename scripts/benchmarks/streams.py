"""The chapters on events: the bus alone.  Otherwise like ``measure``."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator, Sequence

from benchmarks.measure import Effort, Results
from benchmarks.processes import Processes
from benchmarks.servers import Server

EVENTS = 100_000


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
