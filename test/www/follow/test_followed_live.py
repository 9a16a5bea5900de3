"""A log followed over real sockets, with threads and a database file."""

from __future__ import annotations

from pathlib import Path
from typing import Any
from urllib.request import urlopen

import pytest_twisted
from twisted.internet.threads import deferToThread

from buildapi.service import BuildAPI
from buildapi.settings import Database, Server, Settings
from buildapi.testing import a_log


def got(url: str) -> bytes:
    """Return the body of an answer, when it has come to its end."""
    with urlopen(url, timeout=60) as answer:  # noqa: S310  it is our own server
        body: bytes = answer.read()
    return body


@pytest_twisted.ensureDeferred
async def test_a_download_grows_with_its_log(tmp_path: Path) -> None:
    """Byte for byte the plain one, though chunks are merged meanwhile."""
    settings = Settings(
        server=Server(listen="tcp:0:interface=127.0.0.1"),
        database=Database(url=f"sqlite:///{tmp_path}/state.sqlite"),
    )
    async with BuildAPI(settings, master="test:/master") as api:
        logid = await a_log(api, "o0\n", kind="s")
        assert api.port is not None
        host: Any = api.port.getHost()
        raw = f"http://127.0.0.1:{host.port}/api/v2/logs/{logid}/raw"
        growing = [deferToThread(got, f"{raw}?follow=1") for _ in range(3)]
        for number in range(200):
            await api.data.updates.appendLog(logid, f"e{number} ☃\n")
            if number % 50 == 0:
                await api.data.updates.compressLog(logid)
        await api.data.updates.finishLog(logid)

        followed = [await one for one in growing]

        assert followed == [await deferToThread(got, raw)] * 3
