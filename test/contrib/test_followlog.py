"""The small client that prints a log: it goes on where a lost connection left it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest_twisted
from twisted.internet.threads import deferToThread

from buildapi.service import BuildAPI
from buildapi.settings import Database, Server, Settings
from buildapi.testing import a_log

CLIENT = Path(__file__).parents[2] / "contrib" / "followlog.py"


@pytest_twisted.ensureDeferred
async def test_a_log_is_printed_whole_though_the_connection_is_lost(tmp_path: Path) -> None:
    """Each line once, without the letters of streams."""
    settings = Settings(
        server=Server(listen="tcp:0:interface=127.0.0.1"),
        database=Database(url=f"sqlite:///{tmp_path}/state.sqlite"),
    )
    async with BuildAPI(settings, master="test:/master") as api:
        logid = await a_log(api, "o1\no2\n", kind="s")
        assert api.port is not None
        host: Any = api.port.getHost()
        command = [
            sys.executable,
            str(CLIENT),
            f"http://127.0.0.1:{host.port}",
            "steps/1/logs/stdio",
        ]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as client:  # noqa: ASYNC220  it begins at once
            output = client.stdout
            assert output is not None
            printed = await deferToThread(lambda: [output.readline() for _ in range(2)])
            assert api.web is not None
            for socket in list(api.web.sockets.open):
                socket.transport.abortConnection()
            await api.data.updates.appendLog(logid, "e3\no4\n")
            await api.data.updates.finishLog(logid)
            printed += await deferToThread(output.readlines)

            assert printed == ["1\n", "2\n", "3\n", "4\n"]
            assert client.wait(30) == 0
