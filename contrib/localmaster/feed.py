"""Text on its way into a log: batches, one append at a time, in bounded memory."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Protocol

from twisted.internet.defer import Deferred, succeed

# With this many characters waiting, who writes them is asked to pause.
MAX_WAITING = 256 * 1024


class Producer(Protocol):
    """What fills a feed and can be asked to pause: a process and its pipes, say."""

    def pauseProducing(self) -> None:
        """Write nothing until told to go on."""

    def resumeProducing(self) -> None:
        """Go on."""


class LogFeed:
    """
    Bring text into one log.

    What comes while an append is in flight is the next batch.  So a quiet command's line is stored
    at once, and a noisy one's lines are stored as quickly as the database takes them, with one
    event per batch.  At most two batches are in memory: the one in flight and the one that waits.

    append: stores a text of whole lines.  Once it has failed, nothing is taken, and flush fails.
    """

    def __init__(self, append: Callable[[str], Awaitable[None]]) -> None:
        self._append = append
        self._waiting: list[str] = []
        self._size = 0
        self._storing = False
        self._stored: Deferred[None] = succeed(None)
        self._error: Exception | None = None
        self._producer: Producer | None = None
        self._paused = False

    @property
    def full(self) -> bool:
        """True while as much is waiting as may wait."""
        return self._size >= MAX_WAITING

    def register(self, producer: Producer) -> None:
        """Have ``producer`` pause while the feed is full."""
        self._producer = producer

    def unregister(self) -> None:
        """Forget the producer: it has written all it will write."""
        self._producer = None

    def write(self, text: str) -> None:
        """Take whole lines; they are stored in the order in which they were written."""
        if not text or self._error is not None:
            return
        self._waiting.append(text)
        self._size += len(text)
        if not self._storing:
            self._storing = True
            self._stored = Deferred.fromCoroutine(self._store())
        if self.full and not self._paused:
            self._pause()

    async def flush(self) -> None:
        """Wait until everything written so far is stored."""
        await self._stored
        if self._error is not None:
            raise self._error

    async def _store(self) -> None:
        try:
            while self._waiting:
                await self._append(self._take())
        except Exception as error:  # noqa: BLE001 -- kept for flush, whatever it is
            self._error = error
            self._take()
        finally:
            self._storing = False

    def _take(self) -> str:
        batch = "".join(self._waiting)
        self._waiting.clear()
        self._size = 0
        self._resume()
        return batch

    def _pause(self) -> None:
        if self._producer is not None:
            self._paused = True
            self._producer.pauseProducing()

    def _resume(self) -> None:
        if self._paused and self._producer is not None:
            self._producer.resumeProducing()
        self._paused = False
