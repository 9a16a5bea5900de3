"""Server processes: started together, known to answer, and ended whatever happens."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import FrameType

MOST_SERVERS = 8
LONGEST_RUN_S = 1800
PATIENCE_S = 120.0
STOP_S = 10.0


class DidNotStart(RuntimeError):
    """A server ended, or stayed silent for too long; the text ends with the end of its log."""


def free_port() -> int:
    """A TCP port of the loopback interface that nobody listened on a moment ago."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def listens(port: int) -> bool:
    """Whether somebody accepts connections there."""
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
        return True
    return False


class Processes:
    """The processes of one run, each in a process group of its own, with a log file each."""

    def __init__(self, logs: Path) -> None:
        self._logs = logs
        self._running: list[tuple[str, subprocess.Popen[bytes]]] = []

    def start(
        self,
        name: str,
        argv: list[str],
        *,
        ready: Callable[[], bool],
        env: Mapping[str, str] | None = None,
        cwd: Path | None = None,
    ) -> int:
        """Start a server and return its process id once ``ready()`` is true."""
        if len(self._running) >= MOST_SERVERS:
            raise DidNotStart(f"{name}: would be more than {MOST_SERVERS} servers")
        log = self._logs / f"{name}.log"
        with log.open("wb") as output:
            process = subprocess.Popen(
                _bounded(argv),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                env=os.environ | (env or {}),
                cwd=cwd,
                start_new_session=True,
            )
        self._running.append((name, process))
        deadline = time.monotonic() + PATIENCE_S
        while not ready():
            if process.poll() is not None or time.monotonic() > deadline:
                tail = log.read_text(errors="replace")[-2000:]
                self.stop(name)
                raise DidNotStart(f"{name}: does not answer; the end of {log}:\n{tail}")
            time.sleep(0.1)
        return process.pid

    def stop(self, name: str) -> None:
        """End one server."""
        for entry in [entry for entry in self._running if entry[0] == name]:
            self._running.remove(entry)
            _end(entry[1])

    def stop_all(self) -> None:
        """End them all, the last one first."""
        while self._running:
            _end(self._running.pop()[1])


@contextlib.contextmanager
def processes(logs: Path) -> Iterator[Processes]:
    """Processes that are gone when the block is left: by its end, an error, Ctrl-C or SIGTERM."""
    logs.mkdir(parents=True, exist_ok=True)
    before = {number: signal.signal(number, _leave) for number in (signal.SIGTERM, signal.SIGHUP)}
    running = Processes(logs)
    try:
        yield running
    finally:
        # A second Ctrl-C must not leave half of them behind.
        interrupt = signal.signal(signal.SIGINT, signal.SIG_IGN)
        running.stop_all()
        for number, handler in (before | {signal.SIGINT: interrupt}).items():
            signal.signal(number, handler)


def _leave(number: int, _frame: FrameType | None) -> None:
    raise SystemExit(128 + number)


def _bounded(argv: list[str]) -> list[str]:
    # Should this program be killed outright, its servers still end some day.
    timeout = shutil.which("timeout")
    return [timeout, "--signal=KILL", str(LONGEST_RUN_S), *argv] if timeout else argv


def _end(process: subprocess.Popen[bytes]) -> None:
    for number in (signal.SIGTERM, signal.SIGKILL):
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, number)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(STOP_S)
            return
