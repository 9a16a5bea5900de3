"""
The roads of followers over HTTP: server-sent events, a download that grows, one answer.

Each is told of lines and of the end by its follower, and says how fast its client reads.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager

import orjson
from twisted.internet.defer import Deferred, succeed

from buildapi.data.logchunks import RawLog
from buildapi.data.loglines import Lines
from buildapi.www.eventstream import COMMENT, NO_HURRY, EventStream
from buildapi.www.outbox import Outbox


class HTTPRoad(ABC):
    """What they have in common.  ``ended``: whether the log has, and the client was told."""

    ended = False

    def __init__(self, outbox: Outbox) -> None:
        self.outbox = outbox

    def keeps_up(self) -> bool:
        """Say whether what is sent now leaves at once."""
        return not self.outbox.paused

    def room(self) -> Deferred[None]:
        """Fire when the client keeps up, or has gone."""
        return self.outbox.writable()

    def turn(self) -> AbstractAsyncContextManager[None]:
        """Read only when the client keeps up."""
        return self.outbox.turn()

    def begin(self, logid: int) -> Deferred[None]:  # noqa: ARG002  not all want to know
        """Get ready."""
        return succeed(None)

    def idle(self) -> None:  # noqa: B027  most just wait
        """Do nothing: something will happen."""

    @abstractmethod
    def lines(self, lines: Lines) -> None:
        """Send lines."""

    def piece(self, text: bytes | None) -> bool:  # noqa: ARG002  see Road
        """Refuse: most send whole lines."""
        return False

    @abstractmethod
    def end(self, num_lines: int) -> None:
        """Say that these are all."""


class EventRoad(HTTPRoad):
    """Lines as server-sent events."""

    def __init__(self, answer: EventStream) -> None:
        super().__init__(answer.outbox)
        self._answer = answer

    def begin(self, logid: int) -> Deferred[None]:  # noqa: ARG002  a frame tells
        """Let the client know that it has been heard."""
        self._answer.send(COMMENT)
        return succeed(None)

    def lines(self, lines: Lines) -> None:
        """Send an event with a frame."""
        self._answer.send(lines.event)

    def end(self, num_lines: int) -> None:
        """Send the last event, and end the answer."""
        self.ended = True
        data = orjson.dumps({"end": {"num_lines": num_lines, "complete": True}})
        self._answer.send(b"id: %d\n%bevent: end\ndata: %b\n\n" % (num_lines, NO_HURRY, data))


class RawRoad(HTTPRoad):
    """
    The text of the lines, as the raw download has it.

    open: reads what the download is, and adds its headers.  with_heading: whether that of type s is
    sent.
    """

    def __init__(
        self, outbox: Outbox, open_log: Callable[[int], Deferred[RawLog]], *, with_heading: bool
    ) -> None:
        super().__init__(outbox)
        self._open_log = open_log
        self._drops_letter = self._line_begins = False
        self._with_heading = with_heading

    def begin(self, logid: int) -> Deferred[None]:
        """Send the headers."""
        return self._open_log(logid).addCallback(self._begun)

    def _begun(self, log: RawLog) -> None:
        self._drops_letter = log.type == "s"
        self.outbox.send(log.heading if self._with_heading else b"")

    def lines(self, lines: Lines) -> None:
        """Send their text, without the letters of streams."""
        self.outbox.send(lines.shown)

    def piece(self, text: bytes | None) -> bool:
        """Send it as it is, without the letter at the beginning of the line."""
        if text is None:
            self._line_begins = self._drops_letter
        elif text:
            self.outbox.send(text[1:] if self._line_begins and text[:1] != b"\n" else text)
            self._line_begins = False
        return True

    def end(self, num_lines: int) -> None:  # noqa: ARG002  the end of the answer is the end
        """Remember that the log has ended, and was not only cut off."""
        self.ended = True


class PageRoad(HTTPRoad):
    """
    Takes the first lines that come.  ``found``: those.

    enough: called when there are some, or it has waited long enough.
    """

    def __init__(self, outbox: Outbox, enough: Callable[[], None]) -> None:
        super().__init__(outbox)
        self.found: Lines | None = None
        self._enough = enough
        self._hurried = False
        self._idle = True

    def hurry(self) -> None:
        """Wait for no more than what is there, which is looked at once in any case."""
        self._hurried = True
        if self._idle:
            self._enough()

    def begin(self, logid: int) -> Deferred[None]:  # noqa: ARG002  one is as good as another
        """Look at what is there."""
        self._idle = False
        return succeed(None)

    def idle(self) -> None:
        """Wait, if there is time for that."""
        self._idle = True
        if self._hurried:
            self._enough()

    def lines(self, lines: Lines) -> None:
        """Keep them, and stop."""
        if self.found is None and lines.text:
            self.found = lines
            self._enough()

    def end(self, num_lines: int) -> None:  # noqa: ARG002  the answer says so
        """Take note that nothing more will come."""
        self.ended = True
