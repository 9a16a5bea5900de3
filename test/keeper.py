"""
Keep the processes of a database server: nothing of it outlives the tests.

Run as a program of its own, ``python keeper.py DIRECTORY SIGNAL [USER]``.  Each line of its
standard input is an order, a JSON list, and answered by one line of JSON.  When the input ends,
because the tests have ended or because they were killed, the server is ended by SIGNAL and the
directory removed.

- ``["run", ARGUMENT...]``: run a program to its end; answers its exit code.
- ``["start", ARGUMENT...]``: start the server; answers its process id.
- ``["stop", SIGNAL]``: send the server a signal and wait for its end; answers its exit code.
- ``["kill"]``: end the server and its children without any warning.

What the programs print goes to the file ``log`` in the directory, temporary files go to ``tmp``: a
MariaDB that starts removes what looks like one of its own.  Programs run as USER, if given:
PostgreSQL and MariaDB refuse to run as root.
"""

from __future__ import annotations

import contextlib
import json
import os
import pwd
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

STOP_S = 20.0


class Keeper:
    """One server's processes and the directory that they live in."""

    def __init__(self, directory: Path, user: str | None) -> None:
        self._directory = directory
        self._temporary = directory / "tmp"
        self._temporary.mkdir()
        self._as: dict[str, Any] = {}
        if user is not None:
            account = pwd.getpwnam(user)
            self._as = {"user": account.pw_uid, "group": account.pw_gid, "extra_groups": []}
            for path in (directory, self._temporary):
                os.chown(path, account.pw_uid, account.pw_gid)
        self._server: subprocess.Popen[bytes] | None = None

    def obey(self, order: str, *arguments: str) -> int:
        """Do what an order says, and return its answer."""
        match order:
            case "run":
                return self._spawn(arguments).wait()
            case "start":
                self._server = self._spawn(arguments)
                return self._server.pid
            case "stop":
                return self._stop(signal.Signals[arguments[0]])
            case "kill":
                return self._kill()
        raise ValueError(order)

    def end(self, number: signal.Signals) -> None:
        """End what still runs and remove the directory."""
        self._stop(number)
        shutil.rmtree(self._directory, ignore_errors=True)

    def _spawn(self, command: tuple[str, ...]) -> subprocess.Popen[bytes]:
        # The language of the machine is no concern of tests.
        places = {"HOME": str(self._directory), "TMPDIR": str(self._temporary)}
        env = {**os.environ, "LC_ALL": "C", **places}
        with (self._directory / "log").open("ab") as log:
            return subprocess.Popen(
                command,
                cwd=self._directory,
                env=env,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                **self._as,
            )

    def _stop(self, number: signal.Signals) -> int:
        if self._server is None:
            return 0
        self._server.send_signal(number)
        try:
            return self._server.wait(STOP_S)
        except subprocess.TimeoutExpired:
            return self._kill()

    def _kill(self) -> int:
        if self._server is None or self._server.poll() is not None:
            return 0
        # Standing still it makes no more children while they are looked for, nor mourns them.
        self._server.send_signal(signal.SIGSTOP)
        family = [self._server.pid, *_children(self._server.pid)]
        for pid in family:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        return self._server.wait()


def _children(parent: int) -> list[int]:
    """The processes that a process has started, as far as this system tells."""
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            # The name before the last bracket may hold anything.
            if int(stat.read_text().rpartition(")")[2].split()[1]) == parent:
                found.append(int(stat.parent.name))
    return found


def main(directory: str, number: str, user: str | None = None) -> None:
    """Obey until the orders end; then end the server with this signal."""
    for unheard in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        # Not SIG_IGN, which the server would inherit.
        signal.signal(unheard, lambda *_: None)
    keeper = Keeper(Path(directory), user)
    try:
        for line in sys.stdin:
            print(json.dumps(keeper.obey(*json.loads(line))), flush=True)  # noqa: T201
    finally:
        keeper.end(signal.Signals[number])


if __name__ == "__main__":
    main(*sys.argv[1:])
