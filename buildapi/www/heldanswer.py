"""An answer that is held open while a log is followed: what is the same for all kinds of it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any

from twisted.python.failure import Failure

from buildapi.data.fetch import Ask
from buildapi.data.gate import ANONYMOUS
from buildapi.www import envelope
from buildapi.www.eventstream import EventStreams
from buildapi.www.follow import Follower, Target, target
from buildapi.www.hub import Hubs
from buildapi.www.logquery import LogQuery
from buildapi.www.replies import refusal


class Answer(ABC):
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


def admit(streams: EventStreams, request: Any) -> None:
    """Count the client of an answer as long as it stays; raises as ``Admission.enter`` does."""
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
