"""
What was read and waits for its reader: in memory while it is little, then in a temporary file.

A thread fills it and somebody else empties it, as slowly as he likes: the snapshot of the database
ends with the reading. The file has no name, so that it is gone with the process; it lies where
temporary files lie (``TMPDIR``).
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from tempfile import SpooledTemporaryFile
from threading import Lock
from typing import Any, Self

from twisted.internet.defer import CancelledError

from buildapi.errors import BadQuery, Unavailable

# What is read from it at once.
PIECE = 256 * 1024


class Spool:
    """
    Parts of bytes with something between them; filled inside of ``with``, once or again.

    between: stands between two parts.  in_memory: bytes that are kept in memory.  most: bytes that
    are taken; more are BadQuery.  ``size``: the bytes taken.
    """

    def __init__(self, between: bytes, in_memory: int, most: int) -> None:
        self.size = 0
        self.most = most
        self._between = between
        self._in_memory = in_memory
        self._file: Any = None
        self._lock = Lock()
        self._filling = False
        self._closed = False

    @property
    def in_file(self) -> bool:
        """Whether it is too much for the memory."""
        return self.size > self._in_memory

    def __enter__(self) -> Self:
        """Begin to fill it, anew if a reading is made again."""
        with self._lock:
            self._check_wanted()
            self._filling = True
        if self._file is None:
            self._file = SpooledTemporaryFile(self._in_memory)
        self._file.seek(0)
        self._file.truncate()
        self.size = 0
        return self

    def __exit__(self, *_: object) -> None:
        """End the filling; if it was closed meanwhile, nobody wants it."""
        with self._lock:
            self._filling = False
            if self._closed:
                self._drop()

    def append(self, part: bytes, /) -> None:
        """Take a part: BadQuery if it is too much, CancelledError if nobody wants it any more."""
        between = self._between if self.size and part else b""
        added = len(between) + len(part)
        self.check_room(added)
        self.size += added
        self._write(between, part)

    def check_room(self, added: int) -> None:
        """Fail with BadQuery or CancelledError as appending so many bytes would."""
        self._check_wanted()
        if self.size + added > self.most:
            raise BadQuery(
                f"the answer has more than {self.most} bytes; ask for less at a time by limit "
                "and offset, or for fewer fields by field"
            )

    def read(self) -> bytes:
        """Return all that it was filled with."""
        self._file.seek(0)
        whole: bytes = self._file.read()
        return whole

    def pieces(self) -> Iterator[bytes]:
        """Read what it was filled with, bit by bit."""
        self._file.seek(0)
        while piece := self._file.read(PIECE):
            yield piece

    def close(self) -> None:
        """Let go of what it has, from any thread; who fills it is stopped at the next part."""
        with self._lock:
            self._closed = True
            if not self._filling:
                self._drop()

    def _write(self, *parts: bytes) -> None:
        try:
            for part in parts:
                self._file.write(part)
            if self.in_file:
                # What does not fit on the disk is known here, not when it is sent.
                self._file.flush()
        except OSError as error:
            raise Unavailable(
                f"there is no room for the answer in the folder of temporary files: "
                f"{error.strerror}; ask for less at a time by limit and offset"
            ) from error

    def _check_wanted(self) -> None:
        if self._closed:
            raise CancelledError

    def _drop(self) -> None:
        # A full disk may refuse what is left to be written; nobody wants it.
        with contextlib.suppress(OSError):
            if self._file is not None:
                self._file.close()
