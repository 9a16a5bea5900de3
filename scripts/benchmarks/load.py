"""Requests per second: many keep-alive connections that ask again as soon as they are answered."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

# How much longer than it was told to a load may take: its slowest answer, and its summary.
GRACE_S = 20


@dataclass(frozen=True)
class Load:
    """
    What is asked, and by how many connections.

    path: may hold ``{id}``, which becomes a number drawn from 1..most for each request.
    etag: the version of the answer that is known already.
    """

    path: str
    connections: int
    most: int = 1
    etag: str | None = None


@dataclass(frozen=True)
class Rate:
    """
    What came of a load.

    failed: answers that were no 200 or 304, and connections that broke.  megabytes: all that came,
    also of answers that had not ended.
    """

    requests: int
    seconds: float
    p50_ms: float
    p99_ms: float
    megabytes: float
    failed: int

    @property
    def per_second(self) -> float:
        """Answers per second."""
        return self.requests / self.seconds

    @property
    def megabytes_per_second(self) -> float:
        """How much was read."""
        return self.megabytes / self.seconds


class Running:
    """
    A load that has been put on a server; ends with its block at the latest.

    polite: it leaves the processor to others, so that a load that is measured beside it is not slow
    for want of one.
    """

    def __init__(self, load: Load, port: int, seconds: float, *, polite: bool = False) -> None:
        self._seconds = seconds
        self._process = subprocess.Popen(
            [*(("nice",) if polite else ()), *_command(load, port, seconds)],
            stdout=subprocess.PIPE,
            start_new_session=True,
            text=True,
        )

    def result(self, *, now: bool = False) -> Rate:
        """Wait for the end, or make it end now, and return what came of it."""
        if now:
            self._process.send_signal(signal.SIGINT)
        output, _ = self._process.communicate(timeout=self._seconds + GRACE_S)
        try:
            return Rate(**json.loads(output.strip().splitlines()[-1]))
        except (IndexError, ValueError):
            raise RuntimeError(f"the load generator said: {output}") from None

    def __enter__(self) -> Self:
        """It runs already."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        where: TracebackType | None,
    ) -> None:
        """End it, if it has not ended."""
        if self._process.poll() is None:
            self._process.kill()
            self._process.wait()


def measured(load: Load, port: int, seconds: float) -> Rate:
    """Put a load on a server for some seconds."""
    with Running(load, port, seconds) as running:
        return running.result()


def generator() -> str:
    """The name of the load generator in use."""
    wrk = shutil.which("wrk")
    if wrk is None:
        return "own client"
    said = subprocess.run([wrk, "-v"], capture_output=True, text=True, check=False)
    return " ".join(said.stdout.split()[:2])


def _command(load: Load, port: int, seconds: float) -> list[str]:
    wrk = shutil.which("wrk")
    if wrk is None:
        numbers = [str(n) for n in (port, load.most, load.connections, seconds)]
        argv = [sys.executable, "-m", "benchmarks.rawclient", *numbers, load.path]
        return [*argv, "--etag", load.etag] if load.etag else argv
    script = Path(__file__).with_name("wrk.lua")
    return [
        *(wrk, "-t1", f"-c{load.connections}", f"-d{max(1, round(seconds))}s", "--timeout", "10s"),
        *("-H", "Accept: application/json", "-s", str(script)),
        *(("-H", f"If-None-Match: {load.etag}") if load.etag else ()),
        *(f"http://127.0.0.1:{port}", "--", load.path, str(load.most)),
    ]
