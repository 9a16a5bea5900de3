"""
Raw downloads of logs: streamed, one short read at a time.

No snapshot is held for the length of a download. While the client takes one piece the next is read,
and no more than these two are in memory; a client that is slow, or gone, stops the reading.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IPushProducer
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from buildapi.data.api import DataAPI
from buildapi.data.fetch import Ask
from buildapi.data.logchunks import RawLog, part
from buildapi.db.connect import Reader
from buildapi.errors import BuildAPIError, CorruptChunk
from buildapi.www.encoding import Coding, compressor, negotiated

_log = Logger()


@implementer(IPushProducer)
class RawDownload:
    """One download.  refuse: answers the request with an error, as long as nothing was sent."""

    def __init__(
        self, data: DataAPI, request: Any, ask: Ask, refuse: Callable[[Any, Failure], int]
    ) -> None:
        self._data = data
        self._request = request
        self._ask = ask
        self._refuse = refuse
        self._gone = False
        self._wanted: Deferred[None] | None = None
        self._reading: Deferred[Any] | None = None

    def begin(self) -> None:
        """Find the log and send it."""
        self._request.notifyFinish().addErrback(lambda _: self.stopProducing())
        Deferred.fromCoroutine(self._sent()).addErrback(self._failed)

    async def _sent(self) -> None:
        self._reading = self._data.raw(self._ask)
        log = await self._reading
        coding = negotiated(self._request.getHeader(b"accept-encoding"))
        if self._request.method == b"HEAD":
            self._head(log, coding)
        else:
            self._request.registerProducer(self, True)
            await self._pieces(log, coding)
            if self._gone:
                return
            self._request.unregisterProducer()
        self._request.finish()

    def _head(self, log: RawLog, coding: Coding | None) -> None:
        headers = self._request.responseHeaders
        headers.setRawHeaders(b"content-type", [log.content_type])
        headers.setRawHeaders(b"x-content-type-options", [b"nosniff"])
        headers.addRawHeader(b"vary", b"accept-encoding")
        if coding is not None:
            headers.setRawHeaders(b"content-encoding", [coding.encode()])
        if log.type == "h":
            # What a build prints must never act as a page of ours.
            headers.setRawHeaders(b"content-security-policy", [b"sandbox"])
        if self._ask.match.route.kind == "raw":
            disposition = f"attachment; filename={log.filename}".encode()
            headers.setRawHeaders(b"content-disposition", [disposition])

    async def _pieces(self, log: RawLog, coding: Coding | None) -> None:
        pieces = Pieces(log, coding)
        piece = await self._read(pieces)
        # Not before: until now it could have become an error.
        self._head(log, coding)
        while not pieces.ended:
            following = self._read(pieces)
            self._request.write(piece)
            if self._wanted is not None:
                await self._wanted
            if self._gone:
                return
            piece = await following
        self._request.write(piece)

    def _read(self, pieces: Pieces) -> Deferred[bytes]:
        self._reading = self._data.database.read(pieces.following)
        return self._reading

    def _failed(self, failure: Failure) -> None:
        if self._gone:
            return
        self._gone = True
        self._request.unregisterProducer()
        if not self._request.startedWriting:
            self._refuse(self._request, failure)
            return
        if not failure.check(BuildAPIError):
            _log.failure("a download broke", failure)
        # Half a log must not look like a whole one: break the connection.
        self._request.channel.transport.abortConnection()

    def pauseProducing(self) -> None:
        """Wait with the next piece: the client is slow."""
        if self._wanted is None:
            self._wanted = Deferred()

    def resumeProducing(self) -> None:
        """Go on."""
        wanted, self._wanted = self._wanted, None
        if wanted is not None:
            wanted.callback(None)

    def stopProducing(self) -> None:
        """Give up: the client has gone."""
        self._gone = True
        if self._reading is not None:
            self._reading.cancel()
            # Nobody may be waiting for it any more.
            self._reading.addErrback(lambda _: None)
        self.resumeProducing()


class Pieces:
    """
    The bytes of a download, made piece by piece where the log is read: off the reactor thread.

    ended: whether the last piece has been made.
    """

    def __init__(self, log: RawLog, coding: Coding | None) -> None:
        self.ended = False
        self._log = log
        self._next = 0
        self._compressor = None if coding is None else compressor(coding)

    def following(self, reader: Reader) -> bytes:
        """Make the next piece; a compressed one may be empty."""
        log = self._log
        found = part(reader, log.logid, self._next, log.num_lines)
        # House-keeping empties old logs, and leaves the number of their lines.
        if found.missing and found.next > 0:
            raise CorruptChunk(f"lines of log {log.logid} are missing")
        text = log.shown(found.text)
        if self._next == 0 and text:
            text = log.heading + text
        # From here on nothing fails: a read that does may be made again, from the same line.
        self._next = found.next
        self.ended = found.missing > 0 or found.next >= log.num_lines
        if self._compressor is None:
            return text
        piece = self._compressor.feed(text)
        return piece + self._compressor.finish() if self.ended else piece
