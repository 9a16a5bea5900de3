"""The examples for subscribers, as people run them: nothing is missed over a broken connection."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_twisted
from twisted.internet import reactor as the_reactor
from twisted.internet.defer import Deferred
from twisted.internet.protocol import ProcessProtocol
from twisted.python.failure import Failure
from twisted.web.resource import Resource
from twisted.web.server import Site

from buildapi.service import BuildAPI
from buildapi.settings import Database, Server, Settings
from buildapi.testing import a_build, a_step

EXAMPLES = Path(__file__).parents[2] / "docs" / "examples"
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
PAGE = """
<script type="module">
  import { subscribe } from "/subscriber.mjs";
  let last = Promise.resolve();
  const onEvent = (event) => {
    const body = JSON.stringify(event);
    last = last.then(() => fetch("/heard", { method: "POST", body }));
  };
  subscribe("%s", { topics: ["build.#", "builder.#"], since: 0, onEvent });
</script>
"""

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


@pytest_twisted.async_yield_fixture
async def api(tmp_path: Path) -> AsyncIterator[BuildAPI]:
    """Serve a database file, also to pages from other ports of this machine."""
    settings = Settings(
        server=Server(listen="tcp:0:interface=127.0.0.1", allowed_origins=("http://127.0.0.1:*",)),
        database=Database(url=f"sqlite:///{tmp_path}/state.sqlite"),
    )
    async with BuildAPI(settings, master="test:/master") as api:
        yield api


def address(port: Any) -> str:
    """Return where something listens."""
    return f"http://127.0.0.1:{port.getHost().port}"


async def told_through(api: BuildAPI, heard: Heard) -> None:
    """Make events, and break the connection again and again, until all have been heard."""
    assert api.web is not None
    for number in range(4):
        await a_build(api, f"builder {number}")
        await heard.until((await matching(api))[-1]["seq"])
        for channel in list(api.web.site.channels):
            channel.transport.abortConnection()
        # While nobody is connected, and while somebody comes back.
        await a_build(api, f"next {number}")
        await a_step(api)
    await heard.until((await matching(api))[-1]["seq"])


async def matching(api: BuildAPI) -> list[Any]:
    """Return what was to be heard."""
    assert api.mq.history is not None
    events = (await api.mq.history.replayed(0, 1000)).events
    told = [json.loads(event.told) for event in events]
    return [event for event in told if event["topic"].startswith(("build.", "builder."))]


@pytest.mark.parametrize("program", ["python", "node"])
@pytest_twisted.ensureDeferred
async def test_a_program_hears_everything_once_in_order(api: BuildAPI, program: str) -> None:
    """In Python, and in JavaScript without a browser."""
    name = {"python": "subscriber.py", "node": "subscriber.mjs"}[program]
    path = sys.executable if program == "python" else shutil.which(program)
    if path is None:
        pytest.skip(f"{program} is not installed")
    heard = Heard()
    running = Program(heard)
    arguments = [path, str(EXAMPLES / name), address(api.port), "#", "0"]
    reactor.spawnProcess(running, path, arguments, env=None)
    try:
        await told_through(api, heard)
    finally:
        await running.killed()

    events = [e for e in heard.events if e["topic"].startswith(("build.", "builder."))]
    assert events == await matching(api)


@pytest_twisted.ensureDeferred
async def test_a_page_in_a_browser_hears_everything_once_in_order(
    api: BuildAPI, tmp_path: Path
) -> None:
    """With the browser's own EventSource, from another origin."""
    path = shutil.which("chromium")
    if path is None:
        pytest.skip("chromium is not installed")
    heard = Heard()
    root = Resource()
    script = (EXAMPLES / "subscriber.mjs").read_text(encoding="utf-8")
    root.putChild(b"subscriber.mjs", Page(script, b"text/javascript"))
    root.putChild(b"page", Page(PAGE % address(api.port), b"text/html"))
    root.putChild(b"heard", Report(heard))
    port = reactor.listenTCP(0, Site(root), interface="127.0.0.1")
    running = Program(heard)
    arguments = [path, *CHROMIUM, f"--user-data-dir={tmp_path}/chromium", f"{address(port)}/page"]
    reactor.spawnProcess(running, path, arguments, env=None)
    try:
        await told_through(api, heard)
    finally:
        await running.killed()
        await port.stopListening()

    assert heard.events == await matching(api)
