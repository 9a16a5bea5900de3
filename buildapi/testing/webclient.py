"""A client of REST and JSON-RPC."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from email.message import Message
from http.client import HTTPResponse
from io import BytesIO
from typing import Any, cast

from twisted.internet.defer import Deferred

from buildapi.service import BuildAPI
from buildapi.testing.memory import result_of
from buildapi.testing.wire import Wire, head


@dataclass(frozen=True)
class Answer:
    """What a server answered; ``headers`` are found by name in any case."""

    status: int
    headers: Message
    body: bytes

    def json(self) -> Any:
        """Return the body as JSON."""
        return json.loads(self.body)


def answered(received: bytes, method: str = "GET") -> Answer:
    """Return the answer to a request; http.client.HTTPException if it is not a whole one."""
    response = HTTPResponse(cast("Any", _Received(received)), method=method)
    response.begin()
    return Answer(response.status, response.headers, response.read())


class _Received:
    """Received bytes, as the standard library's socket has them."""

    def __init__(self, data: bytes) -> None:
        self._data = data

    def makefile(self, mode: str) -> BytesIO:  # noqa: ARG002  a socket's signature
        return BytesIO(self._data)


class WebClient:
    """A client of a server's REST and JSON-RPC; every request has a ``Wire`` of its own."""

    def __init__(self, api: BuildAPI) -> None:
        self._api = api

    def get(self, path: str, headers: Mapping[str, str] | None = None) -> Answer:
        """Answer a GET, of a server in memory."""
        return self.request("GET", path, headers)

    def call(self, path: str, method: str, /, **params: Any) -> Answer:
        """Answer a JSON-RPC call on ``path``, of a server in memory."""
        call = {"jsonrpc": "2.0", "id": 1, "method": method, "params": params}
        headers = {"Content-Type": "application/json"}
        return self.request("POST", path, headers, json.dumps(call).encode())

    def request(
        self, method: str, path: str, headers: Mapping[str, str] | None = None, body: bytes = b""
    ) -> Answer:
        """Answer a request, of a server in memory."""
        answer: Answer = result_of(self.fetch(method, path, headers, body))
        return answer

    def fetch(
        self, method: str, path: str, headers: Mapping[str, str] | None = None, body: bytes = b""
    ) -> Deferred[Answer]:
        """Answer a request; of a server that uses Twisted's reactor, too."""
        return Deferred.fromCoroutine(self._fetched(method, path, headers or {}, body))

    async def _fetched(
        self, method: str, path: str, headers: Mapping[str, str], body: bytes
    ) -> Answer:
        wire = Wire(self._api)
        given = {"Host": "127.0.0.1:8010", "Connection": "close", **headers}
        if body:
            given["Content-Length"] = str(len(body))
        wire.send(head(f"{method} {path} HTTP/1.1", given) + body)
        received = wire.take()
        while not wire.closed:
            await wire.arrival()
            received += wire.take()
        return answered(received + wire.take(), method)
