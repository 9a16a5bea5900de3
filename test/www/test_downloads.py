"""Downloads with real threads, from every kind of database."""

from __future__ import annotations

from collections.abc import AsyncIterator
from random import Random

import pytest_twisted

from buildapi.service import BuildAPI
from buildapi.settings import Database, Server, Settings
from buildapi.testing import WebClient, a_build, a_log
from buildapi.www.rawvalue import PIECE_BYTES


@pytest_twisted.async_yield_fixture
async def api(empty_url: str) -> AsyncIterator[BuildAPI]:
    """Serve a database of each kind."""
    settings = Settings(server=Server(listen=None), database=Database(url=empty_url))
    async with BuildAPI(settings, master="test:/master") as api:
        yield api


@pytest_twisted.ensureDeferred
async def test_a_log_comes_whole(api: BuildAPI) -> None:
    """From chunks of many lines and of one, compressed or not."""
    draw = Random(1)
    lines = [f"{number} {draw.randbytes(40).hex()} ☃\n" for number in range(10_000)]
    logid = await a_log(api, "".join(f"o{line}" for line in lines), kind="s")
    small = [f"{number}\n" for number in range(300)]
    for line in small:
        await api.data.updates.appendLog(logid, f"e{line}")

    answer = await WebClient(api).fetch("GET", f"/api/v2/logs/{logid}/raw")

    heading = "Builder: runtests\nBuild number: 1\nWorker name: linux\n"
    assert answer.body.decode() == heading + "".join([*lines, *small])


@pytest_twisted.ensureDeferred
async def test_a_value_comes_whole(api: BuildAPI) -> None:
    """In several pieces."""
    value = Random(1).randbytes(5 * PIECE_BYTES + 1)
    buildid = await a_build(api)
    await api.data.updates.setBuildData(buildid, "image", value, "a step")

    answer = await WebClient(api).fetch("GET", f"/api/v2/builds/{buildid}/data/image/value")

    assert answer.headers["content-length"] == str(len(value))
    assert answer.body == value
