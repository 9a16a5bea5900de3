"""A file that a command writes, on its way into a log of its own."""

from __future__ import annotations

import os
import stat
from pathlib import Path

from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import LoopingCall

from .feed import LogFeed
from .lines import LineSplitter

LOOK_EVERY_S = 0.5

# Read on the reactor: it is a local file, and this much comes from memory.
READ_SIZE = 64 * 1024


class Tail:
    """Follow a file from its first byte, also if it isn't there yet."""

    def __init__(self, clock: IReactorTime, path: Path, feed: LogFeed) -> None:
        self._path = path
        self._feed = feed
        self._lines = LineSplitter()
        self._offset = 0
        self._looking = LoopingCall(self._look)
        self._looking.clock = clock

    def start(self) -> None:
        """Look at the file now and then."""
        self._looking.start(LOOK_EVERY_S, now=False)

    async def finish(self) -> None:
        """Take everything that is in the file now, and look no more."""
        self._looking.stop()
        while self._look():
            await self._feed.flush()
        self._feed.write(self._lines.end())
        await self._feed.flush()

    def _look(self) -> bool:
        """Take what is new, if there is room for it; return whether something was."""
        if self._feed.full:
            return True
        data = read(self._path, self._offset)
        self._offset += len(data)
        self._feed.write(self._lines.feed(data))
        return bool(data)


def read(path: Path, offset: int) -> bytes:
    """Return some bytes of a file; none if there is no such file, or it is none with an end."""
    try:
        # A named pipe without a writer would stop us here.
        file = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    except OSError:
        return b""
    try:
        return os.pread(file, READ_SIZE, offset) if stat.S_ISREG(os.fstat(file).st_mode) else b""
    finally:
        os.close(file)
