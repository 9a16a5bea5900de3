"""
A long body on its way: piece by piece, no quicker than the client reads.

The pieces are read, and compressed, in the pool; here is no more than one of them, and what the
transport has not sent yet.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IPushProducer
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from buildapi.errors import BuildAPIError

_log = Logger()

InPool = Callable[[Callable[[], bytes | None]], Deferred[bytes | None]]


@implementer(IPushProducer)
class Sending:
    """
    One body.

    pieces: read one after the other in the pool, by in_pool.  close: called when no piece will be
    read any more: all were sent, or the client has gone.
    """

    def __init__(
        self,
        request: Any,
        pieces: Iterator[bytes],
        in_pool: InPool,
        close: Callable[[], object],
    ) -> None:
        self._request = request
        self._pieces = pieces
        self._in_pool = in_pool
        self._close = close
        self._gone = False
        self._wanted: Deferred[None] | None = None

    def begin(self) -> None:
        """Send it all, and end the request."""
        self._request.notifyFinish().addErrback(lambda _: self.stopProducing())
        self._request.registerProducer(self, True)
        sent = Deferred.fromCoroutine(self._sent())
        sent.addErrback(self._broken).addBoth(lambda _: self._close())

    async def _sent(self) -> None:
        while (piece := await self._in_pool(lambda: next(self._pieces, None))) is not None:
            if self._wanted is not None:
                await self._wanted
            if self._gone:
                return
            self._request.write(piece)
        if not self._gone:
            self._request.unregisterProducer()
            self._request.finish()

    def _broken(self, failure: Failure) -> None:
        if not failure.check(BuildAPIError):
            _log.failure("an answer broke", failure)
        if not self._gone:
            self._gone = True
            # Half an answer must not look like a whole one: break the connection.
            self._request.unregisterProducer()
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
        self.resumeProducing()
