"""
Events to a WebSocket: what a stream has goes out as fast as the client reads, and no faster.

    {"cmd": "subscribe", "topic": "build.*.step.#", "since": 81234, "_id": 7}

    {"msg": "OK", "code": 200, "_id": 7, "seq": 81234}
    {"sub": 7, "seq": 81235, "topic": "build.10.step.2.new", "at": 1795231924.381, "m": {…}}
    {"sub": 7, "synced": 81235}                             all that was stored has been told
    {"sub": 7, "bookmark": 81240}                           idle: the client may go on from here
    {"sub": 7, "gap": {"from": 1, "to": 90, "why": "retention"}}

A frame of an event is made once for all clients that have the same name for their stream.  While a
client does not read, its events wait in the stream, within its bounds, and nowhere else.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from typing import Any, NamedTuple, Protocol

import orjson
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.python.failure import Failure

from buildapi.errors import Gone, Overflow
from buildapi.mq.buffer import Room
from buildapi.mq.event import Event
from buildapi.mq.stream import Gap, Item, Stream, Synced

# What is taken from a stream at a time: about as much as the transport takes before it says stop.
SLICE_BYTES = 64 * 1024
# So many names of streams share the frames of an event; one socket has seldom more.
MOST_FRAMES = 64

Sub = int | str


class Bookmark(NamedTuple):
    """Nothing was told, and the client may go on from here all the same."""

    seq: int


class Out(Protocol):
    """The way to a client.  room: what may wait for it."""

    room: Room

    @property
    def paused(self) -> bool:
        """Whether the client does not keep up."""

    def send(self, payload: bytes) -> None:
        """Send a frame."""

    def send_events(self, events: list[Event], sub: Sub) -> None:
        """Send the frames of events."""

    def writable(self) -> Deferred[None]:
        """Fire when the client keeps up, or has gone."""

    def turn(self) -> AbstractAsyncContextManager[None]:
        """Let one stream after the other read a part and send it."""


def event_frame(event: Event, sub: Sub) -> bytes:
    """Return an event as the stream ``sub`` tells it."""
    return b'{"sub":%b,%b' % (orjson.dumps(sub), event.told[1:])


def item_frame(item: Gap | Synced | Bookmark, sub: Sub) -> bytes:
    """Return what is no event as the stream ``sub`` tells it."""
    return orjson.dumps({"sub": sub, **members(item)})


def members(item: Gap | Synced | Bookmark) -> dict[str, Any]:
    """Return what is no event as all roads tell it."""
    if isinstance(item, Gap):
        return {"gap": {"from": item.first, "to": item.last, "why": item.why}}
    return {"synced" if isinstance(item, Synced) else "bookmark": item.seq}


class Pump:
    """
    Sends the items of one stream.

    sub: the client's name for it.  bookmark_s: how often the client is told where it is, if it
    reads.  too_slow: called with the reason when a client that wants it is to be closed.
    broken: called with what went wrong; the stream has ended then.
    """

    kind = "subscription"

    def __init__(
        self,
        sub: Sub,
        stream: Stream,
        out: Out,
        clock: IReactorTime,
        bookmark_s: float,
        too_slow: Callable[[str], None],
        broken: Callable[[Failure], None],
    ) -> None:
        self.sub = sub
        self.stream = stream
        self._out = out
        self._clock = clock
        self._bookmark_s = bookmark_s
        self._too_slow = too_slow
        self._broken = broken
        self._busy = False
        self._idle: IDelayedCall | None = None

    def start(self) -> None:
        """Begin to send."""
        self.stream.ready = self._flush
        self._idle = self._clock.callLater(self._bookmark_s, self._bookmark)
        self._flush()

    def stop(self) -> None:
        """Send nothing more."""
        self.stream.close()
        if self._idle is not None and self._idle.active():
            self._idle.cancel()

    def _flush(self) -> None:
        """Send what there is, until the client does not keep up or there is nothing more."""
        stream, out = self.stream, self._out
        while not (self._busy or stream.closed):
            if out.paused:
                self._after(out.writable())
                return
            if stream.is_behind:
                self._after(Deferred.fromCoroutine(self._catch_up()))
                continue
            try:
                items = stream.take(SLICE_BYTES)
            except Overflow as error:
                self.stop()
                self._too_slow(error.sentence)
                return
            except Gone:
                self._failed(Failure())
                return
            if not items and not stream.is_behind:
                return
            self._send(items)

    async def _catch_up(self) -> None:
        """Read what was stored, a portion, and send it as fast as the client reads."""
        stream, out = self.stream, self._out
        async with out.turn():
            if stream.closed:
                return
            await stream.read_on()
            while stream.has_held:
                await out.writable()
                if not stream.closed:
                    self._send(stream.held(SLICE_BYTES))

    def _send(self, items: list[Item] | list[Bookmark]) -> None:
        # What else there is comes before the events.
        events: list[Event] = []
        for item in items:
            if isinstance(item, Event):
                events.append(item)
            else:
                self._out.send(item_frame(item, self.sub))
        if events:
            self._out.send_events(events, self.sub)

    def _after(self, waiting: Deferred[None]) -> None:
        """Go on when something is done; at once, if it is."""
        self._busy = True

        def came(_: None) -> None:
            self._busy = False

        waiting.addCallback(came)
        if not self._busy:
            waiting.addErrback(self._failed)
            return
        waiting.addCallbacks(lambda _: self._flush(), self._failed)

    def _failed(self, failure: Failure) -> None:
        self._busy = False
        if not self.stream.closed:
            self.stop()
            self._broken(failure)

    def _bookmark(self) -> None:
        # Moved or not: a page, which is shown no pings, takes this for a sign of life.
        if not (self._busy or self._out.paused):
            self._send([Bookmark(self.stream.bookmark)])
        self._idle = self._clock.callLater(self._bookmark_s, self._bookmark)
