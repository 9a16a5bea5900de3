"""A followed log as a stream of a WebSocket: the command ``followLog``; see ``follow``."""

from __future__ import annotations

from contextlib import AbstractAsyncContextManager
from typing import Any, Protocol

import orjson
from twisted.internet.defer import Deferred, succeed

from buildapi.data.gate import Identity
from buildapi.data.loglines import Lines, Selection, selection
from buildapi.errors import BadRequest
from buildapi.settings import Limits
from buildapi.www.follow import Follower, Target, target
from buildapi.www.hub import Hubs
from buildapi.www.pump import MOST_FRAMES


class Sink(Protocol):
    """Where the frames of a stream go."""

    def send(self, frame: dict[str, Any]) -> None:
        """Send one frame."""

    def send_bytes(self, frame: bytes) -> None:
        """Send one frame that is JSON already."""

    def keeps_up(self) -> bool:
        """Say whether what is sent now leaves at once."""

    def room(self) -> Deferred[None]:
        """Fire when the client keeps up, or has gone."""

    def turn(self) -> AbstractAsyncContextManager[None]:
        """Let one stream after the other read and send, when that doesn't pile up."""


class Frames:
    """The road of a follower whose lines become frames; each begins with these members."""

    def __init__(self, sink: Sink, members: dict[str, Any]) -> None:
        self._sink = sink
        self._members = members
        self._opening = orjson.dumps(members)[:-1] + b","
        self.keeps_up = sink.keeps_up
        self.room = sink.room
        self.turn = sink.turn

    def begin(self, logid: int) -> Deferred[None]:  # noqa: ARG002  the reply has told of it
        """Do nothing: a frame tells what it is."""
        return succeed(None)

    def idle(self) -> None:
        """Do nothing: it goes on."""

    def lines(self, lines: Lines) -> None:
        """Send a frame, which is made once for all whose frames begin alike."""
        frame = lines.frames.get(self._opening)
        if frame is None:
            frame = self._opening + lines.members
            if len(lines.frames) < MOST_FRAMES:
                lines.frames[self._opening] = frame
        self._sink.send_bytes(frame)

    def piece(self, text: bytes | None) -> bool:  # noqa: ARG002  see Road
        """Refuse: a frame has whole lines."""
        return False

    def end(self, num_lines: int) -> None:
        """Send the last frame."""
        self._sink.send({**self._members, "end": {"num_lines": num_lines, "complete": True}})


class LogStream:
    """
    The stream of a ``followLog``.

    Raises BadRequest if an argument is wrong.
    """

    kind = "follower"

    def __init__(
        self, hubs: Hubs, identity: Identity, sink: Sink, sub: int | str, frame: dict[str, Any]
    ) -> None:
        self.sub = sub
        self._data = hubs.data
        self._identity = identity
        self._logid, self._path = frame.get("logid"), frame.get("path")
        offset = integer(frame, "offset")
        if (self._logid is None) == (self._path is None):
            raise BadRequest("Invalid method argument 'logid': followLog wants it, or a path")
        if self._path is None:
            integer(frame, "logid")
        elif not isinstance(self._path, str):
            raise BadRequest(f"invalid path format '{self._path}'")
        wanted = wanted_lines(frame, hubs.limits)
        self._follower = Follower(hubs, identity, Frames(sink, {"sub": sub}), offset, wanted)
        self._target = Target(None)

    async def found(self) -> dict[str, Any]:
        """Find the log; return what the reply has besides."""
        self._target = await target(self._data, self._logid, self._path, self._identity)
        return {"logid": self._target.logid}

    def begin(self) -> Deferred[None]:
        """Stream; fire at the end."""
        return self._follower.follow(self._target)

    def stop(self) -> None:
        """Send nothing more."""
        self._follower.stop()


def wanted_lines(frame: dict[str, Any], limits: Limits) -> Selection:
    """Return which lines a command asks for; BadRequest."""
    for name in ("grep", "streams"):
        if not isinstance(frame.get(name), str | None):
            raise BadRequest(f"Invalid method argument '{name}': a text is wanted")
    context = integer(frame, "context")
    try:
        return selection(frame.get("grep"), context, frame.get("streams"), limits)
    except BadRequest as error:
        name, _, reason = error.sentence.partition(": ")
        raise BadRequest(f"Invalid method argument '{name}': {reason}") from None


def integer(frame: dict[str, Any], name: str) -> int:
    """Return a number that is 0 if it is not given; BadRequest."""
    value = frame.get(name, 0)
    if isinstance(value, bool) or not isinstance(value, int):
        raise BadRequest(f"Invalid method argument '{name}': an integer is wanted")
    return value
