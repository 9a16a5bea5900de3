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
from collections.abc import Iterable
from enum import Enum
from typing import NamedTuple

from buildapi.mq.event import Event
from buildapi.mq.history import PORTION

# What an event takes besides its body: names, keys, the object (measured).
EVENT_BYTES = 700
# An event that so many have followed has been told to all who keep up.
NEEDED_BY_OTHERS = 16
# While older events are read from the log, this part of the room is theirs.
PORTION_OF_ROOM = 16


class Slow(Enum):
    """What a full buffer does."""

    RESUME = "resume"
    LATEST = "latest"
    CLOSE = "close"


class Bounds(NamedTuple):
    """What may wait in a buffer: events, and the bytes that they take."""

    messages: int = 10_000
    size: int = 8 * 2**20


class Room:
    """
    What may wait for one client, in all buffers that he has: who shares a room shares its bounds.

    ``messages`` and ``size``: what waits.  An event counts whole in each room, though all of them
    have the same one in memory.
    """

    def __init__(self, bounds: Bounds) -> None:
        self.bounds = bounds
        self.messages = 0
        self.size = 0

    def fits(self, size: int, reserved: int = 0) -> bool:
        """Say whether one more message fits, and leaves so much free."""
        bounds = self.bounds
        return self.messages < bounds.messages and self.size + size + reserved <= bounds.size

    def take(self, size: int, messages: int = 1) -> None:
        """Take note of what waits from now on."""
        self.messages += messages
        self.size += size

    def give(self, size: int, messages: int = 1) -> None:
        """Take note of what waits no more."""
        self.messages -= messages
        self.size -= size

    @property
    def portion_bytes(self) -> int:
        """The bytes of events that are kept of what is read from the log at a time."""
        return self.bounds.size // PORTION_OF_ROOM

    @property
    def portion_messages(self) -> int:
        """The number of events that are read from the log at a time."""
        return max(1, min(PORTION, self.bounds.messages, self.portion_bytes // EVENT_BYTES))


def weight(event: Event) -> int:
    """Return the bytes that an event takes."""
    return len(event.body) + EVENT_BYTES


def weights(events: Iterable[object]) -> int:
    """Return the bytes that the events among some items take."""
    return sum(weight(event) for event in events if isinstance(event, Event))


class Buffer:
    """
    The events that came and were not taken yet.

    ``lost``: the newest position that was dropped since it was emptied; None if nothing was.
    ``size``: the bytes that the waiting events take.
    """

    def __init__(self, slow: Slow, room: Room) -> None:
        self.slow = slow
        self.lost: int | None = None
        self.first_lost = 0
        self.dropped = 0
        self.size = 0
        self._room = room
        self._events: deque[Event] = deque()
        self._newest: dict[str, Event] = {}

    def __len__(self) -> int:
        """Count the events that wait."""
        return len(self._events) + len(self._newest)

    def add(self, event: Event, reserved: int = 0) -> bool:
        """Keep an event; false if it was not.  reserved: the room that others need."""
        # One event always fits, or a big one would never come through.
        if self.lost is None and (not self._events or self._room.fits(weight(event), reserved)):
            self._events.append(event)
            self._take(event)
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
        self._give(size + len(found) * EVENT_BYTES, len(found))
        return found

    def clear(self) -> None:
        """Forget what waits."""
        self._give(self.size, len(self))
        self._events.clear()
        self._newest.clear()
        self.lost = None

    def _take(self, event: Event) -> None:
        self._room.take(weight(event))
        self.size += weight(event)

    def _give(self, size: int, messages: int = 1) -> None:
        self._room.give(size, messages)
        self.size -= size

    def _lose(self, event: Event) -> None:
        if self.lost is None:
            waiting, self._events = self._events, deque()
            self.first_lost = waiting[0].seq if waiting else event.seq
            self.dropped += len(waiting)
            self._give(self.size, len(waiting))
            if self.slow is Slow.LATEST:
                for one in waiting:
                    self._keep_newest(one)
        self.dropped += 1
        self.lost = event.seq

    def _keep_newest(self, event: Event) -> None:
        older = self._newest.pop(event.topic, None)
        if older is not None:
            self._give(weight(older))
        # Topics are as many as builds: the oldest go.
        while self._newest and not self._room.fits(weight(event)):
            oldest = next(iter(self._newest))
            self._give(weight(self._newest.pop(oldest)))
        self._take(event)
        self._newest[event.topic] = event
