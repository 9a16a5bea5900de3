"""
Server-sent events as Buildbot has them: ``/sse/listen``, ``/sse/add``, ``/sse/remove``.

    GET /sse/listen/builds/*/new      event: handshake
    (or /sse/builds/*/new)            data: 6a8d4d9e-6c0e-4a5e-9d5c-3f9f0d1c2b7a

                                      event: event
                                      data: {"key":["builds","3","new"],"message":{…}}

    /sse/add/<uuid>/<path>            ok        of the stream with this handshake: one more path
    /sse/remove/<uuid>/<path>         ok        and one less

A path is a slash key, ``*`` stands for one element. Without one the stream begins silent. An event
comes once for each path of the stream that matches it. A trailing slash and query arguments are
ignored, the method is too. There are no positions here; ``GET /api/v2/events`` has them.
"""

from __future__ import annotations

from functools import partial
from typing import Any
from urllib.parse import unquote
from uuid import uuid4

import orjson
from twisted.web.resource import Resource
from twisted.web.server import NOT_DONE_YET

from buildapi.data.api import DataAPI
from buildapi.data.gate import ANONYMOUS, Identity
from buildapi.errors import BadRequest, BuildAPIError, Conflict, NotFound
from buildapi.mq.bus import Bus
from buildapi.mq.event import Event
from buildapi.mq.listener import Listener
from buildapi.mq.topic import split_key
from buildapi.settings import Limits
from buildapi.www import envelope
from buildapi.www.eventstream import EventStream, EventStreams
from buildapi.www.telling import Telling

_BLOCK = b'event: event\ndata: {"key":%b,"message":%b}\n\n'
_COMMANDS = ("listen", "add", "remove")


class Ears:
    """The paths of one stream."""

    def __init__(self, data: DataAPI, bus: Bus, identity: Identity, limits: Limits) -> None:
        self.stream: EventStream | None = None
        self._data = data
        self._bus = bus
        self._identity = identity
        self._most = limits.subscriptions
        self._telling = Telling(bus, self._tell, limits.subscription_messages)
        self._listeners: dict[str, Listener] = {}

    @property
    def paths(self) -> list[str]:
        """What is listened to."""
        return list(self._listeners)

    def add(self, path: str) -> None:
        """Listen to a path too; to one that is there already, once as before."""
        if path in self._listeners:
            return
        if len(self._listeners) >= self._most:
            raise Conflict(f"a stream can have {self._most} paths, not more")
        self._listeners[path] = self._bus.listen_keys(path, self._telling.hear)

    def remove(self, path: str) -> None:
        """Listen to a path no more."""
        listener = self._listeners.pop(path, None)
        if listener is None:
            raise NotFound("consumer is not listening to this event")
        listener.close()
        self._telling.now()

    def close(self) -> None:
        """Listen to nothing."""
        for listener in self._listeners.values():
            listener.close()
        self._listeners.clear()
        self._telling.forget()

    def _tell(self, key: str, event: Event) -> None:
        if self.stream is not None and self._data.gate.sees(self._identity, event):
            # The body was serialised once, for all subscribers.  In one go: pieces leave holes in
            # the heap, which took as much memory as all that waits for a client.
            names = orjson.dumps(split_key(key))
            self.stream.send(_BLOCK % (names, event.body))


class Listen(Resource):
    """
    Everything below ``/sse``.

    ``ears``: what is listened to, by the UUID of the handshake.
    """

    isLeaf = True

    def __init__(self, data: DataAPI, bus: Bus, streams: EventStreams, limits: Limits) -> None:
        super().__init__()  # type: ignore[no-untyped-call]  # only partly annotated
        self.ears: dict[str, Ears] = {}
        self._data = data
        self._bus = bus
        self._streams = streams
        self._limits = limits

    def render(self, request: Any) -> Any:
        """Answer a request."""
        words = [unquote(word.decode("utf-8", "replace")) for word in request.path.split(b"/")[2:]]
        if words and not words[-1]:
            words.pop()
        command = words.pop(0) if words and words[0] in _COMMANDS else "listen"
        try:
            if command == "listen":
                return self._listen(request, "/".join(words))
            self._change(command, words)
        except BuildAPIError as error:
            return _plain(request, error.status, error.sentence)
        return _plain(request, 200, "ok")

    def _listen(self, request: Any, path: str) -> int:
        uuid = str(uuid4())
        ears = Ears(self._data, self._bus, ANONYMOUS, self._limits)
        ears.stream = self._streams.begin(request, partial(self._over, uuid, ears))
        self.ears[uuid] = ears
        ears.stream.send(b"event: handshake\ndata: %b\n\n" % uuid.encode())
        if path:
            ears.add(path)
        if request.method == b"HEAD":
            ears.stream.close()
        return NOT_DONE_YET

    def _over(self, uuid: str, ears: Ears, _: EventStream) -> None:
        ears.close()
        self.ears.pop(uuid, None)

    def _change(self, command: str, words: list[str]) -> None:
        if not words:
            raise BadRequest("need uuid")
        uuid, *elements = words
        if uuid not in self.ears:
            raise BadRequest("unknown uuid")
        ears, path = self.ears[uuid], "/".join(elements)
        if command == "add":
            ears.add(path)
        else:
            ears.remove(path)


def _plain(request: Any, status: int, text: str) -> bytes:
    request.setResponseCode(status)
    request.setHeader(b"content-type", envelope.TEXT)
    return text.encode()
