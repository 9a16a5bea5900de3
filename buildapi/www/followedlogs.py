r"""
Following a log over HTTP; ``follow`` says what its arguments mean.

    GET /api/v2/logs/60/contents?follow=1&offset=120        Accept: text/event-stream

    id: 184
    event: lines
    data: {"logid":60,"first":120,"next":184,"content":"whole lines\n"}

    id: 4711
    retry: 86400000
    event: end
    data: {"end":{"num_lines":4711,"complete":true}}

A browser that lost the connection comes back with the last ``id`` as ``Last-Event-ID``, which wins
over ``offset``. A stream that can't go on ends with ``event: error``. A page should close its
``EventSource`` at either; the one that does not comes back in a day (``retry``).

    GET /api/v2/logs/60/raw?follow=1

The download, which grows with the log and ends with it. One that is cut before that breaks off.

    GET /api/v2/logs/60/contents?offset=120&wait=25

    {"logchunks": [{"logid": 60, "firstline": 120, "content": "whole lines\n",
                    "next": 184, "complete": false}], "meta": {}}

One answer with the next lines, as soon as there are any, but not with more than a frame has; pass
``next`` as the offset of the next one. It is empty when none came in time, and at the end of the
log: ``complete``. With ``grep`` there are ``lines`` instead of ``content``.

The path of a log that is not there yet waits for it. Where nothing is to be said meanwhile, no
status is sent: it is 404 if the step ends without such a log.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any

import orjson
from twisted.internet.defer import Deferred
from twisted.python.failure import Failure
from twisted.web.server import NOT_DONE_YET

from buildapi.data.fetch import Ask
from buildapi.data.gate import ANONYMOUS
from buildapi.data.logchunks import LogChunk, RawLog, raw_log
from buildapi.data.plainrows import cut
from buildapi.data.storedjson import in_one_line
from buildapi.db.connect import Reader
from buildapi.db.engine import LOGS
from buildapi.errors import BadQuery, NoSuchPath
from buildapi.www import envelope
from buildapi.www.eventstream import NO_HURRY, UNBUFFERED, EventStream, EventStreams
from buildapi.www.follow import Follower, Target, target
from buildapi.www.hub import Hubs
from buildapi.www.logquery import LogQuery, parsed, resumed
from buildapi.www.logroads import EventRoad, PageRoad, RawRoad
from buildapi.www.outbox import Outbox, room_of
from buildapi.www.rawlog import describe_log
from buildapi.www.replies import refusal

_STREAM = b"text/event-stream"
# An error from there on may be over soon.
_OURS = 500


def asks_to_follow(path: bytes, query: bytes) -> bool:
    """Say, quickly, whether this may be a GET that follows a log."""
    if b"follow=" not in query and b"wait=" not in query:
        return False
    return path.endswith((b"/contents", b"/raw", b"/raw_inline"))


class FollowedLogs:
    """
    Answers such GETs.

    position: adds the newest position to the headers of an answer.  otherwise: answers what does
    not ask to follow after all.
    """

    def __init__(
        self,
        hubs: Hubs,
        streams: EventStreams,
        position: Callable[[Any], None],
        otherwise: Callable[[Any, bytes, bytes], Any],
    ) -> None:
        self._hubs = hubs
        self._data = hubs.data
        self._streams = streams
        self._position = position
        self._otherwise = otherwise

    def render(self, request: Any, path: bytes, query: bytes) -> Any:
        """Answer a GET or HEAD."""
        try:
            text = path.decode()
            ask = self._data.understood(text, "", ANONYMOUS)
            raw = ask.match.route.kind in ("raw", "raw_inline")
            asked = parsed(query.decode("utf-8", "surrogateescape"), self._hubs.limits, raw=raw)
            if asked is None or ask.match.route.resource is not LogChunk:
                return self._otherwise(request, path, query)
            request.route = "follow"
            self._position(request.responseHeaders)
            kind = _Raw if raw else _Events if asked.wait_s is None else _Page
            answer = kind(self._hubs, self._streams, request, ask, asked)
        except UnicodeDecodeError:
            refuse(request, Failure(NoSuchPath("Invalid path: it is no UTF-8")))
        except Exception:  # noqa: BLE001  every answer is ours, this one too
            refuse(request, Failure())
        else:
            Deferred.fromCoroutine(answer.sent(text.rpartition("/")[0])).addErrback(answer.fail)
        return NOT_DONE_YET


class _Answer(ABC):
    """One answer: a follower, the road it has, and what stands around."""

    def __init__(
        self, hubs: Hubs, streams: EventStreams, request: Any, ask: Ask, asked: LogQuery
    ) -> None:
        self.hubs = hubs
        self.streams = streams
        self.request = request
        self.ask = ask
        self.asked = asked
        self.follower: Follower | None = None
        self._gone = False
        request.notifyFinish().addErrback(lambda _: self._went())

    async def sent(self, path: str) -> None:
        """Send all that is to come of the log at this path."""
        found = await target(self.hubs.data, None, path, ANONYMOUS)
        if self._gone:
            return
        if self.request.method == b"HEAD":
            await self.describe(found)
            self.request.finish()
            return
        road = self.road()
        offset = self.asked.offset or 0
        follower = self.follower = Follower(self.hubs, ANONYMOUS, road, offset, self.asked.wanted)
        await self.streamed(follower, found, road)
        if road.ended:
            # What was sent last may still wait for the client.
            await road.room()
        if not self._gone:
            self.finish(road)

    def fail(self, failure: Failure) -> None:
        """Say what went wrong, or break off."""
        if self._gone:
            return
        self._gone = True
        self.request.unregisterProducer()
        if self.request.startedWriting:
            self.break_off(failure)
        else:
            refuse(self.request, failure)

    def _went(self) -> None:
        self._gone = True
        if self.follower is not None:
            self.follower.stop()

    @abstractmethod
    async def describe(self, found: Target) -> None:
        """Add the headers of the answer to a HEAD."""

    @abstractmethod
    def road(self) -> Any:
        """Begin, and return the road for the lines."""

    async def streamed(self, follower: Follower, found: Target, road: Any) -> None:  # noqa: ARG002  some do
        """Have the lines sent."""
        await follower.follow(found)

    @abstractmethod
    def finish(self, road: Any) -> None:
        """End the answer, as the follower has ended or was stopped."""

    def break_off(self, failure: Failure) -> None:
        """End an answer of which something was sent."""
        refusal(failure)  # logs what is not ours
        # Half a log must not look like a whole one.
        self.request.channel.transport.abortConnection()


class _Events(_Answer):
    """Server-sent events."""

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self.request.responseHeaders.addRawHeader(b"vary", b"accept")
        if _STREAM not in (self.request.getHeader(b"accept") or b"").lower():
            raise BadQuery("follow: lines come as events; accept text/event-stream, or use raw")
        self.asked = resumed(self.asked, self.request.getHeader("last-event-id"))
        self._answer: EventStream | None = None

    async def describe(self, found: Target) -> None:  # noqa: ARG002  it is always the same
        """Add the type."""
        self.request.responseHeaders.setRawHeaders(
            b"content-type", [b"text/event-stream; charset=utf-8"]
        )

    def road(self) -> EventRoad:
        """Begin an answer that shows now and then that it is alive."""
        self._answer = self.streams.begin(self.request, lambda _: self._went())
        return EventRoad(self._answer)

    def finish(self, road: EventRoad) -> None:  # noqa: ARG002  who is not told of an end comes back
        """End the answer."""
        assert self._answer is not None  # noqa: S101  it has begun
        self._answer.close()

    def fail(self, failure: Failure) -> None:
        """Send an error as an event, if it is too late for a status."""
        answer = self._answer
        if answer is None or not self.request.startedWriting:
            super().fail(failure)
        elif not self._gone:
            code, sentence = refusal(failure)
            data = orjson.dumps({"error": sentence, "code": code})
            retry = NO_HURRY if code < _OURS else b""
            answer.send(b"%bevent: error\ndata: %b\n\n" % (retry, data))
            # It may have to wait for the client.
            answer.writable().addCallback(lambda _: answer.close())


class _Raw(_Answer):
    """The download."""

    async def describe(self, found: Target) -> None:
        """Add the headers of the download."""
        if found.logid is not None:
            await self._opened(found.logid)

    def road(self) -> RawRoad:
        """Write into the answer."""
        outbox = Outbox(
            self.request.write,
            self.request.channel.transport.abortConnection,
            room_of(self.hubs.limits),
        )
        _admit(self.streams, self.request)
        self.request.registerProducer(outbox, True)
        self.request.notifyFinish().addBoth(lambda _: outbox.close())
        return RawRoad(outbox, self._opened, with_heading=not self.asked.offset)

    def _opened(self, logid: int) -> Deferred[RawLog]:
        ask = self.ask

        def find(reader: Reader) -> RawLog:
            return raw_log(reader, "logs/n:logid", {"logid": logid}, ask.restriction)

        return self.hubs.data.database.read(find, LOGS).addCallback(self._described)

    def _described(self, log: RawLog) -> RawLog:
        headers = self.request.responseHeaders
        describe_log(headers, log, attached=self.ask.match.route.kind == "raw")
        for name, value in UNBUFFERED:
            headers.setRawHeaders(name, [value])
        return log

    def finish(self, road: RawRoad) -> None:
        """End the answer with the log; if it was stopped before that, break off."""
        self.request.unregisterProducer()
        if road.ended:
            self.request.finish()
        else:
            self.request.channel.transport.abortConnection()


class _Page(_Answer):
    """One object."""

    async def describe(self, found: Target) -> None:  # noqa: ARG002  it is always the same
        """Add the type."""
        self._form()

    def road(self) -> PageRoad:
        """Take the first lines."""
        _admit(self.streams, self.request)
        room = room_of(self.hubs.limits)
        return PageRoad(Outbox(self.request.write, self._stop, room), self._stop)

    def _stop(self) -> None:
        if self.follower is not None:
            self.follower.stop()

    async def streamed(self, follower: Follower, found: Target, road: PageRoad) -> None:
        """Wait for lines, but not too long."""
        if found.logid is not None:
            await road.begin(found.logid)
        timer = self.hubs.clock.callLater(self.asked.wait_s or 0, road.hurry)
        if not self.asked.wait_s:
            road.hurry()
        try:
            await follower.follow(found)
        finally:
            if timer.active():
                timer.cancel()

    def finish(self, road: PageRoad) -> None:
        """Answer with what has come."""
        follower = self.follower
        assert follower is not None  # noqa: S101  it has ended
        first = max(0, self.asked.offset or 0)
        row: dict[str, Any] = {"logid": follower.logid, "firstline": first}
        lines = road.found
        if lines is not None and self.asked.limit is not None:
            lines = lines.head(self.asked.limit)
        if lines is not None:
            members = orjson.loads(b"{" + lines.members)
            row |= {"firstline": members.pop("first"), **members}
        else:
            if follower.place is not None:
                row["firstline"] = follower.place.told
            grepped = self.asked.wanted.grep is not None
            row["lines" if grepped else "content"] = [] if grepped else ""
            row["next"] = row["firstline"]
        row["complete"] = road.ended
        query = self.asked.query
        kept = row if query.fields is None else cut(row, query)
        body = self._form()({"logchunks": [kept], "meta": {}})
        self.request.responseHeaders.setRawHeaders(b"content-length", [b"%d" % len(body)])
        self.request.write(body)
        self.request.finish()

    def _form(self) -> Callable[[Any], bytes]:
        headers = self.request.responseHeaders
        headers.addRawHeader(b"vary", b"accept")
        compact = b"application/json" in (self.request.getHeader(b"accept") or b"")
        headers.setRawHeaders(b"content-type", [envelope.JSON if compact else envelope.TEXT])
        headers.setRawHeaders(b"cache-control", [b"no-store"])
        return in_one_line if compact else envelope.for_people


def _admit(streams: EventStreams, request: Any) -> None:
    leave = streams.admission.enter(request.getClientAddress())
    request.notifyFinish().addBoth(lambda _: leave())


def refuse(request: Any, failure: Failure) -> None:
    """Answer with an error."""
    status, sentence = refusal(failure)
    request.setResponseCode(status)
    headers = request.responseHeaders
    headers.setRawHeaders(b"content-type", [envelope.TEXT])
    body = envelope.error(sentence)
    headers.setRawHeaders(b"content-length", [b"%d" % len(body)])
    if request.method != b"HEAD":
        request.write(body)
    request.finish()
