"""
Raw downloads of logs: streamed, one short read at a time.

No snapshot is held for the length of a download, and no more is in memory than one read; the
transport says when it wants more.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
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
from buildapi.errors import BuildAPIError, NoSuchResource

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

    def begin(self) -> None:
        """Find the log and send it."""
        self._request.notifyFinish().addErrback(lambda _: self.stopProducing())
        Deferred.fromCoroutine(self._sent()).addErrback(self._failed)

    async def _sent(self) -> None:
        log = await self._data.raw(self._ask)
        if self._gone:
            return
        if self._request.method != b"HEAD":
            self._request.registerProducer(self, True)
            await self._lines(log)
            if self._gone:
                return
            self._request.unregisterProducer()
        if not self._request.startedWriting:
            self._head(log)
        self._request.finish()

    def _head(self, log: RawLog) -> None:
        headers = self._request.responseHeaders
        headers.setRawHeaders(b"content-type", [log.content_type])
        headers.setRawHeaders(b"x-content-type-options", [b"nosniff"])
        if log.type == "h":
            # What a build prints must never act as a page of ours.
            headers.setRawHeaders(b"content-security-policy", [b"sandbox"])
        if self._ask.match.route.kind == "raw":
            disposition = f"attachment; filename={log.filename}".encode()
            headers.setRawHeaders(b"content-disposition", [disposition])

    async def _lines(self, log: RawLog) -> None:
        first = 0
        while first < log.num_lines:
            reached, text = await self._data.database.read(partial(_piece, log=log, first=first))
            if reached == first:
                _check_never_there(log, first)
                return
            if self._wanted is not None:
                await self._wanted
            if self._gone:
                return
            if first == 0:
                # Not before: until now it could have become an error.
                self._head(log)
                text = log.heading + text
            self._request.write(text)
            first = reached

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
        """Wait with the next lines: the client is slow."""
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


def _piece(reader: Reader, log: RawLog, first: int) -> tuple[int, bytes]:
    found = part(reader, log.logid, first, log.num_lines)
    return found.next, log.shown(found.text)


def _check_never_there(log: RawLog, first: int) -> None:
    """Accept that old logs are emptied by house-keeping, but not while one is being sent."""
    if first > 0:
        raise NoSuchResource(f"log {log.logid} was deleted while it was sent")
