"""Buildbot's own web UI, as it comes from the package index, in a browser and with our data."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest_twisted
from twisted.internet import reactor as the_reactor
from twisted.internet.defer import Deferred
from twisted.web.resource import Resource

from buildapi.service import BuildAPI
from buildapi.settings import Database, Server, Settings
from buildapi.testing import a_build, a_log, a_step
from test.browser import Browse, Page
from test.buildbot import Buildbot
from test.kept import PATIENCE_S

reactor: Any = the_reactor

MANUAL = Path(__file__).parents[2] / "docs" / "buildbot-ui.md"
TYPES = {".html": b"text/html", ".js": b"text/javascript", ".css": b"text/css"}
# Two of its pages, which tell what they show whenever that is something else.
BOTH = """
<style> iframe { width: 1000px; height: 700px } </style>
<iframe src="/#/builders/1"></iframe>
<iframe src="/#/builders/1/builds/1/steps/0/logs/stdio"></iframe>
<script>
  const told = new Map();
  setInterval(() => {
    for (const frame of document.querySelectorAll("iframe")) {
      const body = frame.contentDocument.body?.innerText;
      if (body && told.get(frame) !== body) {
        told.set(frame, body);
        fetch("/seen", { method: "POST", body });
      }
    }
  }, 100);
</script>
"""


def configuration() -> str:
    """Return what the manual says that the UI is to be told first."""
    found = re.search(r"^```json\n(.*?)^```$", MANUAL.read_text("utf-8"), re.DOTALL | re.MULTILINE)
    assert found
    return found[1]


class Seen(Resource):
    """What the pages have shown; ``until`` waits for a text."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]  # only partly annotated
        self._shown: list[str] = []
        self._waiting: tuple[str, Deferred[None]] | None = None

    def until(self, text: str) -> Deferred[None]:
        """Fire when one of the pages has shown a text."""
        done: Deferred[None] = Deferred()
        done.addTimeout(PATIENCE_S, reactor)
        self._waiting = (text, done)
        self._look()
        return done

    def render_POST(self, request: Any) -> bytes:
        """Take what a page shows."""
        self._shown.append(request.content.read().decode())
        self._look()
        return b""

    def _look(self) -> None:
        if self._waiting is not None and any(self._waiting[0] in shown for shown in self._shown):
            (_, done), self._waiting = self._waiting, None
            done.callback(None)


class Front(Resource):
    """The UI's files, pages of the test, and all else is ours: one origin, as behind a proxy."""

    def __init__(self, files: Path, ours: Any) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._ours = ours
        for file in (*files.glob("*.*"), *files.glob("assets/*")):
            if kind := TYPES.get(file.suffix):
                self.putChild(file.name.encode(), Page(file.read_text("utf-8"), kind))
        self.putChild(b"assets", self)
        self.putChild(b"", self.children[b"index.html"])

    def getChild(self, path: bytes, request: Any) -> Any:  # noqa: ARG002  the first element
        """Let the API answer, whose routes begin at the root."""
        request.postpath.insert(0, request.prepath.pop())
        return self._ours

    def render(self, request: Any) -> Any:
        """Let it answer what the site sends straight to the root."""
        return self._ours.render(request)


@pytest_twisted.async_yield_fixture
async def api(tmp_path: Path) -> AsyncIterator[BuildAPI]:
    """Serve a database file to this machine."""
    settings = Settings(
        server=Server(listen="tcp:0:interface=127.0.0.1"),
        database=Database(url=f"sqlite:///{tmp_path}/state.sqlite"),
    )
    async with BuildAPI(settings, master="test:/master") as api:
        yield api


@pytest_twisted.ensureDeferred
async def test_its_pages_show_builds_and_follow_them(
    api: BuildAPI, buildbot: Buildbot, browse: Browse
) -> None:
    """A builder's page shows a state of its build as it is set, a log's page a line as it comes."""
    assert api.web is not None
    port: Any = api.port
    seen = Seen()
    front = Front(buildbot.ui, api.web.site.resource)
    front.putChild(b"config", Page(configuration(), b"application/json"))
    front.putChild(b"both", Page(BOTH, b"text/html"))
    front.putChild(b"seen", seen)
    api.web.site.resource = front
    buildid = await a_build(api, "all-of-it")
    logid = await a_log(api, "the first line\n", stepid=await a_step(api, buildid=buildid))

    address = f"http://127.0.0.1:{port.getHost().port}"
    async with browse(f'<script>location = "{address}/both"</script>'):
        await seen.until("starting")
        await seen.until("the first line")
        await api.data.updates.setBuildStateString(buildid, "half way through")
        await seen.until("half way through")
        await api.data.updates.appendLog(logid, "a line that came later\n")
        await seen.until("a line that came later")
