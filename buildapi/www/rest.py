"""
GET and HEAD below ``/api/v2``: from a request to an answer, one function for every door.

This is the hottest path of the server: it answers small reads at once, without a Deferred.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.internet.defer import CancelledError, Deferred
from twisted.logger import Logger
from twisted.python.failure import Failure
from twisted.web.server import NOT_DONE_YET

from buildapi.data.api import DataAPI
from buildapi.data.builddata import BuildData
from buildapi.data.fetch import Ask, Fetched
from buildapi.data.gate import ANONYMOUS
from buildapi.errors import BadRequest, BuildAPIError, NoSuchPath
from buildapi.www import envelope
from buildapi.www.download import Body, Download
from buildapi.www.encoding import compressed, negotiated
from buildapi.www.rawlog import LogBody
from buildapi.www.rawvalue import ValueBody

# Above this an answer is sent in chunks, without its length.
LARGEST_WITH_LENGTH = 8 * 2**20
# Above this an answer is compressed in the pool: a megabyte takes some 10 ms.
LARGEST_COMPRESSED_HERE = 256 * 1024

_log = Logger()


class Rest:
    """Answers GET and HEAD of the data API.  seq: gives the newest published position."""

    def __init__(self, data: DataAPI, seq: Callable[[], int | None]) -> None:
        self._data = data
        self._seq = seq
        identity = data.database.identity
        self._log_name = None if identity is None or not data.logged else [identity.encode()]

    def render(self, request: Any, path: bytes, query: bytes) -> bytes | int:
        """
        Answer a request for ``path``, the part below ``/api/v2/``.

        Returns the body, or NOT_DONE_YET, as a resource's ``render`` does.
        """
        seq = self._seq()
        try:
            ask = self._data.understood(
                _text(path), query.decode("utf-8", "surrogateescape"), ANONYMOUS
            )
            if ask.match.route.kind in ("raw", "raw_inline"):
                return self._raw(request, ask, seq)
            compact = b"application/json" in (request.getHeader(b"accept") or b"")
            make = envelope.compact_rows(ask) if compact else envelope.indented_rows(ask)
            whole: Callable[[Ask, Any], bytes] = envelope.compact if compact else envelope.indented
            answer = self._data.fetch(ask, make)
            if isinstance(answer, Deferred):
                return self._later(request, answer, ask, whole, compact=compact, seq=seq)
            return self._answer(request, whole(ask, answer), answer.seq, compact=compact)
        except Exception:  # noqa: BLE001  every answer is ours, this one too
            return self._refuse(request, Failure(), seq)

    def _answer(self, request: Any, body: bytes, seq: int | None, *, compact: bool) -> int:
        headers = request.responseHeaders
        headers.setRawHeaders(b"content-type", [envelope.JSON if compact else envelope.TEXT])
        headers.addRawHeader(b"vary", b"accept, accept-encoding")
        self._position(headers, seq)
        coding = negotiated(request.getHeader(b"accept-encoding"))
        if coding is None:
            return _send(request, body)
        headers.setRawHeaders(b"content-encoding", [coding.encode()])
        if len(body) <= LARGEST_COMPRESSED_HERE:
            return _send(request, compressed(body, coding))
        working = self._data.database.read(lambda _: compressed(body, coding))
        gone = until_gone(request, working)
        working.addCallbacks(
            lambda done: None if gone() else _send(request, done),
            lambda failure: None if gone() else self._refuse(request, failure, seq),
        )
        return NOT_DONE_YET

    def _position(self, headers: Any, seq: int | None) -> None:
        if seq is not None and self._log_name is not None:
            headers.setRawHeaders(b"x-seq", [b"%d" % seq])
            headers.setRawHeaders(b"x-event-log", self._log_name)

    def _later(  # what an answer depends on
        self,
        request: Any,
        reading: Deferred[Fetched[Any]],
        ask: Ask,
        whole: Callable[[Ask, Any], bytes],
        *,
        compact: bool,
        seq: int | None,
    ) -> int:
        gone = until_gone(request, reading)

        def answered(answer: Fetched[Any]) -> None:
            if not gone():
                self._answer(request, whole(ask, answer), answer.seq, compact=compact)

        def failed(failure: Failure) -> None:
            if not gone():
                self._refuse(request, failure, seq)

        reading.addCallback(answered).addErrback(failed)
        return NOT_DONE_YET

    def _raw(self, request: Any, ask: Ask, seq: int | None) -> int:
        self._position(request.responseHeaders, seq)
        body: Body
        if ask.match.route.resource is BuildData:
            body = ValueBody(ask, logged=self._data.logged)
        else:
            body = LogBody(ask, negotiated(request.getHeader(b"accept-encoding")))
        Download(self._data.database, request, body, self._refuse).begin()
        return NOT_DONE_YET

    def refuse_method(self, request: Any) -> int:
        """Answer a request by a method that the API does not have."""
        return self._refuse(request, Failure(BadRequest("invalid HTTP method")), self._seq())

    def position(self, headers: Any) -> None:
        """Add the newest published position to the headers of an answer."""
        self._position(headers, self._seq())

    def _refuse(self, request: Any, failure: Failure, seq: int | None = None) -> int:
        status, sentence = refusal(failure)
        request.setResponseCode(status)
        headers = request.responseHeaders
        headers.setRawHeaders(b"content-type", [envelope.TEXT])
        headers.removeHeader(b"content-encoding")
        self._position(headers, seq)
        body = envelope.error(sentence)
        if request.method != b"HEAD":
            headers.setRawHeaders(b"content-length", [b"%d" % len(body)])
            request.write(body)
        request.finish()
        return NOT_DONE_YET


def _send(request: Any, body: bytes) -> int:
    """Send a whole answer, and end the request."""
    if len(body) <= LARGEST_WITH_LENGTH:
        request.responseHeaders.setRawHeaders(b"content-length", [b"%d" % len(body)])
    if request.method != b"HEAD":
        request.write(body)
    request.finish()
    return NOT_DONE_YET


def refusal(failure: Failure) -> tuple[int, str]:
    """Return the status and the sentence that an error becomes; what is not ours is only logged."""
    error = failure.value
    if isinstance(error, BuildAPIError):
        return error.status, error.sentence
    if failure.check(CancelledError):
        return 503, "the request was given up"
    _log.failure("a request failed", failure)
    return 500, "an internal error; the server's log has it"


def until_gone(request: Any, working: Deferred[Any]) -> Callable[[], bool]:
    """Cancel ``working`` when the client goes away; return what says whether it has."""
    lost: list[bool] = []

    def went(_: object) -> None:
        lost.append(True)
        working.cancel()

    request.notifyFinish().addErrback(went)
    return lambda: bool(lost)


def _text(path: bytes) -> str:
    try:
        return path.decode("utf-8")
    except UnicodeDecodeError:
        raise NoSuchPath("Invalid path: it is no UTF-8") from None
