"""Run one command as a real process, and hand on what it writes as whole lines."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.error import ProcessExitedAlready
from twisted.internet.interfaces import IDelayedCall, IReactorCore, IReactorProcess, IReactorTime
from twisted.internet.protocol import ProcessProtocol
from twisted.python.failure import Failure

from .lines import LineSplitter

# Isolated and without site packages, the leash is on its way in a hundredth of a second.
LEASH = (sys.executable, "-I", "-S", str(Path(__file__).with_name("leash.py")))

# A daemon in a session of its own escapes the leash; if it keeps the output open, it's cut off.
LINGER_S = 5.0

OUTPUTS = {1: "o", 2: "e"}


class Reactor(IReactorCore, IReactorProcess, IReactorTime):
    """What this master wants of a reactor."""


class Command(ProcessProtocol):
    """
    One run of a command.

    write: called with whole lines as they come, ``o`` or ``e`` before each.
    ended: fires with the exit code (minus the signal, if one ended it) after the last line.
    A producer (pauseProducing, resumeProducing): while paused, its pipes fill and it must wait.
    """

    def __init__(self, reactor: Reactor, write: Callable[[str], None]) -> None:
        self.ended: Deferred[int] = Deferred()
        self._reactor = reactor
        self._write = write
        self._streams = {fd: LineSplitter(prefix) for fd, prefix in OUTPUTS.items()}
        self._timer: IDelayedCall | None = None
        self._paused = False

    def start(self, command: Sequence[str], env: Mapping[str, str], directory: Path) -> None:
        """Start it, with nothing to read on its standard input."""
        arguments = [*LEASH, str(directory), *command]
        self._reactor.spawnProcess(self, arguments[0], arguments, env)

    def stop(self, grace_s: float) -> None:
        """Ask the command and all its children to end; kill them if they haven't in time."""
        self._signal(signal.SIGTERM)
        self._after(grace_s, lambda: self._signal(signal.SIGKILL))

    def pauseProducing(self) -> None:
        """Read nothing more from its pipes for now."""
        self._paused = True
        self._process.pauseProducing()

    def resumeProducing(self) -> None:
        """Read its pipes again."""
        self._paused = False
        self._process.resumeProducing()

    def childDataReceived(self, childFD: int, data: bytes) -> None:
        """Hand on the lines that are whole now."""
        self._write(self._streams[childFD].feed(data))

    def processExited(self, reason: Failure) -> None:  # noqa: ARG002 -- processEnded looks at it
        """Let go of the leash: the watcher kills what the command has left behind."""
        self._process.closeStdin()
        self._after(LINGER_S, self._cut_off)

    def processEnded(self, reason: Failure) -> None:
        """Hand on the last line, and tell how it ended."""
        self._cancel()
        for stream in self._streams.values():
            self._write(stream.end())
        end: Any = reason.value
        self.ended.callback(-end.signal if end.signal else end.exitCode)

    @property
    def _process(self) -> Any:
        """twisted.internet.process.Process: untyped, and a producer besides its interface."""
        return self.transport

    def _signal(self, number: int) -> None:
        """Signal the process group; if there is none yet, nothing has begun that could tidy up."""
        pid = self._process.pid
        if pid is None:
            return
        try:
            os.killpg(pid, number)
        except ProcessLookupError:
            with suppress(ProcessExitedAlready):
                self._process.signalProcess(signal.SIGKILL)

    def _cut_off(self) -> None:
        if self._paused:  # what is left in the pipes is waiting for us, not we for it
            self._after(LINGER_S, self._cut_off)
        else:
            self._process.loseConnection()

    def _after(self, delay_s: float, call: Callable[[], None]) -> None:
        self._cancel()
        self._timer = self._reactor.callLater(delay_s, call)

    def _cancel(self) -> None:
        if self._timer is not None and self._timer.active():
            self._timer.cancel()
