"""
Downloads of a log that is larger than what a server may hold in memory.

``HUGE_LOG_MB=2048`` makes it as large as a log has been seen to be.
"""

from __future__ import annotations

import os
import re
import socket
import sqlite3
import subprocess
import sys
import zlib
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import closing
from http.client import HTTPConnection, HTTPResponse
from pathlib import Path

import brotli  # type: ignore[import-untyped]  # it has no stubs
import pytest
import pytest_twisted
import zstandard

from buildapi.service import BuildAPI
from buildapi.settings import Database, Server, Settings
from buildapi.testing import a_log

MB = 2**20
HUGE = int(os.environ.get("HUGE_LOG_MB", "256")) * MB
# By how much a server may grow, whatever it sends.
GROWTH = 64 * MB
VALUE = 128 * MB

LINE = b"o" + b"make: still there" * 5 + b"\n"
LINES = 700
CHUNKS = HUGE // (len(LINE) * LINES)
HEADING = b"Builder: runtests\nBuild number: 1\nWorker name: linux\n"


@pytest_twisted.async_yield_fixture
async def database(tmp_path: Path) -> AsyncIterator[Path]:
    """A database whose log 1 is huge, and takes little room: its chunks are all the same."""
    path = tmp_path / "state.sqlite"
    settings = Settings(server=Server(listen=None), database=Database(url=f"sqlite:///{path}"))
    async with BuildAPI(settings, master="test:/master") as api:
        await a_log(api, kind="s", finished=True)
    content = zlib.compress((LINE * LINES)[:-1], 9)
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.executemany(
            "INSERT INTO logchunks VALUES (1, ?, ?, ?, 1)",
            ((n * LINES, n * LINES + LINES - 1, content) for n in range(CHUNKS)),
        )
        connection.execute("UPDATE logs SET num_lines = ?", (CHUNKS * LINES,))
    yield path


class Process:
    """A server in a process of its own.  port: where it listens."""

    def __init__(self, database: Path) -> None:
        command = [sys.executable, "-m", "buildapi", "serve", "--db", f"sqlite:///{database}"]
        self.process = subprocess.Popen(
            [*command, "--listen", "tcp:0:interface=127.0.0.1"], stdout=subprocess.PIPE, text=True
        )
        assert self.process.stdout is not None
        found = re.search(r":(\d+)/api", self.process.stdout.readline())
        assert found
        self.port = int(found[1])

    def memory(self, kind: str) -> int:
        """Return a figure of the kernel's: VmRSS is the memory now, VmHWM the most there was."""
        status = Path(f"/proc/{self.process.pid}/status").read_text(encoding="ascii")
        found = re.search(rf"{kind}:\s+(\d+) kB", status)
        assert found
        return int(found[1]) * 1024

    def get(self, path: str, **headers: str) -> HTTPResponse:
        """Begin a download."""
        connection = HTTPConnection("127.0.0.1", self.port)
        # The answer has the socket then, and closes it at its end.
        headers["Connection"] = "close"
        connection.request("GET", f"/api/v2/{path}", headers=headers)
        return connection.getresponse()

    def stalled(self) -> socket.socket:
        """Begin a download, and take only its first byte."""
        connection = socket.create_connection(("127.0.0.1", self.port))
        connection.sendall(b"GET /api/v2/logs/1/raw HTTP/1.1\r\nHost: x\r\n\r\n")
        connection.recv(1)
        return connection

    def close(self) -> None:
        """End it."""
        self.process.kill()
        self.process.communicate()


@pytest.fixture
def server(database: Path) -> Iterator[Process]:
    """Serve the database; a small download has been made, so that all is loaded."""
    with closing(Process(database)) as process:
        process.get("logs/1").read()
        yield process


def received(answer: HTTPResponse, decoded: Callable[[bytes], bytes]) -> int:
    """Return how many bytes come; check that they are the log's."""
    beginning, size, whole = b"", 0, LINE[1:] * 20_000
    with answer:
        while piece := answer.read(MB // 2):
            text = decoded(piece)
            if size < len(HEADING) + len(LINE):
                beginning += text
            else:
                at = (size - len(HEADING)) % len(LINE[1:])
                assert whole.startswith(text[:MB], at)
            size += len(text)
    assert beginning.startswith(HEADING + LINE[1:])
    return size


@pytest.mark.parametrize("coding", ["identity", "gzip", "zstd", "br"])
def test_no_size_makes_a_server_grow(server: Process, coding: str) -> None:
    """A download takes the same memory however long it is; every byte comes."""
    decoders: dict[str, Callable[[], Callable[[bytes], bytes]]] = {
        "identity": lambda: bytes,
        "gzip": lambda: zlib.decompressobj(wbits=31).decompress,
        "zstd": lambda: zstandard.ZstdDecompressor().decompressobj().decompress,
        "br": lambda: brotli.Decompressor().process,
    }
    before = server.memory("VmRSS")

    answer = server.get("logs/1/raw", **{"Accept-Encoding": coding})

    assert answer.headers["content-encoding"] == (None if coding == "identity" else coding)
    expected = len(HEADING) + CHUNKS * LINES * len(LINE[1:])
    assert received(answer, decoders[coding]()) == expected
    assert server.memory("VmHWM") - before < GROWTH


def test_a_large_value_does_not_make_it_grow(database: Path) -> None:
    """Nor do build data: of a value, too, a piece is read at a time."""
    with closing(sqlite3.connect(database)) as connection, connection:
        connection.execute(
            "INSERT INTO build_data VALUES (1, 1, 'image', zeroblob(?), 0, 'a step')", (VALUE,)
        )
    with closing(Process(database)) as server:
        server.get("builds/1/data/image").read()
        before = server.memory("VmRSS")

        with server.get("builds/1/data/image/value") as answer:
            assert answer.headers["content-length"] == str(VALUE)
            size = sum(len(piece) for piece in iter(lambda: answer.read(MB), b""))

        assert size == VALUE
        assert server.memory("VmHWM") - before < GROWTH


def test_clients_that_stall_take_little_and_hold_no_snapshot(
    server: Process, database: Path
) -> None:
    """Thirty of them, and the server still works; what is written can leave the WAL."""
    before = server.memory("VmRSS")
    stalled = [server.stalled() for _ in range(30)]

    assert b'"logid": 1' in server.get("logs/1").read()
    assert server.memory("VmHWM") - before < GROWTH
    with closing(sqlite3.connect(database, timeout=20, isolation_level=None)) as connection:
        connection.execute("UPDATE steps SET hidden = 1")
        (checkpointed,) = connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    assert checkpointed == (0, 0, 0)
    for client in stalled:
        client.close()
