"""Connections without a network."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

from twisted.internet.address import IPv4Address
from twisted.internet.defer import Deferred
from twisted.internet.error import ConnectionDone, ConnectionLost
from twisted.internet.interfaces import IPushProducer, ITransport
from twisted.python.failure import Failure
from zope.interface import implementer

from buildapi.service import BuildAPI


class Connection(Protocol):
    """What a client needs of a connection to a server, in memory or not."""

    closed: bool

    def send(self, data: bytes) -> None:
        """Give bytes to the server."""

    def take(self) -> bytes:
        """Return what the server has sent since the last time."""

    def arrival(self) -> Deferred[None]:
        """Fire when there is more to take, or nothing ever will be."""


@implementer(ITransport, IPushProducer)
class Wire:
    """
    A connection to a server's web, in memory; the test is the other end of it.

    ``protocol`` gets what is sent; a WebSocket takes the place of HTTP there.  ``slow``: nothing is
    taken from the wire, and the server is told so as soon as more than FULL bytes are on it.
    ``cut``: the server did not close it, but cut it.
    """

    FULL = 65_536

    def __init__(self, api: BuildAPI) -> None:
        assert api.web is not None  # noqa: S101  the service works
        self.slow = False
        self.closed = False
        self.cut = False
        self._later = api.reactor.callLater
        self._written = bytearray()
        self._producer: Any = None
        self._paused = False
        self._arrival: Deferred[None] | None = None
        site: Any = api.web.site
        self.protocol = site.buildProtocol(self.getPeer())
        self.protocol.makeConnection(self)

    @property
    def disconnecting(self) -> bool:
        """Return whether nothing more will be sent."""
        return self.closed

    @property
    def waiting(self) -> int:
        """Return how many bytes the server has written that nobody has taken."""
        return len(self._written)

    def send(self, data: bytes) -> None:
        """Give bytes to the server."""
        if not self.closed:
            self.protocol.dataReceived(data)

    def take(self) -> bytes:
        """Return what the server has sent since the last time; nothing while ``slow``."""
        return b"" if self.slow else self.sip()

    def sip(self) -> bytes:
        """Return what the server has sent since the last time, and be as slow as before."""
        taken = bytes(self._written)
        self._written.clear()
        if self._paused:
            self._paused = False
            self._producer.resumeProducing()
        return taken

    def arrival(self) -> Deferred[None]:
        """Fire when there is more to take; for servers that use Twisted's reactor."""
        self._arrival = Deferred()
        if self._written or self.closed:
            self._news()
        return self._arrival or Deferred()

    def hang_up(self) -> None:
        """Go away without a word."""
        self._lost(ConnectionLost())

    # What the server sees of it.

    def write(self, data: bytes) -> None:
        """Take bytes from the server."""
        if self.closed:
            return
        self._written += data
        self._news()
        if self.slow and len(self._written) > self.FULL and self._producer and not self._paused:
            self._paused = True
            self._producer.pauseProducing()

    def writeSequence(self, data: Any) -> None:
        """Take bytes from the server."""
        self.write(b"".join(data))

    def registerProducer(self, producer: Any, streaming: bool) -> None:  # noqa: ARG002  ITransport's
        """Tell ``producer`` when the wire is full, and when it isn't."""
        assert self._producer is None, "there is a producer already"  # noqa: S101  as Twisted does
        self._producer = producer

    def unregisterProducer(self) -> None:
        """Tell nobody."""
        self._producer, self._paused = None, False

    def loseConnection(self) -> None:
        """Close the wire; what is on it can still be taken."""
        self._lost(ConnectionDone())

    def abortConnection(self) -> None:
        """Cut the wire: what is on it is lost."""
        self.cut = True
        self._written.clear()
        self._lost(ConnectionLost())

    def pauseProducing(self) -> None:
        """Do not read: nobody sends unasked here."""

    def resumeProducing(self) -> None:
        """Read on."""

    def stopProducing(self) -> None:
        """Read no more."""

    def getPeer(self) -> IPv4Address:
        """Return the test's address."""
        return IPv4Address("TCP", "127.0.0.1", 31337)

    def getHost(self) -> IPv4Address:
        """Return the server's address."""
        return IPv4Address("TCP", "127.0.0.1", 8010)

    def _lost(self, reason: Exception) -> None:
        if not self.closed:
            self.closed = True
            self.unregisterProducer()
            self.protocol.connectionLost(Failure(reason))
            self._news()

    def _news(self) -> None:
        arrival, self._arrival = self._arrival, None
        if arrival is not None:
            # Not at once: the server is in the middle of something.
            self._later(0, arrival.callback, None)


def head(line: str, headers: Mapping[str, str]) -> bytes:
    """Return the beginning of a request: its first line and its headers."""
    lines = [line, *(f"{name}: {value}" for name, value in headers.items()), "", ""]
    # What is no text may stand in a request as it may in a file name of Python's.
    return "\r\n".join(lines).encode("utf-8", "surrogateescape")
