"""
WebSocket connections: the handshake, the bounded buffer, the way out.

autobahn is wrapped here, and only here; what clients say to us is ``ws``'s matter.
"""

from __future__ import annotations

from collections import deque
from typing import Any

from autobahn.twisted.resource import WebSocketResource
from autobahn.twisted.websocket import WebSocketServerFactory, WebSocketServerProtocol
from autobahn.websocket.protocol import WebSocketProtocol
from autobahn.websocket.types import ConnectionDeny
from twisted.internet.defer import Deferred, succeed
from twisted.internet.interfaces import IPushProducer
from twisted.web.resource import IResource
from zope.interface import implementer

from buildapi.data.api import DataAPI
from buildapi.mq.bus import Bus
from buildapi.settings import Limits, Settings
from buildapi.www.cors import Cors
from buildapi.www.ws import Client

TOO_SLOW = 4008
GOING_AWAY = 1001


@implementer(IPushProducer)
class Outbox:
    """
    What a client has not read yet, within limits.

    The transport says when the client is slow (it has some 64 kB in its own buffer then); what is
    sent meanwhile waits here. When that is too much the connection is closed, with the reason.
    """

    def __init__(self, socket: Any, limits: Limits) -> None:
        self._socket = socket
        self._limits = limits
        self._waiting: deque[bytes] = deque()
        self._waiting_bytes = 0
        self._paused = False
        self._drained: list[Deferred[None]] = []

    def send(self, payload: bytes) -> None:
        """Send a frame now, or as soon as the client reads on."""
        if not self._paused and not self._waiting:
            self._socket.sendMessage(payload)
            return
        self._waiting.append(payload)
        self._waiting_bytes += len(payload)
        if (
            len(self._waiting) > self._limits.subscription_messages
            or self._waiting_bytes > self._limits.subscription_bytes
        ):
            self.clear()
            self._socket.sendClose(TOO_SLOW, "this client reads too slowly; connect again")

    def writable(self) -> Deferred[None]:
        """Fire when the client keeps up."""
        if not self._paused:
            return succeed(None)
        waiter: Deferred[None] = Deferred()
        self._drained.append(waiter)
        return waiter

    def clear(self) -> None:
        """Forget what waits, and let go who waits."""
        self._waiting.clear()
        self._waiting_bytes = 0
        self._release()

    def pauseProducing(self) -> None:
        """Hold back: the client does not keep up."""
        self._paused = True

    def resumeProducing(self) -> None:
        """Go on with what waited."""
        self._paused = False
        while self._waiting and not self._paused:
            payload = self._waiting.popleft()
            self._waiting_bytes -= len(payload)
            self._socket.sendMessage(payload)
        if not self._paused:
            self._release()

    def stopProducing(self) -> None:
        """Nothing more can be sent; ``onClose`` clears up."""

    def _release(self) -> None:
        waiting, self._drained = self._drained, []
        for waiter in waiting:
            waiter.callback(None)


class Socket(WebSocketServerProtocol):
    """One connection: adapts autobahn to a ``Client``."""

    factory: Any
    transport: Any
    client: Client | None = None

    def onConnect(self, request: Any) -> None:
        """Refuse pages of other origins: they could read what a logged-in user may see."""
        if request.origin and not self.factory.admits(request):
            raise ConnectionDeny(403, "this origin is not allowed")

    def onOpen(self) -> None:
        """Begin: from now on the transport tells when the client reads slowly."""
        self.outbox = Outbox(self, self.factory.settings.limits)
        self.client = Client(self.factory.data, self.factory.bus, self._out, self.outbox.writable)
        self.factory.open.add(self)
        # The HTTP channel that carried the handshake is still registered.
        self.transport.unregisterProducer()
        self.transport.registerProducer(self.outbox, True)

    def onMessage(self, payload: bytes, isBinary: bool) -> None:  # noqa: ARG002  answered alike
        """Pass a frame on."""
        if self.client is not None:
            self.client.received(payload)

    def onClose(self, wasClean: bool, code: int | None, reason: str | None) -> None:  # noqa: ARG002  autobahn's
        """Forget everything about this client."""
        self.factory.open.discard(self)
        if self.client is not None:
            self.client.close()
            self.outbox.clear()

    def _out(self, payload: bytes) -> None:
        if self.state == WebSocketProtocol.STATE_OPEN:
            self.outbox.send(payload)


class Sockets(WebSocketServerFactory):
    """All WebSockets of a server."""

    protocol: Any = Socket

    def __init__(self, settings: Settings, data: DataAPI, bus: Bus, cors: Cors) -> None:
        super().__init__()  # type: ignore[no-untyped-call]  # autobahn is untyped
        self.settings = settings
        self.data = data
        self.bus = bus
        self.open: set[Socket] = set()
        self._cors = cors
        self.setProtocolOptions(  # type: ignore[no-untyped-call]
            maxMessagePayloadSize=settings.limits.frame_bytes,
            maxFramePayloadSize=settings.limits.frame_bytes,
            webStatus=False,
            failByDrop=False,
            closeHandshakeTimeout=5,
            # A peer that has gone without a word is noticed within a minute.
            autoPingInterval=30,
            autoPingTimeout=30,
        )
        self.startFactory()  # type: ignore[no-untyped-call]
        self.resource: IResource = WebSocketResource(self)

    def admits(self, request: Any) -> bool:
        """Say whether a page of this origin may connect."""
        own = self.settings.server.base_url or f"http://{request.headers.get('host', '')}/"
        allowed: bool = self._cors.allows(request.origin.encode(), own.rstrip("/"))
        return allowed

    def close(self) -> None:
        """Close every socket: the server stops."""
        for socket in list(self.open):
            socket.sendClose(GOING_AWAY, "the server stops")
