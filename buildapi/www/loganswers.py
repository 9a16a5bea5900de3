"""The kinds of answers that follow a log over HTTP: events, the download, one object."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import orjson
from twisted.internet.defer import Deferred
from twisted.python.failure import Failure

from buildapi.data.logchunks import RawLog, raw_log
from buildapi.data.plainrows import cut
from buildapi.data.storedjson import in_one_line
from buildapi.db.connect import Reader
from buildapi.db.engine import LOGS
from buildapi.errors import BadQuery
from buildapi.www import envelope
from buildapi.www.eventstream import NO_HURRY, UNBUFFERED, EventStream
from buildapi.www.follow import Follower, Target
from buildapi.www.heldanswer import Answer, admit
from buildapi.www.logquery import resumed
from buildapi.www.logroads import EventRoad, PageRoad, RawRoad
from buildapi.www.outbox import Outbox, room_of
from buildapi.www.rawlog import describe_log
from buildapi.www.replies import refusal

_STREAM = b"text/event-stream"
# An error from there on may be over soon.
_OURS = 500


class EventsAnswer(Answer):
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


class RawAnswer(Answer):
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
        admit(self.streams, self.request)
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


class PageAnswer(Answer):
    """One object."""

    async def describe(self, found: Target) -> None:  # noqa: ARG002  it is always the same
        """Add the type."""
        self._form()

    def road(self) -> PageRoad:
        """Take the first lines."""
        admit(self.streams, self.request)
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
