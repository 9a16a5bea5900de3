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

from buildapi.service import BuildAPI
from buildapi.settings import Database, Server, Settings
from buildapi.testing import a_build, a_step
from test.browser import Browse, Heard, Page, Program

EXAMPLES = Path(__file__).parents[2] / "docs" / "examples"
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
    api: BuildAPI, browse: Browse
) -> None:
    """With the browser's own EventSource, from another origin."""
    script = Page((EXAMPLES / "subscriber.mjs").read_text(encoding="utf-8"), b"text/javascript")
    async with browse(PAGE % address(api.port), **{"subscriber.mjs": script}) as heard:
        await told_through(api, heard)

    assert heard.events == await matching(api)
