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

from collections.abc import Callable
from typing import Any

import orjson
from twisted.internet.defer import Deferred
from twisted.logger import Logger
from twisted.python.failure import Failure

from buildapi.data.api import DataAPI
from buildapi.data.gate import ANONYMOUS, Identity
from buildapi.errors import BadRequest, BuildAPIError, Conflict, NotFound
from buildapi.mq.bus import Bus
from buildapi.mq.event import Event
from buildapi.mq.listener import Listener
from buildapi.mq.topic import is_dotted
from buildapi.www.follow import Follower, target

MOST_SUBSCRIPTIONS = 1_000

_log = Logger()
_MISSING: Any = object()


class NoSuchCommand(NotFound):
    """The frame's ``cmd`` is none of ours."""


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
        self.writable = writable
        self.identity: Identity = ANONYMOUS
        self._consumers: dict[str, Listener] = {}
        self._streams: dict[int | str, Follower] = {}

    def received(self, payload: bytes) -> None:
        """Carry out the command in a frame."""
        Deferred.fromCoroutine(self._answered(payload)).addErrback(
            lambda failure: _log.failure("a frame could not be answered", failure)
        )

    def close(self) -> None:
        """End everything: the client has gone."""
        for listener in self._consumers.values():
            listener.close()
        for stream in list(self._streams.values()):
            stream.stop()

    def send(self, frame: dict[str, Any]) -> None:
        """Send a frame."""
        self._out(orjson.dumps(frame))

    def _tell(self, key: str, event: Event) -> None:
        if self._data.gate.sees(self.identity, event):
            # The body was serialised once, for all subscribers.
            self._out(b'{"k":%b,"m":%b}' % (orjson.dumps(key), event.body))

    def _forget(self, sub: int | str) -> None:
        self._streams.pop(sub, None)

    async def _answered(self, payload: bytes) -> None:
        ident: Any = None
        try:
            frame = _parsed(payload)
            ident = frame.get("_id")
            if frame.get("cmd") is None:
                # Buildbot's answer does not repeat the _id here.
                self.send({"error": "no 'cmd' in websocket frame", "code": 400, "_id": None})
                return
            reply = await self._command(frame["cmd"])(frame)
            self.send({"msg": "OK", "code": 200, "_id": ident, **reply})
            started = self._streams.get(ident) if "logid" in reply else None
            if started is not None:
                self._begin(started)
        except BuildAPIError as error:
            self.send({"error": error.sentence, "code": error.status, "_id": ident})
        except Exception:  # noqa: BLE001  every frame has an answer
            _log.failure("a command failed")
            sentence = "an internal error; the server's log has it"
            self.send({"error": sentence, "code": 500, "_id": ident})

    def _command(self, word: Any) -> Callable[[dict[str, Any]], Any]:
        commands: dict[str, Callable[[dict[str, Any]], Any]] = {
            "ping": self._ping,
            "startConsuming": self._start_consuming,
            "stopConsuming": self._stop_consuming,
            "followLog": self._follow_log,
            "unsubscribe": self._unsubscribe,
        }
        if not isinstance(word, str) or word not in commands:
            raise NoSuchCommand(f"no such command type '{word}'")
        return commands[word]

    async def _ping(self, frame: dict[str, Any]) -> dict[str, Any]:  # noqa: ARG002  one signature for all
        return {"msg": "pong"}

    async def _start_consuming(self, frame: dict[str, Any]) -> dict[str, Any]:
        path = _path(frame)
        if path not in self._consumers:
            if len(self._consumers) >= MOST_SUBSCRIPTIONS:
                raise Conflict(f"a socket can have {MOST_SUBSCRIPTIONS} subscriptions, not more")
            bus = self._bus
            if is_dotted(path):
                self._consumers[path] = bus.listen(
                    path, lambda event: self._tell(event.topic, event)
                )
            else:
                self._consumers[path] = bus.listen_keys(path, self._tell)
        return {}

    async def _stop_consuming(self, frame: dict[str, Any]) -> dict[str, Any]:
        path = _path(frame)
        listener = self._consumers.pop(path, None)
        if listener is None:
            raise BadRequest(f"path was not consumed '{path}'")
        listener.close()
        return {}

    async def _follow_log(self, frame: dict[str, Any]) -> dict[str, Any]:
        sub = frame["_id"]
        if isinstance(sub, bool) or not isinstance(sub, (int, str)):
            raise BadRequest("_id: a stream needs a text or an integer")
        if sub in self._streams:
            raise Conflict(f"_id {sub} is the name of a stream already; choose another")
        logid, path = frame.get("logid"), frame.get("path")
        offset = _integer(frame.get("offset", 0), "offset")
        if (logid is None) == (path is None):
            raise BadRequest("Invalid method argument: followLog wants either logid or path")
        if logid is not None:
            _integer(logid, "logid")
        elif not isinstance(path, str):
            raise BadRequest("Invalid method argument 'path': a text is wanted")
        follower = Follower(
            self._data,
            self._bus,
            self,
            sub,
            offset,
            lambda: self._forget(sub),
        )
        # The name is taken from now on: another command may come while the log is looked up.
        self._streams[sub] = follower
        try:
            follower.found = await target(self._data, logid, path, self.identity)
        except BaseException:
            self._streams.pop(sub, None)
            raise
        return {"logid": follower.found.logid}

    def _begin(self, follower: Follower) -> None:
        assert follower.found is not None  # noqa: S101  followLog has looked it up
        follower.follow(follower.found).addErrback(self._broken, follower.sub)

    def _broken(self, failure: Failure, sub: int | str) -> None:
        stream = self._streams.pop(sub, None)
        if stream is not None:
            stream.stop()
        error = failure.value
        if not isinstance(error, BuildAPIError):
            _log.failure("a stream broke", failure)
        sentence = error.sentence if isinstance(error, BuildAPIError) else "an internal error"
        self.send({"sub": sub, "error": sentence, "code": getattr(error, "status", 500)})

    async def _unsubscribe(self, frame: dict[str, Any]) -> dict[str, Any]:
        sub = frame.get("sub", _MISSING)
        stream = self._streams.pop(sub, None) if isinstance(sub, (int, str)) else None
        if stream is None:
            raise BadRequest("sub: there is no such stream on this socket")
        stream.stop()
        return {}


def _parsed(payload: bytes) -> dict[str, Any]:
    try:
        frame = orjson.loads(payload)
    except orjson.JSONDecodeError:
        raise BadRequest("the frame is no JSON text") from None
    if not isinstance(frame, dict):
        raise BadRequest("the frame is no JSON object")
    if frame.get("_id") is None and "type" not in frame:
        raise BadRequest("no '_id' or 'type' in websocket frame")
    return frame


def _path(frame: dict[str, Any]) -> str:
    if "path" not in frame:
        raise BadRequest("Invalid method argument: 'path' is missing")
    path = frame["path"]
    if not isinstance(path, str):
        raise BadRequest(f"invalid path format '{path}'")
    return path


def _integer(value: Any, name: str) -> int:
    if isinstance(value, bool) or not isinstance(value, int):
        raise BadRequest(f"Invalid method argument '{name}': an integer is wanted")
    return value
