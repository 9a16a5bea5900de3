"""
The WebSocket ``/ws``: commands, their replies, and what streams from them.

Frames are text frames with one JSON object. A command has a ``cmd`` and an ``_id``; its reply
repeats the ``_id``:

    {"cmd": "ping", "_id": 1}                                 {"msg": "pong", "code": 200, "_id": 1}
    {"cmd": "startConsuming", "path": "builds/*/new", "_id": 2}
    {"cmd": "stopConsuming", "path": "builds/*/new", "_id": 3}
    {"cmd": "hello", "_id": 9}                                who we are, and what the log has
    {"cmd": "subscribe", "topic": "build.#", "_id": 7}        events by position: see ``pump``
    {"cmd": "followLog", "logid": 60, "offset": 0, "_id": 4}  see ``follow``
    {"cmd": "follow", "path": "builds/10", "_id": 6}          see ``treestream``
    {"cmd": "watch", "path": "builds?limit=9", "_id": 8}      a query's rows: see ``watch``
    {"cmd": "unsubscribe", "sub": 4, "_id": 5}                nothing more of it follows

    {"error": "no such command type 'x'", "code": 404, "_id": 6}

Events of ``startConsuming`` come as ``{"k": "builds/3/new", "m": {…}}``. Its path is a slash key,
where ``*`` stands for one element, or a dotted pattern (a dot and no slash), whose events have the
topic as ``k``.

What a client does not read waits in a bounded buffer. When that is full the socket is closed with
code 4008: no event is dropped in silence. Followers of logs wait instead, they hold no buffer.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import asdict
from importlib.metadata import version
from typing import Any, NamedTuple, Protocol, TypeGuard

import orjson
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure

from buildapi.data.api import DataAPI
from buildapi.data.gate import ANONYMOUS, Identity
from buildapi.data.watches import Watches
from buildapi.docs.live import COMMANDS
from buildapi.errors import BadRequest, BuildAPIError, Conflict, NotFound
from buildapi.mq.buffer import Slow
from buildapi.mq.bus import Bus
from buildapi.mq.event import Event
from buildapi.mq.listener import Listener
from buildapi.mq.topic import is_dotted
from buildapi.settings import Limits
from buildapi.www.hub import Hubs
from buildapi.www.logstream import LogStream, integer
from buildapi.www.pump import Out, Pump, Sub
from buildapi.www.telling import Telling
from buildapi.www.treestream import TreeStream
from buildapi.www.watch import WatchStream

MOST_TOPICS = 100
VERSION = version("buildapi")

_log = Logger()


class NoSuchCommand(NotFound):
    """The frame's ``cmd`` is none of ours."""


class Streaming(Protocol):
    """
    Something that goes on after its command: a stream of events, a follower.

    sub: the client's name for it.  kind: what it is, for operators.
    """

    sub: Sub
    kind: str

    def stop(self) -> None:
        """Send nothing more."""


class Reply(NamedTuple):
    """What a reply has besides msg, code and _id; what is to be done once it is sent."""

    members: dict[str, Any]
    then: Callable[[], None] = lambda: None


class Client:
    """
    The conversation with one client.

    out: the way to the client.  too_slow: closes the connection, with the reason.
    """

    def __init__(
        self,
        data: DataAPI,
        bus: Bus,
        out: Out,
        clock: IReactorTime,
        limits: Limits,
        too_slow: Callable[[str], None],
        hubs: Hubs,
        watches: Watches,
    ) -> None:
        self._data = data
        self._bus = bus
        self._out = out
        self._clock = clock
        self._limits = limits
        self._too_slow = too_slow
        self._hubs = hubs
        self._watches = watches
        self.identity: Identity = ANONYMOUS
        self._consumers: dict[str, Listener] = {}
        self._telling = Telling(bus, self._tell, limits.subscription_messages)
        self._streams: dict[Sub, Streaming] = {}
        self._closed = False
        self._handlers: dict[str, Callable[[dict[str, Any]], Awaitable[Reply]]] = {
            "ping": self._ping,
            "hello": self._hello,
            "subscribe": self._subscribe,
            "startConsuming": self._start_consuming,
            "stopConsuming": self._stop_consuming,
            "followLog": self._follow_log,
            "follow": self._follow,
            "watch": self._watch,
            "unsubscribe": self._unsubscribe,
        }

    @property
    def flowing(self) -> Counter[str]:
        """What flows to the client, by kind, and how many of each."""
        kinds = Counter(stream.kind for stream in self._streams.values())
        kinds["consumer"] = len(self._consumers)
        return kinds

    @property
    def paths(self) -> list[str]:
        """What is consumed without a position."""
        return list(self._consumers)

    @property
    def streams(self) -> list[Streaming]:
        """What goes on."""
        return list(self._streams.values())

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
        self._telling.forget()
        self._streams.clear()

    def send(self, frame: dict[str, Any]) -> None:
        """Send a frame."""
        self.send_bytes(orjson.dumps(frame))

    def send_bytes(self, frame: bytes) -> None:
        """Send a frame that is JSON already."""
        if not self._closed:
            self._out.send(frame)

    def keeps_up(self) -> bool:
        """Say whether what is sent now leaves at once."""
        return not self._out.paused

    def room(self) -> Deferred[None]:
        """Fire when the client keeps up, or has gone."""
        return self._out.writable()

    def turn(self) -> AbstractAsyncContextManager[None]:
        """Let one stream after the other read a part and send it."""
        return self._out.turn()

    def _tell(self, key: str, event: Event) -> None:
        if self._data.gate.sees(self.identity, event):
            # The body was serialised once, for all subscribers.
            self._out.send(b'{"k":%b,"m":%b}' % (orjson.dumps(key), event.body))

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
            if name not in ("cmd", "_id", "type", *COMMANDS[word].names):
                raise BadRequest(f"Invalid method argument '{name}'")
        return self._handlers[word]

    async def _ping(self, frame: dict[str, Any]) -> Reply:  # noqa: ARG002  one signature for all
        return Reply({"msg": "pong"})

    async def _hello(self, frame: dict[str, Any]) -> Reply:  # noqa: ARG002  one signature for all
        extent = await self._bus.history.extent() if self._bus.history is not None else None
        return Reply(
            {
                "server": "buildapi",
                "version": VERSION,
                "log": extent and extent.log,
                "seq": extent and extent.newest,
                "oldest": extent and extent.oldest,
                "limits": asdict(self._limits),
            }
        )

    async def _subscribe(self, frame: dict[str, Any]) -> Reply:
        sub = self._free_name(frame)
        if self._bus.history is None:
            raise Conflict(
                "there is no event log here to subscribe to: another program writes the database, "
                "or it is one of Buildbot's that was opened for reading only; startConsuming works"
            )
        since = frame.get("since")
        if since is not None and integer(frame, "since") < 0:
            raise BadRequest("Invalid method argument 'since': positions begin with 0")

        def broken(failure: Failure) -> None:
            self._broken(failure, sub)
            self._forget(pump)

        stream = self._bus.subscribe(
            _topics(frame),
            since,
            log=_optional_text(frame, "log"),
            slow=_slow(frame),
            room=self._out.room,
            sees=lambda event: self._data.gate.sees(self.identity, event),
        )
        pump = Pump(
            sub,
            stream,
            self._out,
            self._clock,
            self._limits.bookmark_s,
            self._too_slow,
            broken,
        )
        # The name is taken from now on: another command may come while the log is looked at.
        self._streams[sub] = pump
        try:
            await stream.begin()
        except BaseException:
            pump.stop()
            self._forget(pump)
            raise
        return Reply({"seq": stream.position}, pump.start)

    def _free_name(self, frame: dict[str, Any]) -> Sub:
        """Return the name of a new stream; Conflict if it is none, taken, or one too many."""
        sub = frame.get("_id")
        if not _is_sub(sub):
            raise Conflict("this _id can't be the name of a stream: take a text or an integer")
        if sub in self._streams:
            raise Conflict(f"_id {sub} is the name of a stream already; choose another")
        self._check_room()
        return sub

    async def _start_consuming(self, frame: dict[str, Any]) -> Reply:
        path = _path(frame)
        if path not in self._consumers:
            self._check_room()
            if is_dotted(path):
                self._consumers[path] = self._bus.listen(
                    path, lambda event: self._telling.hear(event.topic, event)
                )
            else:
                self._consumers[path] = self._bus.listen_keys(path, self._telling.hear)
        return Reply({})

    async def _stop_consuming(self, frame: dict[str, Any]) -> Reply:
        path = _path(frame)
        listener = self._consumers.pop(path, None)
        if listener is None:
            raise BadRequest(f"path was not consumed '{path}'")
        listener.close()
        # Nothing more of it comes after the reply.
        self._telling.now()
        return Reply({})

    async def _follow_log(self, frame: dict[str, Any]) -> Reply:
        sub = self._free_name(frame)
        return await self._followed(LogStream(self._hubs, self.identity, self, sub, frame))

    async def _follow(self, frame: dict[str, Any]) -> Reply:
        sub = self._free_name(frame)
        return await self._followed(TreeStream(self._hubs, self.identity, self, sub, frame))

    async def _watch(self, frame: dict[str, Any]) -> Reply:
        sub, path = self._free_name(frame), _path(frame)
        if self.flowing[WatchStream.kind] >= self._limits.watches:
            raise Conflict(f"a socket can have {self._limits.watches} watches, not more")
        slow = _slow(frame)
        return await self._followed(
            WatchStream(self._watches, self.identity, self, sub, path, slow)
        )

    async def _followed(self, stream: LogStream | TreeStream | WatchStream) -> Reply:
        # The name is taken from now on: another command may come while it is looked up.
        self._streams[stream.sub] = stream
        try:
            members = await stream.found()
        except BaseException:
            stream.stop()
            self._forget(stream)
            raise
        return Reply(members, lambda: self._begin(stream))

    def _begin(self, stream: LogStream | TreeStream | WatchStream) -> None:
        streaming = stream.begin()
        streaming.addErrback(self._broken, stream.sub)
        streaming.addCallback(lambda _: self._forget(stream))

    def _broken(self, failure: Failure, sub: Sub) -> None:
        code, sentence = 500, "an internal error; the server's log has it"
        if isinstance(failure.value, BuildAPIError):
            code, sentence = failure.value.status, failure.value.sentence
        else:
            _log.failure("a stream broke", failure)
        self.send({"sub": sub, "error": sentence, "code": code})

    def _forget(self, stream: Streaming) -> None:
        """Free the name of a stream, unless another one has it by now."""
        if self._streams.get(stream.sub) is stream:
            del self._streams[stream.sub]

    async def _unsubscribe(self, frame: dict[str, Any]) -> Reply:
        sub = frame.get("sub")
        if not _is_sub(sub):
            raise BadRequest("Invalid method argument 'sub': a stream has a text or an integer")
        stream = self._streams.pop(sub, None)
        if stream is None:
            raise BadRequest("Invalid method argument 'sub': there is no such stream here")
        stream.stop()
        return Reply({})

    def _check_room(self) -> None:
        most = self._limits.subscriptions
        if len(self._consumers) + len(self._streams) >= most:
            raise Conflict(f"a socket can have {most} subscriptions, not more")


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


def _topics(frame: dict[str, Any]) -> list[str]:
    one, several = frame.get("topic"), frame.get("topics")
    if (one is None) == (several is None):
        raise BadRequest("Invalid method argument 'topic': subscribe wants it, or topics")
    found = [one] if several is None else several
    if not isinstance(found, list) or not all(isinstance(text, str) for text in found):
        raise BadRequest("Invalid method argument 'topics': a list of texts is wanted")
    if not 0 < len(found) <= MOST_TOPICS:
        raise BadRequest(f"Invalid method argument 'topics': 1 to {MOST_TOPICS} are wanted")
    return found


def _optional_text(frame: dict[str, Any], name: str) -> str | None:
    value = frame.get(name)
    if value is not None and not isinstance(value, str):
        raise BadRequest(f"Invalid method argument '{name}': a text is wanted")
    return value


def _slow(frame: dict[str, Any]) -> Slow:
    try:
        return Slow(frame.get("slow", "resume"))
    except ValueError:
        known = ", ".join(one.value for one in Slow)
        raise BadRequest(f"Invalid method argument 'slow': it is one of {known}") from None


def _is_sub(value: Any) -> TypeGuard[Sub]:
    return isinstance(value, int | str) and not isinstance(value, bool)
