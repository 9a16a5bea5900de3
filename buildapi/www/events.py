"""
``GET /api/v2/events``: events by position, as a stream or answer by answer.

    GET /api/v2/events?topic=build.%23&since=81234          Accept: text/event-stream

    id: 81235
    event: event
    data: {"seq":81235,"topic":"build.10.finished","at":1795231924.381,"m":{…}}

    id: 81240                           all that was stored has been told; what follows is new
    event: synced
    data: {"synced":81240}

    id: 81260                           idle: go on from here, though nothing was told
    event: bookmark
    data: {"bookmark":81260}

    id: 90                              these events are not coming
    event: gap
    data: {"gap":{"from":1,"to":90,"why":"retention"}}

A browser that lost the connection comes back with the last ``id`` as ``Last-Event-ID``, which wins
over ``since``. Without a position a stream begins now.

Who does not accept event streams gets one answer (``eventpage``), and with ``wait`` one that comes
as soon as there is an event. Without a position it begins with the oldest.

A position that is none of this log gets 410, and so does one whose events have been forgotten; a
stream tells of those by a gap.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from functools import partial
from typing import Any

import orjson
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure
from twisted.web.server import NOT_DONE_YET

from buildapi.data.api import DataAPI
from buildapi.data.gate import ANONYMOUS
from buildapi.errors import BuildAPIError, Gone, NoEventLog
from buildapi.mq.buffer import Room
from buildapi.mq.bus import Bus
from buildapi.mq.event import Event
from buildapi.mq.history import History
from buildapi.mq.stream import Gap, Item, Stream
from buildapi.settings import Limits
from buildapi.www import envelope
from buildapi.www.eventpage import EventPage
from buildapi.www.eventquery import EventQuery, parsed, resumed
from buildapi.www.eventstream import EventStream, EventStreams
from buildapi.www.outbox import room_of
from buildapi.www.pump import Bookmark, Pump, members
from buildapi.www.replies import refusal, until_gone

PATH = b"events"

_STREAM = b"text/event-stream"

_log = Logger()


def event_block(item: Item | Bookmark) -> bytes:
    """Return an item of a stream as a server-sent event."""
    if isinstance(item, Event):
        # A line of its own would be another line of data: what is stored may have been indented.
        data = item.told.replace(b"\r", b" ").replace(b"\n", b" ")
        return b"id: %d\nevent: event\ndata: %b\n\n" % (item.seq, data)
    told = members(item)
    (kind,) = told
    seq = item.last if isinstance(item, Gap) else item.seq
    return b"id: %d\nevent: %b\ndata: %b\n\n" % (seq, kind.encode(), orjson.dumps(told))


class EventPump(Pump):
    """Sends the items of one stream as server-sent events; who breaks off can come back."""

    def __init__(
        self, stream: Stream, answer: EventStream, clock: IReactorTime, bookmark_s: float
    ) -> None:
        super().__init__(
            "",
            stream,
            answer.outbox,
            clock,
            bookmark_s,
            lambda _: answer.close(),
            partial(_broken, answer),
        )

    def _send(self, items: Iterable[Item | Bookmark]) -> None:
        self._out.send(b"".join([event_block(item) for item in items]))


def _broken(answer: EventStream, failure: Failure) -> None:
    if not failure.check(BuildAPIError):
        _log.failure("a stream of events broke", failure)
    answer.close()


class Events:
    """
    Answers for the path.

    position: adds a position to the headers of an answer; without one, the newest.
    ``waiting``: the answers that wait for events.
    """

    def __init__(
        self,
        data: DataAPI,
        bus: Bus,
        streams: EventStreams,
        limits: Limits,
        position: Callable[..., None],
        clock: IReactorTime,
    ) -> None:
        self.waiting: set[EventPage] = set()
        self._data = data
        self._bus = bus
        self._streams = streams
        self._closed = False
        self._limits = limits
        self._position = position
        self._clock = clock

    def render(self, request: Any, query: bytes) -> int:
        """Answer a GET or HEAD."""
        request.route = "events"
        text = query.decode("utf-8", "surrogateescape")
        answering = Deferred.fromCoroutine(self._answer(request, text))
        gone = until_gone(request, answering)
        answering.addErrback(lambda failure: None if gone() else self._refuse(request, failure))
        return NOT_DONE_YET

    def close(self) -> None:
        """Answer all who wait: the server stops."""
        self._closed = True
        for page in list(self.waiting):
            page.end()

    async def _answer(self, request: Any, text: str) -> None:
        request.responseHeaders.addRawHeader(b"vary", b"accept")
        query = parsed(text)
        if self._bus.history is None:
            raise NoEventLog
        if _STREAM in (request.getHeader(b"accept") or b"").lower():
            await self._stream(request, resumed(query, request.getHeader("last-event-id")))
        else:
            await self._page(request, query, self._bus.history)

    async def _stream(self, request: Any, query: EventQuery) -> None:
        room = room_of(self._limits)
        stream = self._subscribed(request, query, query.since, room)
        stream.road = "eventstream"
        try:
            await stream.begin()
            answer = self._streams.begin(request, lambda _: stream.close(), room)
        except BaseException:
            stream.close()
            raise
        self._position(request.responseHeaders, stream.position)
        if request.method == b"HEAD":
            answer.close()
            return
        pump = EventPump(stream, answer, self._clock, self._limits.bookmark_s)
        request.notifyFinish().addBoth(lambda _: pump.stop())
        pump.start()

    async def _page(self, request: Any, query: EventQuery, history: History) -> None:
        extent = await history.extent()
        since = extent.oldest - 1 if query.since is None else query.since
        stream = self._subscribed(request, query, since, room_of(self._limits))
        stream.road = "longpoll"
        try:
            await stream.begin()
            page = EventPage(
                stream, extent, query.limit, self._limits, forgetful=query.since is None
            )
            await page.gather()
            wait_s = query.wait_s if request.method != b"HEAD" and not self._closed else 0.0
            if page.waits and wait_s:
                await self._wait(request, page, wait_s)
            body = page.body(self._bus.last_seq)
            self._position(request.responseHeaders, page.seq)
        finally:
            stream.close()
        _send(request, 200, envelope.JSON, body)

    async def _wait(self, request: Any, page: EventPage, wait_s: float) -> None:
        leave = self._streams.admission.enter(request.getClientAddress())
        timer = self._clock.callLater(wait_s, page.end)
        self.waiting.add(page)
        try:
            await page.wait()
        finally:
            self.waiting.discard(page)
            if timer.active():
                timer.cancel()
            leave()

    def _subscribed(self, request: Any, query: EventQuery, since: int | None, room: Room) -> Stream:
        stream = self._bus.subscribe(
            query.topics,
            since,
            log=query.log,
            room=room,
            sees=lambda event: self._data.gate.sees(ANONYMOUS, event),
        )
        stream.client = getattr(request.getClientAddress(), "host", None)
        return stream

    def _refuse(self, request: Any, failure: Failure) -> None:
        status, sentence = refusal(failure)
        self._position(request.responseHeaders)
        told: dict[str, Any] = {"error": sentence}
        error = failure.value
        if isinstance(error, Gone):
            told |= {"oldest": error.oldest, "newest": error.newest, "log": error.log}
        _send(request, status, envelope.TEXT, json.dumps(told).encode())


def _send(request: Any, status: int, content_type: bytes, body: bytes) -> None:
    request.setResponseCode(status)
    request.responseHeaders.setRawHeaders(b"content-type", [content_type])
    request.responseHeaders.setRawHeaders(b"content-length", [b"%d" % len(body)])
    if request.method != b"HEAD":
        request.write(body)
    request.finish()
