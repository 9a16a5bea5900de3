"""A browser's own EventSource on a followed log."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest_twisted

from buildapi.service import BuildAPI
from buildapi.settings import Database, Server, Settings
from buildapi.testing import a_log
from test.browser import Browse, Heard, Page

# It never closes its source. When the stream has ended it opens another one, which ends again and
# again, and for which the browser comes back as soon as it does by default.
PAGE = """
<script>
  let number = 0;
  let last = Promise.resolve();
  const report = (kind, data) => {
    const body = JSON.stringify({ seq: ++number, kind, data });
    last = last.then(() => fetch("/heard", { method: "POST", body }));
  };
  const source = new EventSource("%s/api/v2/logs/1/contents?follow=1");
  source.onopen = () => report("open");
  source.addEventListener("lines", (event) => report("lines", JSON.parse(event.data).content));
  source.addEventListener("end", (event) => {
    report("end", JSON.parse(event.data).end);
    new EventSource("/ending").onopen = () => report("another");
  });
</script>
"""
ENDING = Page(":\n\n", b"text/event-stream")


@pytest_twisted.async_yield_fixture
async def api(tmp_path: Path) -> AsyncIterator[BuildAPI]:
    """Serve a database file, also to pages from other ports of this machine."""
    settings = Settings(
        server=Server(listen="tcp:0:interface=127.0.0.1", allowed_origins=("http://127.0.0.1:*",)),
        database=Database(url=f"sqlite:///{tmp_path}/state.sqlite"),
    )
    async with BuildAPI(settings, master="test:/master") as api:
        yield api


def kinds(heard: Heard) -> list[tuple[str, Any]]:
    """Return what a page has told."""
    return [(one["kind"], one.get("data")) for one in heard.events]


@pytest_twisted.ensureDeferred
async def test_a_page_comes_back_before_the_end_of_a_log_and_not_after_it(
    api: BuildAPI, browse: Browse
) -> None:
    """By itself, with its last id; the answer that has ended says that there is no hurry."""
    assert api.port is not None
    assert api.web is not None
    host: Any = api.port.getHost()
    logid = await a_log(api, "a\n")
    async with browse(PAGE % f"http://127.0.0.1:{host.port}", ending=ENDING) as heard:
        await heard.until(2)
        for channel in list(api.web.site.channels):
            channel.transport.abortConnection()
        await api.data.updates.appendLog(logid, "b\n")
        await heard.until(4)
        await api.data.updates.finishLog(logid)
        # It has come back to another one twice by then.
        await heard.until(8)

    end = {"num_lines": 2, "complete": True}
    told = [("open", None), ("lines", "a\n"), ("open", None), ("lines", "b\n"), ("end", end)]
    assert kinds(heard) == [*told, *[("another", None)] * 3]


@pytest_twisted.ensureDeferred
async def test_a_page_that_comes_after_the_end_of_a_log_comes_once(
    api: BuildAPI, browse: Browse
) -> None:
    """It is told everything, and the end."""
    assert api.port is not None
    host: Any = api.port.getHost()
    await a_log(api, "a\n", finished=True)
    async with browse(PAGE % f"http://127.0.0.1:{host.port}", ending=ENDING) as heard:
        await heard.until(6)

    end = {"num_lines": 1, "complete": True}
    told = [("open", None), ("lines", "a\n"), ("end", end)]
    assert kinds(heard) == [*told, *[("another", None)] * 3]
