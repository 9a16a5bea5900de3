"""
A real browser for tests, and what programs and pages tell that run in processes of their own.

Each line of a program's output, and each body that a page posts to ``/heard``, is a JSON object
whose ``seq`` grows.
"""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import Any, Protocol

import pytest
from twisted.internet import reactor as the_reactor
from twisted.internet.defer import Deferred
from twisted.internet.protocol import ProcessProtocol
from twisted.python.failure import Failure
from twisted.web.resource import Resource
from twisted.web.server import Site

CHROMIUM = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--disable-dev-shm-usage",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]

reactor: Any = the_reactor


class Heard:
    """What a program has told: ``events``."""

    def __init__(self) -> None:
        self.events: list[Any] = []
        self._waiting: tuple[int, Deferred[None]] | None = None

    def hear(self, line: bytes) -> None:
        """Take an event."""
        self.events.append(json.loads(line))
        if self._waiting is not None and self.events[-1]["seq"] >= self._waiting[0]:
            waiting, self._waiting = self._waiting[1], None
            waiting.callback(None)

    def until(self, seq: int) -> Deferred[None]:
        """Fire when the event has been heard."""
        heard: Deferred[None] = Deferred()
        if self.events and self.events[-1]["seq"] >= seq:
            heard.callback(None)
        else:
            self._waiting = (seq, heard)
        return heard


class Program(ProcessProtocol):
    """A running program, of which each line of output is heard."""

    def __init__(self, heard: Heard) -> None:
        self.ended: Deferred[None] = Deferred()
        self._heard = heard
        self._rest = b""

    async def killed(self) -> None:
        """End it, whatever it does."""
        assert self.transport is not None
        self.transport.signalProcess("KILL")
        await self.ended

    def outReceived(self, data: bytes) -> None:
        """Take output."""
        *lines, self._rest = (self._rest + data).split(b"\n")
        for line in lines:
            self._heard.hear(line)

    def errReceived(self, data: bytes) -> None:
        """Show what it complains of, if the test fails."""
        sys.stderr.write(data.decode("utf-8", "replace"))

    def processEnded(self, reason: Failure) -> None:  # noqa: ARG002  it is always killed
        """Let go who waits."""
        self.ended.callback(None)


class Page(Resource):
    """What a browser loads."""

    def __init__(self, content: str, kind: bytes) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._content = content.encode()
        self._kind = kind

    def render_GET(self, request: Any) -> bytes:
        """Return it."""
        request.setHeader(b"content-type", self._kind)
        return self._content


class Report(Resource):
    """Where a page says what it has heard."""

    def __init__(self, heard: Heard) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._heard = heard

    def render_POST(self, request: Any) -> bytes:
        """Take an event."""
        self._heard.hear(request.content.read())
        return b""


class Browse(Protocol):
    """Opens a page in a browser, until the context is left."""

    def __call__(self, page: str, **others: Resource) -> AbstractAsyncContextManager[Heard]:
        """Return what the page tells.  others: what is below the same address, by name."""


@pytest.fixture
def browse(tmp_path: Path) -> Browse:
    """Return what opens a page in a headless Chromium."""
    path = shutil.which("chromium")
    if path is None:
        pytest.skip("chromium is not installed")

    @asynccontextmanager
    async def browsing(page: str, **others: Resource) -> AsyncIterator[Heard]:
        heard = Heard()
        root = Resource()
        root.putChild(b"page", Page(page, b"text/html"))
        # It asks for that, too.
        root.putChild(b"favicon.ico", Page("", b"image/x-icon"))
        root.putChild(b"heard", Report(heard))
        for name, resource in others.items():
            root.putChild(name.encode(), resource)
        port = reactor.listenTCP(0, Site(root), interface="127.0.0.1")
        running = Program(heard)
        address = f"http://127.0.0.1:{port.getHost().port}/page"
        arguments = [path, *CHROMIUM, f"--user-data-dir={tmp_path}/chromium", address]
        reactor.spawnProcess(running, path, arguments, env=None)
        try:
            yield heard
        finally:
            await running.killed()
            await port.stopListening()

    return browsing
