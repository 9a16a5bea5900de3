"""
The WebSocket ``/ws``: commands, their replies, and what streams from them.

Frames are text frames with one JSON object. A command has a ``cmd`` and an ``_id``; its reply
repeats the ``_id``:

    {"cmd": "ping", "_id": 1}                                 {"msg": "pong", "code": 200, "_id": 1}
    {"cmd": "startConsuming", "path": "builds/*/new", "_id": 2}
    {"cmd": "stopConsuming", "path": "builds/*/new", "_id": 3}
    {"cmd": "followLog", "logid": 60, "offset": 0, "_id": 4}  see ``follow``
    {"cmd": "unsubscribe", "sub": 4, "_id": 5}                nothing more of it follows

    {"error": "no such command type 'x'", "code": 404, "_id": 6}

Events of ``startConsuming`` come as ``{"k": "builds/3/new", "m": {…}}``. Its path is a slash key,
where ``*`` stands for one element, or a dotted pattern (a dot and no slash), whose events have the
topic as ``k``.

What a client does not read waits in a bounded buffer. When that is full the socket is closed with
code 4008: no event is dropped in silence. Followers of logs wait instead, they hold no buffer.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any, NamedTuple

import orjson
from twisted.internet.defer import Deferred, DeferredLock
from twisted.logger import Logger
from twisted.python.failure import Failure

from buildapi.data.api import DataAPI
from buildapi.data.gate import ANONYMOUS, Identity
from buildapi.errors import BadRequest, BuildAPIError, Conflict, NotFound
from buildapi.mq.bus import Bus
from buildapi.mq.event import Event
from buildapi.mq.listener import Listener
from buildapi.mq.topic import is_dotted
from buildapi.www.follow import Follower, Target, target

# Subscriptions and streams together.
MOST_SUBSCRIPTIONS = 1_000

_log = Logger()


class NoSuchCommand(NotFound):
    """The frame's ``cmd`` is none of ours."""


class Reply(NamedTuple):
    """What a reply has besides msg, code and _id; what is to be done once it is sent."""

    members: dict[str, Any]
    then: Callable[[], None] = lambda: None


# Each command with the arguments that it may have besides cmd and _id.
COMMANDS: dict[str, tuple[str, ...]] = {
    "ping": (),
    "startConsuming": ("path",),
    "stopConsuming": ("path",),
    "followLog": ("logid", "path", "offset"),
    "unsubscribe": ("sub",),
}


class Client:
    """
    The conversation with one client.

    out: sends a frame.  writable: gives a Deferred that fires when the client keeps up.
    """

    def __init__(
        self,
        data: DataAPI,
        bus: Bus,
        out: Callable[[bytes], None],
        writable: Callable[[], Deferred[None]],
    ) -> None:
        self._data = data
        self._bus = bus
        self._out = out
        self._writable = writable
        self.identity: Identity = ANONYMOUS
        self._consumers: dict[str, Listener] = {}
        self._streams: dict[int | str, Follower] = {}
        self._turns = DeferredLock()
        self._closed = False
        self._handlers: dict[str, Callable[[dict[str, Any]], Awaitable[Reply]]] = {
            "ping": self._ping,
            "startConsuming": self._start_consuming,
            "stopConsuming": self._stop_consuming,
            "followLog": self._follow_log,
            "unsubscribe": self._unsubscribe,
        }

    def received(self, payload: bytes) -> None:
        """Carry out the command in a frame."""
        if self._closed:
            return
        Deferred.fromCoroutine(self._answered(payload)).addErrback(
            lambda failure: _log.failure("a frame could not be answered", failure)
        )

    def close(self) -> None:
        """End everything: the client has gone."""
        self._closed = True
        for listener in self._consumers.values():
            listener.close()
        for stream in list(self._streams.values()):
            stream.stop()
        self._consumers.clear()
        self._streams.clear()

    def send(self, frame: dict[str, Any]) -> None:
        """Send a frame."""
        if not self._closed:
            self._out(orjson.dumps(frame))

    @asynccontextmanager
    async def turn(self) -> AsyncIterator[None]:
        """
        Let one stream after the other read a part and send it, as soon as the client keeps up.

        Without turns all streams of a slow client would read on at once, and each hold a part.
        """
        async with self._turns:
            await self._writable()
            yield

    def _tell(self, key: str, event: Event) -> None:
        if self._data.gate.sees(self.identity, event):
            # The body was serialised once, for all subscribers.
            self._out(b'{"k":%b,"m":%b}' % (orjson.dumps(key), event.body))

    async def _answered(self, payload: bytes) -> None:
        ident: Any = None
        try:
            frame = _parsed(payload)
            ident = frame.get("_id")
            reply = await self._handler(frame)(frame)
            self.send({"msg": "OK", "code": 200, "_id": ident, **reply.members})
            reply.then()
        except BuildAPIError as error:
            self.send({"error": error.sentence, "code": error.status, "_id": ident})
        except Exception:  # noqa: BLE001  every frame has an answer
            _log.failure("a command failed")
            sentence = "an internal error; the server's log has it"
            self.send({"error": sentence, "code": 500, "_id": ident})

    def _handler(self, frame: dict[str, Any]) -> Callable[[dict[str, Any]], Awaitable[Reply]]:
        word = frame["cmd"]
        if not isinstance(word, str):
            raise BadRequest("invalid 'cmd' in websocket frame: a text is wanted")
        if word not in COMMANDS:
            raise NoSuchCommand(f"no such command type '{word}'")
        for name in frame:
            if name not in ("cmd", "_id", "type", *COMMANDS[word]):
                raise BadRequest(f"Invalid method argument '{name}'")
        return self._handlers[word]

    async def _ping(self, frame: dict[str, Any]) -> Reply:  # noqa: ARG002  one signature for all
        return Reply({"msg": "pong"})

    async def _start_consuming(self, frame: dict[str, Any]) -> Reply:
        path = _path(frame)
        if path not in self._consumers:
            self._check_room()
            if is_dotted(path):
                self._consumers[path] = self._bus.listen(
                    path, lambda event: self._tell(event.topic, event)
                )
            else:
                self._consumers[path] = self._bus.listen_keys(path, self._tell)
        return Reply({})

    async def _stop_consuming(self, frame: dict[str, Any]) -> Reply:
        path = _path(frame)
        listener = self._consumers.pop(path, None)
        if listener is None:
            raise BadRequest(f"path was not consumed '{path}'")
        listener.close()
        return Reply({})

    async def _follow_log(self, frame: dict[str, Any]) -> Reply:
        sub = _sub(frame, "_id")
        if sub in self._streams:
            raise Conflict(f"_id {sub} is the name of a stream already; choose another")
        logid, path = frame.get("logid"), frame.get("path")
        offset = _integer(frame.get("offset", 0), "offset")
        if (logid is None) == (path is None):
            raise BadRequest("Invalid method argument 'logid': followLog wants it, or a path")
        if logid is not None:
            _integer(logid, "logid")
        else:
            _path(frame)
        self._check_room()
        follower = Follower(self._data, self._bus, self.identity, self, sub, offset)
        # The name is taken from now on: another command may come while the log is looked up.
        self._streams[sub] = follower
        try:
            found = await target(self._data, logid, path, self.identity)
        except BaseException:
            self._forget(follower)
            raise
        return Reply({"logid": found.logid}, lambda: self._begin(follower, found))

    def _begin(self, follower: Follower, found: Target) -> None:
        streaming = follower.follow(found)
        streaming.addErrback(self._broken, follower)
        streaming.addCallback(lambda _: self._forget(follower))

    def _broken(self, failure: Failure, follower: Follower) -> None:
        code, sentence = 500, "an internal error; the server's log has it"
        if isinstance(failure.value, BuildAPIError):
            code, sentence = failure.value.status, failure.value.sentence
        else:
            _log.failure("a stream broke", failure)
        self.send({"sub": follower.sub, "error": sentence, "code": code})

    def _forget(self, follower: Follower) -> None:
        """Free the name of a stream, unless another one has it by now."""
        if self._streams.get(follower.sub) is follower:
            del self._streams[follower.sub]

    async def _unsubscribe(self, frame: dict[str, Any]) -> Reply:
        stream = self._streams.pop(_sub(frame, "sub"), None)
        if stream is None:
            raise BadRequest("Invalid method argument 'sub': there is no such stream here")
        stream.stop()
        return Reply({})

    def _check_room(self) -> None:
        if len(self._consumers) + len(self._streams) >= MOST_SUBSCRIPTIONS:
            raise Conflict(f"a socket can have {MOST_SUBSCRIPTIONS} subscriptions, not more")


def _parsed(payload: bytes) -> dict[str, Any]:
    try:
        frame = orjson.loads(payload)
    except orjson.JSONDecodeError:
        raise BadRequest("the frame is no JSON text") from None
    if not isinstance(frame, dict):
        raise BadRequest("the frame is no JSON object")
    if frame.get("_id") is None and "type" not in frame:
        raise BadRequest("no '_id' or 'type' in websocket frame")
    if frame.get("cmd") is None:
        raise BadRequest("no 'cmd' in websocket frame")
    try:
        orjson.dumps(frame.get("_id"))
    except orjson.JSONEncodeError:
        # It reads deeper than it writes.
        raise BadRequest("the _id is nested too deeply to be repeated") from None
    return frame


def _path(frame: dict[str, Any]) -> str:
    if "path" not in frame:
        raise BadRequest("Invalid method argument 'path': it is missing")
    path = frame["path"]
    if not isinstance(path, str):
        raise BadRequest(f"invalid path format '{path}'")
    return path


def _integer(value: Any, name: str) -> int:
    if isinstance(value, bool) or not isinstance(value, int):
        raise BadRequest(f"Invalid method argument '{name}': an integer is wanted")
    return value


def _sub(frame: dict[str, Any], name: str) -> int | str:
    value = frame.get(name)
    if isinstance(value, bool) or not isinstance(value, int | str):
        raise BadRequest(f"Invalid method argument '{name}': a stream has a text or an integer")
    return value
