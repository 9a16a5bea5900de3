"""POST below ``/api/v2``: JSON-RPC calls, carried out by the one ``Control``."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.internet.defer import Deferred
from twisted.logger import Logger
from twisted.web.server import NOT_DONE_YET

from buildapi.data.control import Control
from buildapi.data.gate import ANONYMOUS
from buildapi.errors import BuildAPIError, NoSuchPath
from buildapi.www import jsonrpc

_log = Logger()


class Actions:
    """
    Answers control calls.

    position: adds the position of the event log that an answer includes to its headers.
    """

    def __init__(self, control: Control, position: Callable[[Any], None], most_bytes: int) -> None:
        self._control = control
        self._position = position
        self._most_bytes = most_bytes

    def render(self, request: Any, path: bytes) -> int:
        """Answer a POST on ``path``, the part below ``/api/v2/``."""
        Deferred.fromCoroutine(self._answered(request, path)).addErrback(
            lambda failure: _log.failure("a call could not be answered", failure)
        )
        return NOT_DONE_YET

    async def _answered(self, request: Any, path: bytes) -> None:
        gone: list[object] = []
        request.notifyFinish().addErrback(gone.append)
        answer = await self._answer(request, path)
        if gone:
            return
        request.setResponseCode(answer.status)
        headers = request.responseHeaders
        headers.setRawHeaders(b"content-type", [jsonrpc.CONTENT_TYPE])
        headers.setRawHeaders(b"content-length", [b"%d" % len(answer.body)])
        self._position(headers)
        request.write(answer.body)
        request.finish()

    async def _answer(self, request: Any, path: bytes) -> jsonrpc.Answer:
        body = request.content.read(self._most_bytes + 1)
        if len(body) > self._most_bytes:
            return jsonrpc.refused(f"the body is longer than {self._most_bytes} bytes; send less")
        call = jsonrpc.parse(body, _header(request, b"content-type"))
        if isinstance(call, jsonrpc.Answer):
            return call
        try:
            result = await self._control.call(
                _text(path),
                call.method,
                call.params,
                ANONYMOUS,
                key=_header(request, b"idempotency-key"),
            )
        except BuildAPIError as error:
            return jsonrpc.refusal(error, call)
        except Exception as error:  # noqa: BLE001  every answer is ours, this one too
            _log.failure("a call failed")
            return jsonrpc.refusal(error, call)
        return jsonrpc.answer(call, result)


def _header(request: Any, name: bytes) -> str | None:
    value = request.getHeader(name)
    # Not as UTF-8, which not every value is.
    return None if value is None else value.decode("latin-1")


def _text(path: bytes) -> str:
    try:
        return path.decode("utf-8")
    except UnicodeDecodeError:
        raise NoSuchPath("Invalid path: it is no UTF-8") from None
