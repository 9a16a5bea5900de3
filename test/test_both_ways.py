"""A Buildbot master and buildapi open each other's databases, and each reads the other's rows."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest_twisted
from twisted.internet.threads import deferToThread

from buildapi.service import BuildAPI
from buildapi.settings import Database, Server, Settings
from buildapi.testing import WebClient, a_log
from test.buildbot import Buildbot, description, got

LINES = "one\nünï ☃\n"


@asynccontextmanager
async def opened(url: str) -> AsyncIterator[BuildAPI]:
    """Open a database as a master that embeds buildapi does."""
    settings = Settings(server=Server(listen=None), database=Database(url=url))
    async with BuildAPI(settings, master="test:/master") as api:
        yield api


@pytest_twisted.ensureDeferred
async def test_we_open_a_database_that_buildbot_made(fresh_url: str, buildbot: Buildbot) -> None:
    """Its rows are read, ours go beside them."""
    await deferToThread(buildbot.create, fresh_url)
    await deferToThread(run_once, buildbot, fresh_url)

    async with opened(fresh_url) as api:
        client = WebClient(api)
        listed = (await client.fetch("GET", "/api/v2/masters?order=masterid")).json()["masters"]
        logid = await a_log(api, LINES)
        chunk = await client.fetch("GET", f"/api/v2/logs/{logid}/contents")

    buildbots, our = listed
    assert buildbots["name"].endswith("/master")
    assert our["name"] == "test:/master"
    assert chunk.json()["logchunks"][0]["content"] == LINES


def run_once(buildbot: Buildbot, url: str) -> None:
    """Have a master serve a database, and stop."""
    with buildbot.serving(url):
        pass


@pytest_twisted.ensureDeferred
async def test_buildbot_serves_a_database_that_we_made(fresh_url: str, buildbot: Buildbot) -> None:
    """It finds nothing to upgrade, and shows what we wrote."""
    async with opened(fresh_url) as api:
        logid = await a_log(api, LINES, finished=True)
    before = description(fresh_url)

    builders, log, lines = await deferToThread(served, buildbot, fresh_url, logid)

    assert [builder["name"] for builder in builders] == ["runtests"]
    assert (log["num_lines"], log["complete"]) == (2, True)
    assert lines == LINES
    assert description(fresh_url) == before


def served(buildbot: Buildbot, url: str, logid: int) -> tuple[Any, Any, str]:
    """Upgrade and serve a database; return its builders, a log and its text."""
    buildbot.upgrade(url)
    with buildbot.serving(url) as api:
        return (
            got(f"{api}/builders")["builders"],
            got(f"{api}/logs/{logid}")["logs"][0],
            got(f"{api}/logs/{logid}/contents")["logchunks"][0]["content"],
        )
