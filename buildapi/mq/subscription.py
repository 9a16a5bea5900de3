"""
A bounded queue of events, read at the subscriber's own pace.

The bus fills it while it publishes; an ``async for`` empties it. A subscriber that is too slow
costs at most ``max_messages`` events and ``max_bytes`` of message text: at the event that does not
fit, all that is buffered is dropped, the subscription leaves the bus, and the reader gets
``Overflow``, which says which events it will not get from here. Never a hole in silence, never
memory that grows.
"""

from __future__ import annotations

from collections import deque
from collections.abc import AsyncIterator, Callable

from twisted.internet.defer import Deferred

from buildapi.errors import Overflow
from buildapi.mq.event import Event
from buildapi.mq.listener import Listener


class Subscription(AsyncIterator[Event]):
    """
    An async iterator of events, in order, for one reader at a time.

    ``position``: seq of the event handed out last; at first, of the newest when it was opened.
    ``dropped``: events lost by overflow; reading the log after ``position`` gives them all.
    Made by ``Bus.subscribe``.
    """

    def __init__(
        self,
        listen: Callable[[Callable[[Event], None]], Listener],
        position: int,
        *,
        max_messages: int,
        max_bytes: int,
        ended: Callable[[Subscription], None],
    ) -> None:
        self.position = position
        self.dropped = 0
        self._max_messages = max_messages
        self._max_bytes = max_bytes
        self._buffer: deque[Event] = deque()
        self._bytes = 0
        self._overflow: Overflow | None = None
        self._arrival: Deferred[None] | None = None
        self._ended = ended
        self._listener = listen(self._offer)

    @property
    def depth(self) -> int:
        """Number of events that wait to be read."""
        return len(self._buffer)

    @property
    def waiting(self) -> bool:
        """Whether the reader waits for the next event."""
        return self._arrival is not None

    async def __anext__(self) -> Event:
        """
        Wait for the next event.

        Raises Overflow, now and ever after, once the reader was too slow; StopAsyncIteration after
        close(). A wait that is cancelled loses no event.
        """
        while not self._buffer:
            if self._overflow is not None:
                raise self._overflow
            if self._listener.closed:
                raise StopAsyncIteration
            await self._next_arrival()
        event = self._buffer.popleft()
        self._bytes -= len(event.body)
        self.position = event.seq or self.position
        return event

    def close(self) -> None:
        """End the subscription: what is buffered is forgotten, a reader that waits is let go."""
        self._forget()
        self.end()

    def end(self) -> None:
        """Take no more events; those that are buffered can still be read."""
        self._listener.close()
        self._ended(self)
        self._wake()

    def _offer(self, event: Event) -> None:
        if self._has_room(event):
            self._buffer.append(event)
            self._bytes += len(event.body)
            self._wake()
        else:
            self.dropped = len(self._buffer) + 1
            self._overflow = Overflow(self.position + 1, event.seq)
            self.close()

    def _has_room(self, event: Event) -> bool:
        # One event always fits, or a big one would overflow every new subscription to it.
        return not self._buffer or (
            len(self._buffer) < self._max_messages
            and self._bytes + len(event.body) <= self._max_bytes
        )

    def _forget(self) -> None:
        self._buffer.clear()
        self._bytes = 0

    def _next_arrival(self) -> Deferred[None]:
        if self._arrival is not None:
            raise RuntimeError("this subscription has a reader that waits already")

        def cancelled(_: Deferred[None]) -> None:
            self._arrival = None

        self._arrival = Deferred(cancelled)
        return self._arrival

    def _wake(self) -> None:
        arrival, self._arrival = self._arrival, None
        if arrival is not None:
            arrival.callback(None)
