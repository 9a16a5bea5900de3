"""
The WebSocket ``/ws``: commands, their replies, and what streams from them.

Frames are text frames with one JSON object. A command has a ``cmd`` and an ``_id``; its reply repeats
the ``_id``:

    {"cmd": "ping", "_id": 1}                                    {"msg": "pong", "code": 200, "_id": 1}
    {"cmd": "startConsuming", "path": "builds/*/new", "_id": 2}  {"msg": "OK", "code": 200, "_id": 2}
    {"cmd": "stopConsuming", "path": "builds/*/new", "_id": 3}   {"msg": "OK", "code": 200, "_id": 3}
    {"cmd": "followLog", "logid": 60, "offset": 0, "_id": 4}     see ``follow``
    {"cmd": "unsubscribe", "sub": 4, "_id": 5}                   nothing more of it follows

    {"error": "no such command type 'x'", "code": 404, "_id": 6}

Events of ``startConsuming`` come as ``{"k": "builds/3/new", "m": {…}}``. Its path is a slash key, where ``*``
stands for one element, or a dotted pattern (a dot and no slash), whose events have the topic as ``k``.

What a client does not read waits in a bounded buffer. When that is full the socket is closed with
code 4008: no event is dropped in silence. Followers of logs wait instead, they hold no buffer.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Any

import orjson
from autobahn.twisted.resource import WebSocketResource
from autobahn.twisted.websocket import WebSocketServerFactory, WebSocketServerProtocol
from autobahn.websocket.protocol import WebSocketProtocol
from autobahn.websocket.types import ConnectionDeny, ConnectionRequest
from twisted.internet.defer import Deferred, succeed
from twisted.internet.interfaces import IPushProducer
from twisted.logger import Logger
from twisted.python.failure import Failure
from twisted.web.resource import IResource
from zope.interface import implementer

from buildapi.data.api import DataAPI
from buildapi.data.gate import ANONYMOUS, Identity
from buildapi.errors import BadRequest, BuildAPIError, Conflict, NotFound
from buildapi.mq.bus import Bus
from buildapi.mq.event import Event
from buildapi.mq.listener import Listener
from buildapi.mq.topic import is_dotted
from buildapi.settings import Settings
from buildapi.www.cors import Cors
from buildapi.www.follow import Follower, target

TOO_SLOW = 4008
GOING_AWAY = WebSocketProtocol.CLOSE_STATUS_CODE_GOING_AWAY

_log = Logger()
_MISSING: Any = object()


class NoSuchCommand(NotFound):
    """The frame's ``cmd`` is none of ours."""


@implementer(IPushProducer)
class Socket(WebSocketServerProtocol):  # type: ignore[misc]  # autobahn is untyped
    """One client's connection."""

    factory: Sockets

    def onConnect(self, request: ConnectionRequest) -> None:
        """Refuse pages of other origins: they could read what a logged-in user may see."""
        if request.origin and not self.factory.admits(request):
            raise ConnectionDeny(403, "this origin is not allowed")

    def onOpen(self) -> None:
        """Begin: learn from the transport when the client reads slowly."""
        self.identity: Identity = ANONYMOUS
        self._consumers: dict[str, Listener] = {}
        self._streams: dict[int | str, Follower] = {}
        self._waiting: deque[bytes] = deque()
        self._waiting_bytes = 0
        self._paused = False
        self._drained: list[Deferred[None]] = []
        self.factory.open.add(self)
        # The HTTP channel that carried the handshake is still registered.
        self.transport.unregisterProducer()
        self.transport.registerProducer(self, True)  # noqa: FBT003  the interface has no names

    def onMessage(self, payload: bytes, isBinary: bool) -> None:  # noqa: ARG002  both are answered alike
        """Carry out one command."""
        Deferred.fromCoroutine(self._answered(payload)).addErrback(
            lambda failure: _log.failure("a frame could not be answered", failure)
        )

    def onClose(self, wasClean: bool, code: int | None, reason: str | None) -> None:  # noqa: ARG002  autobahn's
        """Forget everything about this client."""
        if self not in self.factory.open:
            return  # refused at the handshake
        self.factory.open.discard(self)
        for listener in self._consumers.values():
            listener.close()
        for stream in list(self._streams.values()):
            stream.stop()
        self._waiting.clear()
        self._release()

    # Commands

    async def _answered(self, payload: bytes) -> None:
        ident: Any = None
        try:
            frame = _parsed(payload)
            ident = frame.get("_id")
            command = self._command(frame)
            if command is None:
                ident = None
                raise BadRequest("no 'cmd' in websocket frame")
            reply = await command(frame)
            self._send({"msg": "OK", "code": 200, "_id": ident, **reply})
            started = self._streams.get(ident) if "logid" in reply else None
            if started is not None:
                self._begin(started)
        except BuildAPIError as error:
            self._send({"error": error.sentence, "code": error.status, "_id": ident})
        except Exception:  # noqa: BLE001  every frame has an answer
            _log.failure("a command failed")
            sentence = "an internal error; the server's log has it"
            self._send({"error": sentence, "code": 500, "_id": ident})

    def _command(self, frame: dict[str, Any]) -> Callable[[dict[str, Any]], Any] | None:
        word = frame.get("cmd")
        if word is None:
            return None
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
            if len(self._consumers) >= self.factory.most_subscriptions:
                raise Conflict(
                    f"this socket has {len(self._consumers)} subscriptions; that is the most allowed"
                )
            bus = self.factory.bus
            if is_dotted(path):
                self._consumers[path] = bus.listen(path, lambda event: self._tell(event.topic, event))
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
            self.factory.data,
            self.factory.bus,
            self,
            sub,
            offset,
            lambda: self._streams.pop(sub, None) and None,
        )
        # The name is taken from now on: another command may come while the log is looked up.
        self._streams[sub] = follower
        try:
            follower.found = await target(self.factory.data, logid, path, self.identity)
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

    # Sending

    def _tell(self, key: str, event: Event) -> None:
        if self.factory.data.gate.sees(self.identity, event):
            # The body was serialised once, for all subscribers.
            self._offer(b'{"k":%b,"m":%b}' % (orjson.dumps(key), event.body))

    def send(self, frame: dict[str, Any]) -> None:
        """Send a frame of a stream, which has asked ``writable`` before."""
        self._send(frame)

    def writable(self) -> Deferred[None]:
        """Fire when the client has read what was sent, about."""
        if not self._paused:
            return succeed(None)
        waiter: Deferred[None] = Deferred()
        self._drained.append(waiter)
        return waiter

    def _send(self, frame: dict[str, Any]) -> None:
        self._offer(orjson.dumps(frame))

    def _offer(self, payload: bytes) -> None:
        if self.state != WebSocketProtocol.STATE_OPEN:
            return
        if not self._paused and not self._waiting:
            self.sendMessage(payload)
            return
        limits = self.factory.limits
        self._waiting.append(payload)
        self._waiting_bytes += len(payload)
        if (
            len(self._waiting) > limits.subscription_messages
            or self._waiting_bytes > limits.subscription_bytes
        ):
            self._waiting.clear()
            self._waiting_bytes = 0
            self.sendClose(TOO_SLOW, "this client reads too slowly; connect again and read on")

    # What the transport says

    def pauseProducing(self) -> None:
        """Hold back: the client does not keep up."""
        self._paused = True

    def resumeProducing(self) -> None:
        """Go on with what waited."""
        self._paused = False
        while self._waiting and not self._paused:
            payload = self._waiting.popleft()
            self._waiting_bytes -= len(payload)
            self.sendMessage(payload)
        if not self._paused:
            self._release()

    def stopProducing(self) -> None:
        """The connection is gone; ``onClose`` clears up."""

    def _release(self) -> None:
        waiting, self._drained = self._drained, []
        for waiter in waiting:
            waiter.callback(None)


class Sockets(WebSocketServerFactory):  # type: ignore[misc]  # autobahn is untyped
    """All WebSockets of a server."""

    protocol = Socket
    most_subscriptions = 1_000

    def __init__(self, settings: Settings, data: DataAPI, bus: Bus, cors: Cors) -> None:
        super().__init__()
        self.data = data
        self.bus = bus
        self.limits = settings.limits
        self.open: set[Socket] = set()
        self._cors = cors
        self.setProtocolOptions(
            maxMessagePayloadSize=settings.limits.frame_bytes,
            maxFramePayloadSize=settings.limits.frame_bytes,
            webStatus=False,
            failByDrop=False,
            closeHandshakeTimeout=5,
            # A peer that has gone without a word is noticed within a minute.
            autoPingInterval=30,
            autoPingTimeout=30,
        )
        self.startFactory()
        self.resource: IResource = WebSocketResource(self)

    def admits(self, request: ConnectionRequest) -> bool:
        """Say whether a page of this origin may connect."""
        own = f"http://{request.host_header}" if hasattr(request, "host_header") else ""
        return self._cors.allows(request.origin.encode(), own)

    def close(self) -> None:
        """Close every socket: the server stops."""
        for socket in list(self.open):
            socket.sendClose(GOING_AWAY, "the server stops")


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
