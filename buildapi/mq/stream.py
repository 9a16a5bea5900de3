"""
A stream of events from a position: first what the event log has, then what comes.

A position means "I have everything up to and including this ``seq``".  Whoever keeps the position
of what he was told last, and comes back with it, misses nothing and gets nothing twice.

What comes while nobody takes it waits in a ``Buffer``.
"""

from __future__ import annotations

from collections import deque
from collections.abc import AsyncIterator, Callable, Iterable
from typing import NamedTuple, Protocol

from twisted.internet.defer import Deferred, succeed

from buildapi.errors import BadArgument, Conflict, Gone, Missed, Overflow
from buildapi.mq.buffer import Bounds, Buffer, Room, Slow, weight, weights
from buildapi.mq.event import Event
from buildapi.mq.history import History, Replay, checked
from buildapi.mq.listener import Listener
from buildapi.mq.topic import Pattern, matches, split_topic


class Gap(NamedTuple):
    """The events ``first`` to ``last`` are not coming.  why: "retention" or "overflow"."""

    first: int
    last: int
    why: str


class Synced(NamedTuple):
    """All that was stored has been told; what follows is new."""

    seq: int


Item = Event | Gap | Synced


class Feed(Protocol):
    """Where new events come from: the bus."""

    @property
    def last_seq(self) -> int:
        """The newest position that was published."""

    def listen(self, patterns: Iterable[str], callback: Callable[[Event], object]) -> Listener:
        """Call back for every event that matches."""

    def soon(self, callback: Callable[[], None]) -> None:
        """Call back once all that is being published has been."""


class Stream(AsyncIterator[Event]):
    """
    Events that match, in order, for one reader: ``take`` and ``catch_up``, or ``async for``.

    room: where what waits has to fit; its own, if it is not given.
    ``consumer``: the name under which the position is stored, if it is.
    ``ready``: called on the reactor thread when there is something to take, once until it is taken.
    Made by ``Bus.subscribe``.
    """

    def __init__(
        self,
        feed: Feed,
        history: History | None,
        patterns: Iterable[str],
        parsed: Iterable[Pattern],
        since: int | None,
        *,
        consumer: str | None = None,
        log: str | None = None,
        slow: Slow = Slow.RESUME,
        room: Room | None = None,
        sees: Callable[[Event], bool] = lambda _: True,
        ended: Callable[[Stream], None] = lambda _: None,
    ) -> None:
        self.consumer = consumer
        # By which road the events go, and to which address, for operators.
        self.road = "process"
        self.client: str | None = None
        self.gaps = 0
        self.told = 0
        self.closed = False
        self.ready: Callable[[], None] = lambda: None
        self._log = log
        self._position = self._handed = feed.last_seq if since is None else since
        self._feed = feed
        self._history = history
        self._patterns = tuple(patterns)
        self._parsed = tuple(parsed)
        self._sees = sees
        self._ended = ended
        self._room = room or Room(Bounds())
        # Without a log there is nothing to go back to.
        self._buffer = Buffer(
            slow if history or slow is not Slow.RESUME else Slow.CLOSE, self._room
        )
        # Who names a log but no position means the newest of that log.
        self._starting = any(given is not None for given in (consumer, since, log))
        self._synced = False
        self._rung = False
        self._overflow: Overflow | None = None
        self._gone: Gone | None = None
        self._arrival: Deferred[None] | None = None
        self._items: deque[Item] = deque()
        self._live_after = 0
        self._listener: Listener = self._listening()

    @property
    def position(self) -> int:
        """All events up to it have been handed out, or concern the reader not."""
        return self._handed if self._items else self._position

    @property
    def patterns(self) -> tuple[str, ...]:
        """What is subscribed to."""
        return self._patterns

    @property
    def depth(self) -> int:
        """Number of events that wait to be taken."""
        return len(self._buffer) + len(self._items)

    @property
    def waiting_bytes(self) -> int:
        """The bytes that the waiting events take."""
        return self._buffer.size + weights(self._items)

    @property
    def dropped(self) -> int:
        """Number of events that did not fit into the buffer; with ``resume`` they come later."""
        return self._buffer.dropped

    @property
    def is_behind(self) -> bool:
        """Whether ``catch_up`` has to read from the log before there is anything to take."""
        return not self.closed and (self._starting or self._position < self._live_after)

    @property
    def bookmark(self) -> int:
        """The position that the reader may go on from, though nothing was told."""
        caught_up = not (self.is_behind or self.depth or self._buffer.lost)
        return max(self.position, self._feed.last_seq) if caught_up else self.position

    async def begin(self) -> None:
        """
        Find where to go on; ``catch_up`` does it, if nobody did before.

        Fails with Gone if the position is of another log, or from the future, with Conflict where
        there is no log.
        """
        if not self._starting:
            return
        if self._history is None:
            raise Conflict("there is no event log here, so there are no positions")
        if self.consumer is not None:
            await self._go_on(self._history, self.consumer)
        elif self._position != self._feed.last_seq or self._log is not None:
            checked(self._position, await self._history.extent(), self._log)
        self._starting = False

    def take(self, most_bytes: int = 2**62) -> list[Item]:
        """
        Return what has come and was not taken yet; nothing, while ``is_behind``.

        most_bytes: stop when the bodies of the events are so long; the rest is for the next time.

        Raises Overflow once a reader that wants to be closed was too slow, Gone after ``refuse``.
        """
        self._rung = False
        self._check()
        if self._overflow is not None:
            raise self._overflow
        if self._buffer.lost is not None and self._buffer.slow is Slow.RESUME:
            self._start_over()
        if self.is_behind:
            return []
        items: list[Item] = []
        if not self._synced:
            self._synced = True
            items.append(Synced(self._position))
        if self._buffer.lost is not None:
            items.append(self._gap(self._buffer.first_lost, self._buffer.lost, "overflow"))
        events: list[Event] = []
        # A slice of events that the reader may not see is not the end of what waits.
        while len(self._buffer) and not events:
            waiting = self._buffer.take(most_bytes)
            self._position = max(self._position, waiting[-1].seq)
            events = [event for event in waiting if self._sees(event)]
        self.told += len(events)
        return [*items, *events]

    async def catch_up(self) -> list[Item]:
        """
        Read from the log what was stored after the position: a portion of it, that has room.

        Fails with Gone if the position is none of this log, or not any more.
        """
        self._check()
        await self.begin()
        if self._history is None or not self.is_behind:
            return []
        # Before we read: meanwhile ``look_back`` may ask for more than is in what we get.
        last, expected = self._live_after, self._position + 1
        found = await self._history.replayed(self._position, self._room.portion_messages)
        self._check()
        if self.closed:
            return []
        # If the log has none of them any more, all have been forgotten.
        begin = last + 1 if found.begin is None else min(found.begin, last + 1)
        items: list[Item] = []
        if begin > expected:
            items.append(self._gap(expected, begin - 1, "retention"))
        events, position = self._fitting(found, last)
        self.told += len(events)
        self._position = max(position, begin - 1)
        return [*items, *events]

    async def read_on(self) -> None:
        """Do as ``catch_up``, and keep what was read for ``held``."""
        items = await self.catch_up()
        if not self.closed:
            self._hold(items)

    @property
    def has_held(self) -> bool:
        """Whether something that was read is still to be taken by ``held``."""
        return bool(self._items)

    def held(self, most_bytes: int) -> list[Item]:
        """Return, in slices as of ``take``, what has been read from the log."""
        found: list[Item] = []
        size = 0
        while self._items and size < most_bytes:
            item = self._let_go()
            found.append(item)
            size += len(item.body) if isinstance(item, Event) else 0
        return found

    def look_back(self) -> None:
        """Read from the log what follows the position: not all of it came."""
        self._listener.close()
        self._start_over()
        self._feed.soon(self._ring)

    def refuse(self, error: Gone) -> None:
        """End with an error, for whoever takes next: the position is none of the log any more."""
        self._gone = error
        self._listener.close()
        self._buffer.clear()
        self._feed.soon(self._ring)

    def close(self) -> None:
        """End: nothing more is told."""
        if self.closed:
            return
        self.closed = True
        self._listener.close()
        self._buffer.clear()
        self._room.give(weights(self._items), len(self._items))
        self._items.clear()
        self._ended(self)
        self._wake()

    def end(self) -> None:
        """Take no more events; ``async for`` ends when those that wait have been read."""
        self._listener.close()
        self._wake()

    async def __anext__(self) -> Event:
        """
        Wait for the next event.

        Raises Missed for events that are not coming (the next call goes on behind them), Overflow
        for a reader who wants to be closed when he is slow, Gone if the log is another one now,
        StopAsyncIteration after ``close``; Overflow and Gone close it.
        """
        while True:
            while self._items:
                item = self._let_go()
                if isinstance(item, Event):
                    return item
                if isinstance(item, Gap):
                    raise Missed(*item)
            if self.closed:
                raise StopAsyncIteration
            try:
                self._hold(await self.catch_up() if self.is_behind else self.take())
            except (Gone, Overflow):
                # Nobody has to close what can tell nothing more.
                self.close()
                raise
            if self._items or self.is_behind:
                continue
            if self._listener.closed:
                raise StopAsyncIteration
            await self._next_arrival()

    def ack(self, seq: int | None = None) -> Deferred[None]:
        """
        Store the position of a named consumer: it has done with all up to ``seq``.

        seq: by default that of the event handed out last.  Fires once it is durable.  Raises
        BadArgument for one that no event has yet: the consumer could never come back with it.
        """
        if self.consumer is None or self._history is None:
            raise Conflict("only a consumer with a name has a position that is stored")
        done = self.position if seq is None else seq
        newest = max(self.position, self._feed.last_seq)
        if done > newest:
            raise BadArgument(f"seq: {done} is not reached yet, the newest event is {newest}")
        return self._history.consume(self.consumer, done)

    async def _go_on(self, history: History, consumer: str) -> None:
        """Go on where a named consumer was; a new one begins where it says, or now."""
        stored = await history.consumed(consumer)
        position = self._position if stored is None else stored
        checked(position, await history.extent(), self._log)
        if stored is None:
            # From now on it is known, and misses nothing.
            await history.consume(consumer, position)
        self._position = self._handed = position

    def _listening(self) -> Listener:
        self._live_after = self._feed.last_seq
        return self._feed.listen(self._patterns, self._offer)

    def _start_over(self) -> None:
        """Go back to the log: what waited was too much."""
        self._buffer.clear()
        self._listener = self._listening()

    def _hold(self, items: list[Item]) -> None:
        self._room.take(weights(items), len(items))
        self._items.extend(items)

    def _let_go(self) -> Item:
        item = self._items.popleft()
        self._room.give(weights((item,)))
        if isinstance(item, Event):
            self._handed = item.seq
        elif isinstance(item, Gap):
            self._handed = item.last
        return item

    def _fitting(self, found: Replay, last: int) -> tuple[list[Event], int]:
        """Return what is wanted of a replay, as far as there is room, and the position then."""
        fitting: list[Event] = []
        size = 0
        for event in found.events:
            if event.seq <= last and self._wants(event) and self._sees(event):
                size += weight(event)
                # One always fits.
                if fitting and size > self._room.portion_bytes:
                    return fitting, event.seq - 1
                fitting.append(event)
        return fitting, min(found.position, last)

    def _offer(self, event: Event) -> None:
        if event.seq <= self._position:
            return
        if not self._buffer.add(event, self._room.portion_bytes if self.is_behind else 0):
            # Nothing that comes now can be kept: the publisher need not try.
            self._listener.close()
            if self._buffer.slow is Slow.CLOSE:
                self._overflow = Overflow(self._position + 1, event.seq)
        if not self._rung:
            self._rung = True
            self._feed.soon(self._ring)

    def _ring(self) -> None:
        self.ready()
        self._wake()

    def _check(self) -> None:
        if self._gone is not None:
            raise self._gone

    def _gap(self, first: int, last: int, why: str) -> Gap:
        self.gaps += 1
        return Gap(first, last, why)

    def _wants(self, event: Event) -> bool:
        words = split_topic(event.topic)
        return any(matches(pattern, words) for pattern in self._parsed)

    def _next_arrival(self) -> Deferred[None]:
        if self._arrival is not None:
            raise RuntimeError("this stream has a reader that waits already")
        if self._rung:
            return succeed(None)

        def cancelled(_: Deferred[None]) -> None:
            self._arrival = None

        self._arrival = Deferred(cancelled)
        return self._arrival

    def _wake(self) -> None:
        arrival, self._arrival = self._arrival, None
        if arrival is not None:
            arrival.callback(None)
