"""
Downloads: streamed, one short read at a time.

No snapshot is held for the length of a download. While the client takes one piece the next is read,
and no more than these two are in memory; a client that is slow, or gone, stops the reading.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any, TypeVar

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IPushProducer
from twisted.logger import Logger
from twisted.python.failure import Failure
from twisted.web.http_headers import Headers
from zope.interface import implementer

from buildapi.db.connect import Reader
from buildapi.db.engine import LOGS, Database
from buildapi.errors import BuildAPIError

T = TypeVar("T")

_log = Logger()


class Body(ABC):
    """
    What is downloaded; it is made where it is read, off the reactor thread.

    ended: whether the last piece has been made.  length: how many bytes it has, if that is known.
    """

    ended = False
    length: int | None = None

    @abstractmethod
    def find(self, reader: Reader) -> None:
        """Find out what there is to send, or raise."""

    @abstractmethod
    def following(self, reader: Reader) -> bytes:
        """
        Make the next piece, which may be empty, or raise.

        A read that fails may be made again: nothing is to change before all is read.
        """

    @abstractmethod
    def describe(self, headers: Headers) -> None:
        """Add the headers that tell what it is, once it has been found."""


@implementer(IPushProducer)
class Download:
    """One download.  refuse: answers the request with an error, as long as nothing was sent."""

    def __init__(
        self,
        database: Database,
        request: Any,
        body: Body,
        refuse: Callable[[Any, Failure], int],
    ) -> None:
        self._database = database
        self._request = request
        self._body = body
        self._refuse = refuse
        self._gone = False
        self._wanted: Deferred[None] | None = None
        self._reading: Deferred[Any] | None = None

    def begin(self) -> None:
        """Find the body and send it."""
        self._request.notifyFinish().addErrback(lambda _: self.stopProducing())
        Deferred.fromCoroutine(self._sent()).addErrback(self._failed)

    async def _sent(self) -> None:
        if self._request.method == b"HEAD":
            await self._read(self._body.find)
            self._body.describe(self._request.responseHeaders)
        else:
            self._request.registerProducer(self, True)
            await self._pieces()
            if self._gone:
                return
            self._request.unregisterProducer()
        self._request.finish()

    async def _pieces(self) -> None:
        body, request = self._body, self._request
        piece = await self._read(self._first)
        # Not before: until now it could have become an error.
        body.describe(request.responseHeaders)
        if body.length is not None:
            request.responseHeaders.setRawHeaders(b"content-length", [b"%d" % body.length])
        while not body.ended:
            following = self._read(body.following)
            request.write(piece)
            if self._wanted is not None:
                await self._wanted
            if self._gone:
                return
            piece = await following
        request.write(piece)

    def _first(self, reader: Reader) -> bytes:
        self._body.find(reader)
        return self._body.following(reader)

    def _read(self, work: Callable[[Reader], T]) -> Deferred[T]:
        self._reading = self._database.read(work, LOGS)
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
