"""
Who may write a SQLite file: one process, whatever it calls the file.

A lock on a file beside the database decides, and tells who has it. It goes by the name of the
database, whatever symbolic links lead there; but a file may have several names (hard links), or get
another one while it is used. So on Linux the file itself is locked as well: an abstract socket is
called by its device and inode. A lock on the file would be no better, because to close any
descriptor of a database drops SQLite's own locks on it. Processes that have no network in common,
as in containers, do not see each other's sockets: between them the lock beside the file decides.

The kernel frees both when the process dies.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import socket
import sys
from pathlib import Path
from typing import TextIO

from buildapi.errors import CannotOpen


class FileLock:
    """The right to write the file ``path``, which messages call ``name``."""

    def __init__(self, name: str, path: str) -> None:
        self._name = name
        self._path = path
        self._beside: TextIO | None = None
        self._itself: socket.socket | None = None

    def take(self, holder: str) -> None:
        """Become the one writing process, ``holder``, or raise CannotOpen."""
        if self._beside is None:
            try:
                self._take_beside(holder)
                self.take_itself()
            except BaseException:
                self.drop()
                raise

    def take_itself(self) -> None:
        """
        Take what is missing of the lock because there was no file yet, if there is one now.

        Raises CannotOpen if a process writes it under another name.
        """
        if self._beside is None or self._itself is not None or sys.platform != "linux":
            return
        # There may be no file yet; and where no socket may be made, there is one lock only.
        with contextlib.suppress(OSError):
            found = Path(self._path).stat()
            self._itself = _taken(f"\0buildapi {found.st_dev} {found.st_ino}")
            if self._itself is None:
                raise CannotOpen(
                    f"{self._name} is being written by another process under another name: it has "
                    "hard links, or was renamed; SQLite loses data when a file is used by two names"
                )

    def drop(self) -> None:
        """Let another process write."""
        beside, self._beside = self._beside, None
        if beside is not None:
            # What a full disk did not take of the holder's name is tried once more, and not needed.
            with contextlib.suppress(OSError):
                beside.close()
        itself, self._itself = self._itself, None
        if itself is not None:
            itself.close()

    def _take_beside(self, holder: str) -> None:
        try:
            self._beside = Path(f"{self._path}.buildapi-lock").open(  # noqa: SIM115  kept while we write
                "a+", encoding="utf-8", errors="replace"
            )
            fcntl.flock(self._beside, fcntl.LOCK_EX | fcntl.LOCK_NB)
            self._beside.truncate(0)
            self._beside.write(f"{holder} (process {os.getpid()} on {socket.gethostname()})\n")
            self._beside.flush()
        except BlockingIOError:
            raise CannotOpen(
                f"{self._name} is being written by {self._other_holder()}; stop that one, or serve "
                "with --read-only"
            ) from None
        except OSError as error:
            raise CannotOpen(f"cannot write beside {self._name}: {error.strerror}") from None

    def _other_holder(self) -> str:
        assert self._beside is not None  # noqa: S101  it is open, but not ours
        self._beside.seek(0)
        return self._beside.read(500).strip() or "another process"


def _taken(address: str) -> socket.socket | None:
    """Return a socket that nobody else can have, or None if somebody has it."""
    taken = socket.socket(socket.AF_UNIX)
    try:
        # The first character says that it is in no folder: nothing is left behind by the killed.
        taken.bind(address)
    except OSError as error:
        taken.close()
        if error.errno == errno.EADDRINUSE:
            return None
        raise
    return taken
