"""
WebSocket connections: the handshake, the frames, the way out.

autobahn is wrapped here, and only here; what clients say to us is ``ws``'s matter.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from autobahn.twisted.resource import WebSocketResource
from autobahn.twisted.websocket import WebSocketServerFactory, WebSocketServerProtocol
from autobahn.websocket.protocol import WebSocketProtocol
from autobahn.websocket.types import ConnectionDeny
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.web.resource import IResource

from buildapi.data.api import DataAPI
from buildapi.data.watches import Watches
from buildapi.errors import BuildAPIError
from buildapi.mq.bus import Bus
from buildapi.mq.event import Event
from buildapi.settings import Settings
from buildapi.www import deflate, straight
from buildapi.www.admission import Admission
from buildapi.www.cors import Cors, own_origin
from buildapi.www.hub import Hubs
from buildapi.www.outbox import Outbox, room_of
from buildapi.www.pump import MOST_FRAMES, Sub, event_frame
from buildapi.www.ws import Client

TOO_SLOW = 4008
GOING_AWAY = 1001

# A client that doesn't answer our closing by then is cut off.
CLOSE_WITHIN_S = 5

# A frame that is kept for the next socket is no longer than that.
MOST_KEPT = 2**18


class Socket(WebSocketServerProtocol):
    """One connection: adapts autobahn to a ``Client``."""

    factory: Any
    transport: Any
    client: Client | None = None
    # The window of compression in bits, if the client has agreed to it.
    bits: int | None = None
    # What a ping had that came while the client did not read.
    pinged: bytes | None = None
    # Frees the place that was taken at the handshake.
    leave: Callable[[], None] | None = None

    def onConnect(self, request: Any) -> None:
        """Refuse pages of other origins: they could read what a logged-in user may see."""
        if request.origin and not self.factory.admits(request):
            settings = "server.base_url and server.allowed_origins"
            raise ConnectionDeny(403, f"this origin is not allowed; see {settings}")
        try:
            self.leave = self.factory.admission.enter(self.transport.getPeer())
        except BuildAPIError as error:
            raise ConnectionDeny(error.status, error.sentence) from None

    def onOpen(self) -> None:
        """Begin: from now on the transport tells when the client reads slowly."""
        if self._perMessageCompress is not None:
            self.bits = self._perMessageCompress.server_max_window_bits
        limits = self.factory.settings.limits
        self.outbox = Outbox(self._write, self._too_slow, room_of(limits), self._write_events)
        self.client = Client(
            self.factory.data,
            self.factory.bus,
            self.outbox,
            self.factory.clock,
            limits,
            self._too_slow,
            self.factory.hubs,
            self.factory.watches,
        )
        self.factory.open.add(self)
        # The HTTP channel that carried the handshake is still registered.
        self.transport.unregisterProducer()
        self.transport.registerProducer(self.outbox, True)

    def onMessage(self, payload: bytes, isBinary: bool) -> None:  # noqa: ARG002  answered alike
        """Pass a frame on."""
        extension: Any = self._perMessageCompress
        if extension is not None:
            # Nothing of a message serves for the next one; autobahn would keep its window.
            extension._decompressor = None  # noqa: SLF001  it has no other way
        if self.client is not None:
            self.client.received(payload)

    def onPing(self, payload: bytes) -> None:
        """Answer, but not a client that does not read: its answers would be without number."""
        if self.client is None or not self.outbox.paused:
            super().onPing(payload)
        elif self.pinged is None:
            self.outbox.writable().addCallback(self._answer_ping)
            self.pinged = payload
        else:
            # As RFC 6455 has it, the answer to the last one is enough.
            self.pinged = payload

    def _answer_ping(self, _: None) -> None:
        payload, self.pinged = self.pinged, None
        super().onPing(payload or b"")

    def onAutoPingTimeout(self) -> None:
        """
        Give up a client that has gone without a word, but not one that reads slowly.

        Our ping stands in line behind all that it has not read yet.
        """
        if self.client is not None and self.outbox.paused:
            self.autoPingPending = None
            self.autoPingTimeoutCall = None
            self._sendAutoPing()
        else:
            super().onAutoPingTimeout()

    def onClose(self, wasClean: bool, code: int | None, reason: str | None) -> None:  # noqa: ARG002  autobahn's
        """Forget everything about this client."""
        self._end()
        if self.leave is not None:
            self.leave()
        self.factory.forget(self)

    def go_away(self) -> None:
        """Close: the server stops."""
        self._end()
        # Not sendClose, which knows only the codes of applications.
        self.sendCloseFrame(GOING_AWAY, b"the server stops")

    def _end(self) -> None:
        if self.client is not None:
            self.client.close()
            self.outbox.close()

    def _write(self, payload: bytes) -> None:
        # A frame may come after our closing, or after the client's.
        if self.state == WebSocketProtocol.STATE_OPEN:
            # Not sendMessage, which holds what we send to the limit for what clients send, nor
            # sendFrame, which composes a line for the log of every frame.
            straight.write(self.transport, self.factory.framed(payload, self.bits))

    def _write_events(self, events: list[Event], sub: Sub) -> int:
        if self.state != WebSocketProtocol.STATE_OPEN:
            return 0
        # Not sendPreparedMessage, for the same reason.
        name = sub if self.bits is None else (sub, self.bits)
        frames = b"".join(
            [event.frames.get(name) or self._framed(event, sub, name) for event in events]
        )
        straight.write(self.transport, frames)
        return len(frames)

    def _framed(self, event: Event, sub: Sub, name: Sub | tuple[Sub, int]) -> bytes:
        frame: bytes = self.factory.framed(event_frame(event, sub), self.bits)
        if len(event.frames) < MOST_FRAMES:
            event.frames[name] = frame
        return frame

    def _too_slow(self, reason: str = "this client reads too slowly; connect again") -> None:
        if self.state == WebSocketProtocol.STATE_OPEN:
            self.factory.cut += 1
            # A close frame has room for 123 bytes.
            self.sendClose(TOO_SLOW, reason.encode()[:120].decode("utf-8", "ignore"))
            self._end()


class _Call:
    """A call later that can be cancelled at any time."""

    def __init__(self, delayed: IDelayedCall) -> None:
        self._delayed = delayed

    def cancel(self) -> None:
        if self._delayed.active():
            self._delayed.cancel()


class _Timer:
    """What autobahn asks to be called later."""

    def __init__(self, clock: IReactorTime) -> None:
        self._clock = clock

    def call_later(self, delay: float, function: Callable[[], object]) -> _Call:
        return _Call(self._clock.callLater(delay, function))


class Sockets(WebSocketServerFactory):
    """
    All WebSockets of a server.

    ``open``: those whose handshake is done.  ``cut``: how many clients were too slow, since the
    start.  ``closing``: None, until the server stops; fires when the last socket is closed.
    """

    protocol: Any = Socket

    def __init__(
        self,
        settings: Settings,
        data: DataAPI,
        bus: Bus,
        hubs: Hubs,
        watches: Watches,
        cors: Cors,
        reactor: Any,
    ) -> None:
        super().__init__(reactor=reactor)  # type: ignore[no-untyped-call]  # autobahn is untyped
        # autobahn's own timer asks Twisted's reactor, whatever the factory was given.
        self._batched_timer = _Timer(reactor)
        self.settings = settings
        self.data = data
        self.bus = bus
        self.hubs = hubs
        self.watches = watches
        self.admission = Admission(settings.limits)
        self.clock = reactor
        self.open: set[Socket] = set()
        self.cut = 0
        self.closing: Deferred[None] | None = None
        self._cors = cors
        # The last text with its frame: all who follow a log are told the same, one after the other.
        self._framed: tuple[bytes, int | None, bytes] = (b"", -1, b"")
        self.setProtocolOptions(  # type: ignore[no-untyped-call]
            maxMessagePayloadSize=settings.limits.frame_bytes,
            maxFramePayloadSize=settings.limits.frame_bytes,
            webStatus=False,
            # Whether "null" is an origin that may come in, onConnect decides as for all others.
            allowNullOrigin=True,
            failByDrop=False,
            closeHandshakeTimeout=CLOSE_WITHIN_S,
            # A peer that has gone without a word is noticed within two beats.
            autoPingInterval=settings.limits.heartbeat_s,
            autoPingTimeout=settings.limits.heartbeat_s,
        )
        if settings.server.deflate:
            self.setProtocolOptions(  # type: ignore[no-untyped-call]
                perMessageCompressionAccept=lambda offers: deflate.accepted(offers, settings.limits)
            )
        self.startFactory()  # type: ignore[no-untyped-call]
        self.resource: IResource = WebSocketResource(self)

    def admits(self, request: Any) -> bool:
        """Say whether a page of this origin may connect."""
        host = request.headers.get("host", "").encode()
        # Whether we are behind TLS nobody has told us; no host has different pages on both.
        own = {own_origin(self.settings.server.base_url, host, secure=s) for s in (True, False)}
        return any(self._cors.allows(request.origin.encode(), one) for one in own)

    def framed(self, payload: bytes, bits: int | None) -> bytes:
        """Return the frame of a text.  bits: the window for its compression, if it is wanted."""
        text, window, frame = self._framed
        if text != payload or window != bits:
            frame = self._frame(payload, bits)
            if len(payload) <= MOST_KEPT:
                self._framed = (payload, bits, frame)
        return frame

    def _frame(self, payload: bytes, bits: int | None) -> bytes:
        found = None if bits is None else deflate.frame(payload, bits)
        if found is None:
            found = self.prepareMessage(payload).payloadHybi
        return found

    def forget(self, socket: Socket) -> None:
        """Take note that a socket is closed."""
        self.open.discard(socket)
        if self.closing is not None and not self.open and not self.closing.called:
            self.closing.callback(None)

    def close(self) -> Deferred[None]:
        """Close every socket; fire when the last one is closed."""
        self.closing = Deferred()
        for socket in list(self.open):
            socket.go_away()
        if not self.open and not self.closing.called:
            self.closing.callback(None)
        return self.closing
