"""What every door of the server answers with: a whole body, or the sentence of an error."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.internet.defer import CancelledError, Deferred
from twisted.logger import Logger
from twisted.python.failure import Failure
from twisted.web.server import NOT_DONE_YET

from buildapi.errors import BuildAPIError
from buildapi.www import envelope

# Above this an answer is sent in chunks, without its length.
LARGEST_WITH_LENGTH = 8 * 2**20

_log = Logger()


def send(request: Any, body: bytes) -> int:
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


def refused_with(failure: Failure, request: Any) -> bytes:
    """Return the body that an error becomes, and give the answer its status."""
    status, sentence = refusal(failure)
    request.setResponseCode(status)
    request.setHeader(b"content-type", envelope.TEXT)
    return envelope.error(sentence)


def until_gone(request: Any, working: Deferred[Any]) -> Callable[[], bool]:
    """Cancel ``working`` when the client goes away; return what says whether it has."""
    lost: list[bool] = []

    def went(_: object) -> None:
        lost.append(True)
        working.cancel()

    request.notifyFinish().addErrback(went)
    return lambda: bool(lost)
