"""
What a client has not read yet, within limits: on every connection that stays open.

The transport says when the client is slow, and holds what was written until then; what is sent
after that waits here. Both count. When it is too much the connection is closed, with the reason.
"""

from __future__ import annotations

from collections import deque
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from twisted.internet.defer import Deferred, DeferredLock, succeed
from twisted.internet.interfaces import IPushProducer
from zope.interface import implementer

from buildapi.mq.buffer import Bounds, Room
from buildapi.mq.event import Event
from buildapi.settings import Limits
from buildapi.www.pump import Sub, event_frame

# What a transport of Twisted's takes before it says stop.
TRANSPORT_BYTES = 64 * 1024
# What a frame takes besides its bytes: the object, and its place in the queue (measured).
FRAME_BYTES = 64


def room_of(limits: Limits) -> Room:
    """Return what may wait for one client."""
    return Room(Bounds(limits.subscription_messages, limits.subscription_bytes))


@implementer(IPushProducer)
class Outbox:
    """
    What one client has not read yet.

    ``paused``: whether the client is slow now.  room: where what waits has to fit, here and in the
    buffers of the client's streams.
    """

    def __init__(
        self,
        write: Callable[[bytes], None],
        too_slow: Callable[[], None],
        room: Room,
        write_events: Callable[[list[Event], Sub], int] | None = None,
    ) -> None:
        self.paused = False
        self.room = room
        self._write = write
        self._write_events = write_events
        self._too_slow = too_slow
        self._waiting: deque[bytes] = deque()
        # Of what waits here, and what the transport holds since it said stop.
        self._bytes = 0
        self._in_transport = 0
        self._drained: list[Deferred[None]] = []
        self._turns = DeferredLock()

    @property
    def depth(self) -> int:
        """Number of frames that wait."""
        return len(self._waiting)

    @property
    def waiting_bytes(self) -> int:
        """Bytes that wait, in the transport too."""
        return self._bytes + self._in_transport

    def send(self, payload: bytes) -> None:
        """Send a frame now, or as soon as the client reads on."""
        if not self.paused and not self._waiting:
            self._write_now(payload)
            return
        self._waiting.append(payload)
        self._note(len(payload) + FRAME_BYTES, 1)
        messages, size = self.room.bounds
        # However much the transport holds, half of the room is for what waits here.
        if len(self._waiting) > messages or self._bytes > max(size - self._in_transport, size // 2):
            self._forget()
            self._too_slow()

    def send_events(self, events: list[Event], sub: Sub) -> None:
        """Send the frames of events, as ``send`` does."""
        if self.paused or self._waiting or self._write_events is None:
            for event in events:
                self.send(event_frame(event, sub))
        else:
            written = self._write_events(events, sub)
            self._held(written)

    def writable(self) -> Deferred[None]:
        """Fire when the client keeps up, or has gone."""
        if not self.paused:
            return succeed(None)
        waiter: Deferred[None] = Deferred()
        self._drained.append(waiter)
        return waiter

    @asynccontextmanager
    async def turn(self) -> AsyncIterator[None]:
        """
        Let one stream after the other read a part and send it, as soon as the client keeps up.

        Without turns all streams of a slow client would read on at once, and each hold a part.
        """
        async with self._turns:
            await self.writable()
            yield

    def close(self) -> None:
        """Forget what waits, and let go who waits."""
        self._forget()
        self._resume()
        self._release()

    def pauseProducing(self) -> None:
        """Hold back: the client does not keep up."""
        self.paused = True

    def resumeProducing(self) -> None:
        """Go on with what waited."""
        self._resume()
        while self._waiting and not self.paused:
            payload = self._waiting.popleft()
            self._note(-len(payload) - FRAME_BYTES, -1)
            self._write_now(payload)
        if not self.paused:
            self._release()

    def stopProducing(self) -> None:
        """Nothing more can be sent; ``onClose`` clears up."""

    def _write_now(self, payload: bytes) -> None:
        self._write(payload)
        self._held(len(payload))

    def _held(self, written: int) -> None:
        """Take note of what the transport has said stop at, and of what it may have had before."""
        if self.paused and not self._in_transport:
            self._in_transport = TRANSPORT_BYTES + written
            self.room.take(self._in_transport, 0)

    def _resume(self) -> None:
        self.paused = False
        self.room.give(self._in_transport, 0)
        self._in_transport = 0

    def _note(self, size: int, messages: int) -> None:
        self._bytes += size
        self.room.take(size, messages)

    def _forget(self) -> None:
        self._note(-self._bytes, -len(self._waiting))
        self._waiting.clear()

    def _release(self) -> None:
        waiting, self._drained = self._drained, []
        for waiter in waiting:
            waiter.callback(None)
