"""
Programs that tests start beside them, in a directory of their own: ``keeper`` sees to it that they
end with the tests, however these end.
"""

from __future__ import annotations

import contextlib
import json
import os
import pwd
import random
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

KEEPER = Path(__file__).with_name("keeper.py")
PATIENCE_S = 60.0

T = TypeVar("T")


class Missing(LookupError):
    """The server's programs, or the user to run them as, are not there; the text says so."""


class Kept:
    """A keeper, whose processes and directory go with the tests; see ``keeper`` for its orders."""

    def __init__(self, directory: Path, end_signal: str, *account: str) -> None:
        self.directory = directory
        argv = [sys.executable, str(KEEPER), str(directory), end_signal, *account]
        self._process = subprocess.Popen(
            argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, start_new_session=True
        )

    def order(self, *order: str) -> int:
        """Have an order obeyed, and return the answer."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        print(json.dumps(order), file=self._process.stdin, flush=True)
        answer: int = json.loads(self._process.stdout.readline())
        return answer

    def log(self) -> str:
        """The end of what the programs printed."""
        return (self.directory / "log").read_text(errors="replace")[-3000:]

    def patiently(self, connect: Callable[[], T], *errors: type[Exception]) -> T:
        """Return what ``connect`` returns once it does not fail any more."""
        deadline = time.monotonic() + PATIENCE_S
        while True:
            try:
                return connect()
            except errors:
                if time.monotonic() > deadline:
                    raise RuntimeError(f"the server does not answer:\n{self.log()}") from None
                # Another program's start: nothing tells when it is done.
                time.sleep(0.02)

    def close(self) -> None:
        """End the processes and remove the directory."""
        self._process.communicate()


def found(title: str, path: str, *programs: str) -> dict[str, str]:
    """Where programs are; Missing if one is nowhere."""
    places = {program: shutil.which(program, path=path) for program in programs}
    if absent := [program for program, place in places.items() if place is None]:
        raise Missing(f"{title} is not installed: there is no {absent[0]}")
    return {program: str(place) for program, place in places.items()}


def account_of(user: str, title: str) -> list[str]:
    """Whom to run as, if it can't be ourselves."""
    if os.getuid() != 0:
        return []
    with contextlib.suppress(KeyError):
        return [pwd.getpwnam(user).pw_name]
    raise Missing(f"{title} does not run as root, and there is no user {user}")


def free_port() -> int:
    """A port below those that the system gives to clients, which may take one at any moment."""
    while True:
        port = random.randrange(20000, 32000)
        with contextlib.suppress(OSError), socket.create_server(("127.0.0.1", port)):
            return port
