"""
Connections and requests, below the app: what one client may cost, and who is still there.

A request line or a header longer than 16 kB is answered, not only dropped; of a body no more is
kept than the limit and one piece, so that it can be refused by whoever reads it.
"""

from __future__ import annotations

from time import monotonic, time
from typing import Any
from weakref import WeakSet

from twisted.internet.defer import Deferred, gatherResults, succeed
from twisted.internet.protocol import connectionDone
from twisted.python.failure import Failure
from twisted.web import server
from twisted.web.http import HTTPChannel, datetimeToString

from buildapi.www.tally import Tally, beginning

_TOO_LONG = b'{"error": "the request line and the headers must be shorter than 16 kB"}'
_REFUSED = (
    b"HTTP/1.1 414 URI Too Long\r\n"
    b"content-type: text/plain; charset=utf-8\r\n"
    b"content-length: %d\r\n"
    b"connection: close\r\n"
    b"\r\n%b" % (len(_TOO_LONG), _TOO_LONG)
)


class Channel(HTTPChannel):
    """One connection."""

    site: Any
    transport: Any

    def connectionMade(self) -> None:
        """Be known to the site."""
        super().connectionMade()  # type: ignore[no-untyped-call]  # only partly annotated
        self.site.channels.add(self)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """Be forgotten."""
        self.site.channels.discard(self)
        super().connectionLost(reason)  # type: ignore[no-untyped-call]

    def close(self) -> Deferred[Any]:
        """Close it after the answer that is under way; fire then.  Half a request is none."""
        if not self._handlingRequest:
            self.loseConnection()  # type: ignore[no-untyped-call]
            return succeed(None)
        self.persistent = False
        done: Deferred[Any] = self.requests[0].notifyFinish()
        return done.addErrback(lambda _: None)

    def lineLengthExceeded(self, line: bytes) -> None:  # noqa: ARG002  Twisted's signature
        """Say so, and hang up."""
        self.transport.write(_REFUSED)
        self.loseConnection()  # type: ignore[no-untyped-call]


class Request(server.Request):
    """A request that keeps no more of its body than somebody would read."""

    channel: Any
    content: Any
    # What it asks for, where a pattern of the data API has taken it; when it had come whole.
    route = ""
    began = 0.0

    def process(self) -> None:
        """Answer it."""
        self.began = monotonic()
        site = self.channel.site
        if not self.uri.startswith(site.direct):
            super().process()  # type: ignore[no-untyped-call]
            return
        # The same without the elements of the path, and the way down the tree of resources.
        self.site = site
        self.responseHeaders.setRawHeaders(b"server", [server.version])
        self.responseHeaders.setRawHeaders(b"date", [site.date()])
        try:
            self.render(site.resource)  # type: ignore[no-untyped-call]
        except Exception:  # noqa: BLE001  whatever it is, it has an answer
            self.processingFailed(Failure())  # type: ignore[no-untyped-call]

    def handleContentChunk(self, data: bytes) -> None:
        """Keep a piece of the body."""
        if self.content.tell() <= self.channel.site.most_body_bytes:
            super().handleContentChunk(data)  # type: ignore[no-untyped-call]


class Site(server.Site):
    """
    What a port serves.

    most_body_bytes: the longest body that is read.  log_requests: whether each gets a line.
    direct: how URIs begin that the root resource answers itself, by nothing but the URI.
    ``tally``: the requests that were answered.
    """

    protocol: Any = Channel
    requestFactory = Request

    def __init__(
        self,
        resource: Any,
        reactor: Any,
        *,
        most_body_bytes: int,
        log_requests: bool,
        direct: tuple[bytes, ...] = (),
    ) -> None:
        super().__init__(resource, reactor=reactor)  # type: ignore[no-untyped-call]
        self.direct = direct
        self._date = (0, b"")
        self.most_body_bytes = most_body_bytes
        # Weak: a WebSocket takes its connection over, and its channel is left without a word.
        self.channels: WeakSet[Channel] = WeakSet()
        self.tally = Tally()
        self._log_requests = log_requests

    def log(self, request: Any) -> None:
        """
        Count a request that was answered, and log it, if somebody wants that.

        A formatted line costs as much as half an answer.
        """
        route = request.route or beginning(request.path)
        self.tally.note(route, request.code, monotonic() - request.began)
        if self._log_requests:
            super().log(request)

    def date(self) -> bytes:
        """Return what the clock says now, for the header of an answer."""
        now = int(time())
        if self._date[0] != now:
            self._date = now, datetimeToString(now)
        return self._date[1]

    def close(self) -> Deferred[Any]:
        """Answer what is being answered, nothing more; fire when that is done."""
        closed: Deferred[Any] = Deferred()
        ends = gatherResults([channel.close() for channel in self._connected()])
        ends.addCallback(closed.callback)
        return closed

    def cut(self) -> None:
        """Break what is still there: half an answer must not look like a whole one."""
        for channel in self._connected():
            channel.transport.abortConnection()

    def _connected(self) -> list[Channel]:
        return [channel for channel in self.channels if channel.transport is not None]
