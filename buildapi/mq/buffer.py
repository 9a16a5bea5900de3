"""
What waits for a slow subscriber: the events that came and were not taken yet, within bounds.

When a buffer is full the subscriber's choice decides:

    resume   what waits is forgotten, and read from the log as soon as somebody takes again
    latest   only the newest event of each topic is kept; a gap says what is not coming
    close    the stream ends with Overflow

The publisher never waits for anybody.
"""

from __future__ import annotations

from collections import deque
from enum import Enum
from typing import NamedTuple

from buildapi.mq.event import Event

# What an event takes besides its body: names, keys, the object (measured).
EVENT_BYTES = 700
# An event that so many have followed has been told to all who keep up.
NEEDED_BY_OTHERS = 16


class Slow(Enum):
    """What a full buffer does."""

    RESUME = "resume"
    LATEST = "latest"
    CLOSE = "close"


class Bounds(NamedTuple):
    """What may wait in a buffer: events, and the bytes that they take."""

    messages: int = 10_000
    size: int = 8 * 2**20


class Buffer:
    """
    The events that came and were not taken yet.

    ``lost``: the newest position that was dropped since ``refill``; None if nothing was.
    """

    def __init__(self, slow: Slow, bounds: Bounds) -> None:
        self.slow = slow
        self.lost: int | None = None
        self.first_lost = 0
        self.dropped = 0
        self._bounds = bounds
        self._events: deque[Event] = deque()
        self._newest: dict[str, Event] = {}
        self._bytes = 0

    def __len__(self) -> int:
        """Count the events that wait."""
        return len(self._events) + len(self._newest)

    @property
    def size(self) -> int:
        """The bytes that the waiting events take."""
        return self._bytes

    def add(self, event: Event) -> bool:
        """Keep an event; false if it was not."""
        # One event always fits, or a big one would never come through.
        size = self._bytes + _weight(event)
        if self.lost is None and (
            not self._events
            or (size <= self._bounds.size and len(self._events) < self._bounds.messages)
        ):
            self._events.append(event)
            self._bytes = size
            if len(self._events) > NEEDED_BY_OTHERS:
                self._events[-NEEDED_BY_OTHERS].forget()
            return True
        self._lose(event)
        if self.slow is not Slow.LATEST:
            return False
        self._keep_newest(event)
        return True

    def take(self, most_bytes: int) -> list[Event]:
        """Return the events in order: one at least, and no more than have so many bytes."""
        if self._newest:
            self._events = deque(sorted(self._newest.values(), key=lambda event: event.seq))
            self._newest.clear()
        self.lost = None
        found, size = [], 0
        while self._events and size < most_bytes:
            event = self._events.popleft()
            found.append(event)
            size += len(event.body)
        self._bytes -= size + len(found) * EVENT_BYTES
        return found

    def clear(self) -> None:
        """Forget what waits."""
        self._events.clear()
        self._newest.clear()
        self._bytes = 0
        self.lost = None

    def _lose(self, event: Event) -> None:
        if self.lost is None:
            waiting, self._events = self._events, deque()
            self.first_lost = waiting[0].seq if waiting else event.seq
            self.dropped += len(waiting)
            self._bytes = 0
            if self.slow is Slow.LATEST:
                for one in waiting:
                    self._keep_newest(one)
        self.dropped += 1
        self.lost = event.seq

    def _keep_newest(self, event: Event) -> None:
        older = self._newest.pop(event.topic, None)
        self._bytes += _weight(event) - (_weight(older) if older is not None else 0)
        self._newest[event.topic] = event
        while len(self._newest) > 1 and (
            len(self._newest) > self._bounds.messages or self._bytes > self._bounds.size
        ):
            # Topics are as many as builds: the oldest go.
            oldest = next(iter(self._newest))
            self._bytes -= _weight(self._newest.pop(oldest))


def _weight(event: Event) -> int:
    return len(event.body) + EVENT_BYTES
