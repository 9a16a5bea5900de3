"""
Answers of the type ``text/event-stream``: they end when the client goes, or the server.

    event: handshake
    data: 6a8d4d9e-…

    : (a comment, now and then, so that nobody on the way takes the connection for dead)

What a client does not read waits in a bounded buffer; when that is full the connection is cut, and
the client, which connects again by itself, knows that it may have missed something.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import LoopingCall

from buildapi.mq.buffer import Room
from buildapi.settings import Limits
from buildapi.www.admission import Admission
from buildapi.www.outbox import Outbox, room_of

COMMENT = b":\n\n"
# A browser comes back after every end, three seconds later by default: after one that nothing can
# follow it does so in a day. Not 204 when it comes: who lost the connection just before the end has
# the same last id, and is still to be told of it.
NO_HURRY = b"retry: 86400000\n"

# A proxy that collects what it passes on would hold things back.
UNBUFFERED = ((b"cache-control", b"no-store"), (b"x-accel-buffering", b"no"))
CONTENT_TYPE = b"text/event-stream; charset=utf-8"
_HEADERS = ((b"content-type", CONTENT_TYPE), *UNBUFFERED)


class EventStream:
    """
    One such answer.

    ended: called once, whoever ends it.  ``outbox``: what the client has not read yet.
    """

    def __init__(self, request: Any, room: Room, ended: Callable[[EventStream], None]) -> None:
        self._request = request
        self._ended = ended
        self.closed = False
        self.cut = False
        self.outbox = Outbox(request.write, self._too_slow, room)
        for name, value in _HEADERS:
            request.responseHeaders.setRawHeaders(name, [value])
        request.notifyFinish().addBoth(lambda _: self._end())
        request.registerProducer(self.outbox, True)

    @property
    def client(self) -> str:
        """The address of the client."""
        return getattr(self._request.getClientAddress(), "host", None) or "a local socket"

    def send(self, frame: bytes) -> None:
        """Send an event, whole, with the empty line behind it."""
        if not self.closed:
            self.outbox.send(frame)

    def writable(self) -> Deferred[None]:
        """Fire when the client keeps up, or has gone."""
        return self.outbox.writable()

    def comment(self) -> None:
        """Show that we are alive, unless there is more to read already than the client reads."""
        if not self.closed and not self.outbox.paused:
            self.outbox.send(COMMENT)

    def close(self) -> None:
        """End the answer."""
        if not self.closed:
            self._end()
            self._request.unregisterProducer()
            self._request.finish()

    def _too_slow(self) -> None:
        self.cut = True
        self._end()
        self._request.channel.transport.abortConnection()

    def _end(self) -> None:
        if not self.closed:
            self.closed = True
            # Before those who wait to send are let go: they are to send nothing more.
            self._ended(self)
            self.outbox.close()


class EventStreams:
    """
    All such answers of a server.

    ``open``: those that have not ended.  ``cut``: how many clients were too slow, since the start.
    ``admission``: says how many there may be.
    """

    def __init__(self, limits: Limits, admission: Admission, clock: IReactorTime) -> None:
        self.open: set[EventStream] = set()
        self.cut = 0
        self._limits = limits
        self.admission = admission
        self._beat = LoopingCall(self._comment)
        self._beat.clock = clock

    def begin(
        self, request: Any, ended: Callable[[EventStream], None], room: Room | None = None
    ) -> EventStream:
        """
        Begin an answer.  ended: called once, whoever ends it.  room: of what waits for the client.

        Raises TooMany or Unavailable where there are enough.
        """
        leave = self.admission.enter(request.getClientAddress())

        def over(stream: EventStream) -> None:
            leave()
            self.open.discard(stream)
            self.cut += stream.cut
            if not self.open:
                self._beat.stop()
            ended(stream)

        stream = EventStream(request, room or room_of(self._limits), over)
        self.open.add(stream)
        if not self._beat.running:
            self._beat.start(self._limits.heartbeat_s, now=False)
        return stream

    def close(self) -> None:
        """End them all: the server stops."""
        for stream in list(self.open):
            stream.close()

    def _comment(self) -> None:
        for stream in list(self.open):
            stream.comment()
