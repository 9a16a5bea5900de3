"""A list of more than a hundred megabytes, over real sockets: what it costs the server."""

from __future__ import annotations

import gzip
import json
import re
import socket
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import NamedTuple
from urllib.request import urlopen

import pytest

from buildapi.testing import answered

ROWS, LENGTH = 6_000, 20_000
# A portion of the rows is 4 MB; what is in memory is some of them and some pieces.
BOUND_KB = 64 * 1024
LIST = f"/api/v2/builders?limit={ROWS}&field=builderid&field=description"


class Served(NamedTuple):
    """A server, and its database."""

    port: int
    pid: int
    database: Path

    def peak_kb(self) -> int:
        """Most memory that the process has ever had."""
        text = Path(f"/proc/{self.pid}/status").read_text(encoding="ascii")
        found = re.search(r"VmHWM:\s+(\d+) kB", text)
        assert found
        return int(found[1])

    def files(self) -> int:
        """How many files without a name it has open, beside where pytest lets it write."""
        links = [link for link in Path(f"/proc/{self.pid}/fd").iterdir() if link.name != "2"]
        return sum("(deleted)" in str(link.readlink()) for link in links)

    def get(self, path: str) -> bytes:
        """The body of a short answer."""
        with urlopen(f"http://127.0.0.1:{self.port}{path}", timeout=60) as answer:
            body: bytes = answer.read()
            return body

    def ask(self, path: str, *headers: str) -> socket.socket:
        """Send a request."""
        connection = socket.create_connection(("127.0.0.1", self.port), timeout=60)
        lines = [f"GET {path} HTTP/1.1", "Host: x", "Connection: close", *headers, "", ""]
        connection.sendall("\r\n".join(lines).encode())
        return connection


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """A server of a database with builders that have long descriptions."""
    path = tmp_path_factory.mktemp("large") / "large.sqlite"
    command = [sys.executable, "-m", "buildapi", "serve", "--db", f"sqlite:///{path}"]
    where = ["--listen", "tcp:0:interface=127.0.0.1"]
    with subprocess.Popen([*command, *where], stdout=subprocess.PIPE, text=True) as server:
        try:
            assert server.stdout is not None
            found = re.search(r"http://127.0.0.1:(\d+)/", server.stdout.readline())
            assert found
            fill(path)
            yield Served(int(found[1]), server.pid, path)
        finally:
            server.terminate()


def fill(path: Path) -> None:
    """Make builders with long descriptions."""
    rows = ((n, f"b{n}", f"hash{n}", f"{n} ".ljust(LENGTH, "x")) for n in range(1, ROWS + 1))
    with closing(sqlite3.connect(path)) as database, database:
        database.executemany(
            "INSERT INTO builders (id, name, name_hash, description) VALUES (?, ?, ?, ?)", rows
        )


@pytest.mark.parametrize("coding", ["identity", "gzip"])
def test_a_long_list_costs_little_memory_however_slow_its_reader(
    served: Served, coding: str
) -> None:
    """It waits in a file; others are answered, and nothing holds on to the database meanwhile."""
    served.get("/api/v2/builders?limit=1")
    before = served.peak_kb()
    with served.ask(LIST, f"Accept-Encoding: {coding}", "Accept: application/json") as slow:
        received = [slow.recv(1000)]
        assert served.files() == 1
        for _ in range(20):
            served.get("/api/v2/builders/1?field=builderid")
        with closing(sqlite3.connect(served.database)) as other:
            other.execute("UPDATE builders SET name = name WHERE id = 1")
            other.commit()
            busy, _, _ = other.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
        while some := slow.recv(100_000):
            received.append(some)

    peak = served.peak_kb()
    answer = answered(b"".join(received))
    assert busy == 0
    assert answer.headers["content-length"] is None
    body = gzip.decompress(answer.body) if coding == "gzip" else answer.body
    assert len(body) > 100 * 2**20
    found = json.loads(body)
    assert [row["builderid"] for row in found["builders"]] == list(range(1, ROWS + 1))
    assert found["meta"] == {"total": ROWS}
    assert peak - before < BOUND_KB


@pytest.mark.parametrize("received", [0, 1000, 1_000_000])
def test_who_goes_away_leaves_nothing(served: Served, received: int) -> None:
    """Before the first byte, after it, or in the middle: the next one is served as ever."""
    with served.ask(LIST) as gone:
        left = received
        while left > 0:
            left -= len(gone.recv(left))

    # One that is read to its end comes after whatever the pool still did for the other.
    for _ in range(2):
        with served.ask(LIST) as connection:
            while connection.recv(1_000_000):
                pass
    for _ in range(1000):
        # The pool closes the file of an answer after its last byte.
        served.get("/api/v2/builders/1?field=name")
        if served.files() == 0:
            break
    assert served.files() == 0
