"""
What the fuzzing needs: a server process on a database in which much is wrong, and its answers.

    FUZZ_EXAMPLES=30000 FUZZ_SEED=7 pytest test/fuzz     # for longer, and by another way
"""

from __future__ import annotations

import lzma
import os
import random
import re
import socket
import sqlite3
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass
from email.message import Message
from http.client import HTTPException, HTTPResponse, IncompleteRead
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, cast

import psycopg
import pymysql
import pytest

from buildapi.db.tables import metadata

if TYPE_CHECKING:
    from test.servers import Server

CONTRACT = Path(__file__).parents[1] / "contract"
# Far above what any answer takes: who waits so long waits for ever.
PATIENCE_S = 60


@dataclass(frozen=True)
class Limits:
    """How much is tried."""

    examples: int = int(os.environ.get("FUZZ_EXAMPLES", "3000"))
    seed: int = int(os.environ.get("FUZZ_SEED", "0"))
    patience_s: int = PATIENCE_S


@pytest.fixture(scope="session")
def limits() -> Limits:
    """Return how much is tried."""
    return Limits()


# As SQL: not everything can be said with a bound value.
VALUES = (
    "NULL",
    "''",
    "'NaN'",
    "'[NaN, \"source\"]'",
    "'{\"a\": Infinity}'",
    "'[-Infinity]'",
    "'{broken'",
    "'[1, '",
    "'null'",
    "'[]'",
    "'{}'",
    "'[[], {}, 1, null]'",
    "'\"\\ud800\"'",
    '\'["\\ud800", "x"]\'',
    "'1e999'",
    "'" + "9" * 40 + "'",
    "'[" + "9" * 400 + ', "x"]\'',
    "'" + "[" * 2000 + "'",
    "9223372036854775807",
    "-9223372036854775808",
    "-1",
    "0",
    "3000000000",
    "1.5",
    "1e308",
    "9e999",
    "'not a number'",
    "' 7 '",
    "x'ff00fe'",
    "x''",
    "cast(x'ff' AS TEXT)",
    "cast(x'eda080' AS TEXT)",
    "cast(x'61002262' AS TEXT)",
    "char(0)",
    "char(1, 27, 127, 8232, 65535)",
    "'\r\n\tSet-Cookie: a=b'",
    "'a/b%2F<script>\"'",
    "hex(zeroblob(2000))",
)
# Without these a database is not Buildbot's, or not one at all.
_LEFT = ("alembic_version", "migrate_version", "sqlite_")


def unpacked_sample(path: Path) -> Path:
    """Write the sample database to ``path``."""
    path.write_bytes(lzma.decompress((CONTRACT / "reference" / "sample.sqlite.xz").read_bytes()))
    return path


def spoiled_sample(path: Path, seed: int = 0, every: int = 4) -> Path:
    """
    Write the sample database to ``path``, with wrong values in one of ``every`` rows.

    No primary key is changed, and the database's own constraints hold.
    """
    chosen = random.Random(seed)
    with closing(sqlite3.connect(unpacked_sample(path))) as connection:
        tables = [name for (name,) in connection.execute(_TABLES) if not name.startswith(_LEFT)]
        for table in tables:
            _spoil(connection, table, chosen, every)
        connection.commit()
    return path


# A server looks more closely at what it stores: of the values, those that some columns take.
STORABLE = [value for value in VALUES if not value.startswith(("x'", "cast", "char", "hex", "9e"))]
SPOIL = {
    "PostgreSQL": "UPDATE {0} SET {1} = {2} WHERE ctid IN"
    " (SELECT ctid FROM {0} ORDER BY random() LIMIT {3})",
    "MariaDB": "UPDATE IGNORE {0} SET {1} = {2} ORDER BY RAND() LIMIT {3}",
}


def spoil(server: Server, url: str, seed: int) -> None:
    """Put wrong values into every column of a database that is no key, each in some rows."""
    chosen = random.Random(seed)
    columns = [(t.name, c.name) for t in metadata.sorted_tables for c in t.c if not c.primary_key]
    with server.session(url) as run:
        for table, column in columns:
            ((rows,),) = run(f"SELECT count(*) FROM {table}")
            for value in chosen.sample(STORABLE, 5):
                # What its type, NOT NULL or UNIQUE refuses stays as it is.
                with suppress(psycopg.Error, pymysql.Error):
                    run(SPOIL[server.title].format(table, column, value, 1 + rows // 20))


_TABLES = "SELECT name FROM sqlite_master WHERE type = 'table' ORDER BY name"


def _spoil(connection: sqlite3.Connection, table: str, chosen: random.Random, every: int) -> None:
    described = connection.execute(f"PRAGMA table_info({table})").fetchall()
    columns = [name for _, name, _, _, _, key in described if not key]
    if not columns:
        return
    rowids = [rowid for (rowid,) in connection.execute(f"SELECT rowid FROM {table}")]
    for rowid in chosen.sample(rowids, len(rowids) // every):
        # One wrong value, or everything wrong.
        for column in chosen.sample(columns, chosen.choice((1, 1, len(columns)))):
            value = chosen.choice(VALUES)
            # What NOT NULL or UNIQUE refuses stays as it is.
            connection.execute(
                f"UPDATE OR IGNORE {table} SET {column} = {value} WHERE rowid = {rowid}"
            )


@dataclass(frozen=True)
class Answer:
    """An answer as it came; ``cut`` if the server broke the connection in the middle."""

    status: int
    headers: Message
    body: bytes
    cut: bool = False


class Target:
    """A server process to send bytes to."""

    def __init__(self, port: int, log: BinaryIO) -> None:
        self.port = port
        self._log = log

    def ask(self, requests: Sequence[tuple[str, bytes]]) -> list[Answer]:
        """
        Send requests, each with its method, one after the other without waiting, and read on until
        the server closes the connection.
        """
        with socket.create_connection(("127.0.0.1", self.port), PATIENCE_S) as connection:
            # It may have seen enough, and closed; what it said stands there.
            with suppress(ConnectionError):
                connection.sendall(b"".join(data for _, data in requests))
            received = b"".join(_received(connection))
        stream = BytesIO(received)
        return list(_answers(stream, len(received), [method for method, _ in requests]))

    def complaint(self) -> str:
        """Return what the server has logged since the last time; it logs what went wrong only."""
        return self._log.read().decode()


def _received(connection: socket.socket) -> Iterator[bytes]:
    try:
        while data := connection.recv(65_536):
            yield data
    except ConnectionResetError:
        return


def _answers(stream: BytesIO, size: int, methods: Sequence[str]) -> Iterator[Answer]:
    for method in methods:
        if stream.tell() == size:
            return
        response = HTTPResponse(cast("Any", _Received(stream)), method=method)
        try:
            response.begin()
            yield Answer(response.status, response.headers, response.read())
        except IncompleteRead as error:
            yield Answer(response.status, response.headers, error.partial, cut=True)
        except HTTPException as error:
            pytest.fail(f"{error!r} at {stream.tell()} of {stream.getvalue()[:2000]!r}")


class _Received:
    """Received bytes, as the standard library's socket has them; one answer follows another."""

    def __init__(self, stream: BytesIO) -> None:
        self._stream = stream

    def makefile(self, mode: str) -> _Open:  # noqa: ARG002  a socket's signature
        return _Open(self._stream)


class _Open:
    """A file that stays open."""

    def __init__(self, stream: BytesIO) -> None:
        self.read, self.readline, self.flush = stream.read, stream.readline, stream.flush
        self.readinto, self.read1 = stream.readinto, stream.read1

    def close(self) -> None:
        """Stay open."""


@pytest.fixture(scope="session")
def spoiled(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Target]:
    """Serve the spoiled sample in a process of its own."""
    folder = tmp_path_factory.mktemp("spoiled")
    database = spoiled_sample(folder / "sample.sqlite", Limits().seed)
    yield from _served(folder, "--db", f"sqlite:///{database}")


@pytest.fixture(scope="session", params=["postgresql", "mariadb"])
def spoiled_server(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Target]:
    """Serve the sample on a database server, spoiled as far as such a server lets it be."""
    server: Server = request.getfixturevalue(request.param)
    folder = tmp_path_factory.mktemp(request.param)
    sample, url = unpacked_sample(folder / "sample.sqlite"), server.fresh_database()
    copy = ["db", "copy", "--from", f"sqlite:///{sample}", "--to", url]
    subprocess.run([sys.executable, "-m", "buildapi", *copy], check=True, capture_output=True)
    spoil(server, url, Limits().seed)
    yield from _served(folder, "--db", url)
    server.drop(url)


@pytest.fixture
def sample(tmp_path: Path) -> Iterator[Target]:
    """Serve the sample as it is."""
    database = unpacked_sample(tmp_path / "sample.sqlite")
    yield from _served(tmp_path, "--db", f"sqlite:///{database}")


def _served(folder: Path, *options: str) -> Iterator[Target]:
    command = [sys.executable, "-m", "buildapi", "serve", "--config", f"{CONTRACT}/sample.toml"]
    listen = ["--listen", "tcp:0:interface=127.0.0.1"]
    log = folder / "server.log"
    with (
        log.open("wb") as written,
        log.open("rb") as read,
        subprocess.Popen(
            [*command, *listen, *options], stdout=subprocess.PIPE, stderr=written, text=True
        ) as server,
    ):
        assert server.stdout is not None
        # It prints this line when it is ready.
        found = re.search(r":(\d+)/api/v2", server.stdout.readline())
        assert found, log.read_text()
        yield Target(int(found[1]), read)
        server.terminate()
