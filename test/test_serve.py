"""``buildapi serve`` as people run it: real processes, files, sockets and signals."""

from __future__ import annotations

import json
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import pytest
import sqlalchemy as sa

from buildapi.db.tables import alembic_version, metadata

ANY_PORT = "tcp:0:interface=127.0.0.1"


def command(database: Path, *options: str, listen: str = ANY_PORT) -> list[str]:
    """Return the command line that serves a database."""
    url = f"sqlite:///{database}"
    return [sys.executable, "-m", "buildapi", "serve", "--db", url, "--listen", listen, *options]


def refused(database: Path, *options: str, listen: str = ANY_PORT) -> str:
    """Start a server that can't start; check that it ends as it should, and return its sentence."""
    done = subprocess.run(
        command(database, *options, listen=listen),
        capture_output=True,
        text=True,
        timeout=20,
        check=False,
    )
    assert done.returncode == 1
    assert done.stdout == ""
    (sentence,) = done.stderr.splitlines()
    return sentence.removeprefix("Error: ")


class Server:
    """A server that is ready.  greeting: the line it printed; url: where its API is."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        assert process.stdout is not None
        self.process = process
        self.greeting = process.stdout.readline()
        found = re.search(r"http://\S+", self.greeting)
        assert found, (process.communicate(), process.returncode)
        self.url = found[0]

    def get(self, path: str) -> Any:
        """Return the JSON of a GET below ``/api/v2``."""
        with urlopen(f"{self.url}/{path}") as answer:  # noqa: S310  it is http
            return json.load(answer)

    def ended(self, by: signal.Signals) -> tuple[int, str, str]:
        """Send a signal; return exit status, and what was printed since the greeting."""
        self.process.send_signal(by)
        out, err = self.process.communicate(timeout=20)
        return self.process.returncode, out, err


@contextmanager
def serving(database: Path, *options: str) -> Iterator[Server]:
    """Serve a database while the block runs."""
    process = subprocess.Popen(
        command(database, *options), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    try:
        yield Server(process)
    finally:
        process.kill()
        process.communicate()


@pytest.fixture
def buildbot_database(tmp_path: Path) -> Path:
    """A database as a Buildbot 4.3 master leaves it."""
    path = tmp_path / "state.sqlite"
    engine = sa.create_engine(f"sqlite:///{path}")
    with engine.begin() as connection:
        metadata.create_all(connection)
        connection.execute(sa.insert(alembic_version).values(version_num="067"))
    engine.dispose()
    return path


def files(folder: Path) -> dict[str, bytes]:
    """Return every file of a folder with its content."""
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_it_says_what_it_serves_and_where(tmp_path: Path) -> None:
    """One line on the standard output, with the port the system chose; then it answers."""
    database = tmp_path / "new.sqlite"

    with serving(database) as server:
        assert re.fullmatch(
            rf"buildapi serves sqlite:///{re.escape(str(database))} "
            r"on http://127\.0\.0\.1:[1-9]\d*/api/v2 \(Ctrl-C stops it\)\n",
            server.greeting,
        )
        assert server.get("builders") == {"builders": [], "meta": {"total": 0}}


@pytest.mark.parametrize("by", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_it_cleanly(tmp_path: Path, by: signal.Signals) -> None:
    """Ctrl-C is how people stop it: status 0, not a word, one file left."""
    with serving(tmp_path / "new.sqlite") as server:
        assert server.ended(by) == (0, "", "")

    assert "new.sqlite-wal" not in files(tmp_path)


def test_it_starts_again_at_once_after_a_kill(tmp_path: Path) -> None:
    """The lock of a dead writer is free."""
    with serving(tmp_path / "new.sqlite") as server:
        server.ended(signal.SIGKILL)

    with serving(tmp_path / "new.sqlite") as server:
        assert server.get("masters")["meta"]["total"] >= 0


def test_a_buildbot_database_is_served_read_only_without_changing_a_byte(
    buildbot_database: Path,
) -> None:
    """Neither the file nor its folder is different afterwards."""
    before = files(buildbot_database.parent)

    with serving(buildbot_database, "--read-only") as server:
        assert server.get("builders")["meta"]["total"] == 0
        assert server.ended(signal.SIGINT)[0] == 0

    assert files(buildbot_database.parent) == before


def test_a_second_writer_is_kept_out_and_may_read(tmp_path: Path) -> None:
    """The sentence says who writes already; the first server does not notice."""
    database = tmp_path / "new.sqlite"

    with serving(database) as first:
        assert "is being written by" in refused(database)
        with serving(database, "--read-only") as second:
            assert second.get("builders") == first.get("builders")


def test_another_revision_is_refused(buildbot_database: Path) -> None:
    """The sentence has both revisions; the file is as it was."""
    engine = sa.create_engine(f"sqlite:///{buildbot_database}")
    with engine.begin() as connection:
        connection.execute(sa.update(alembic_version).values(version_num="059"))
    engine.dispose()
    before = buildbot_database.read_bytes()

    sentence = refused(buildbot_database)

    assert "059" in sentence
    assert "067" in sentence
    assert buildbot_database.read_bytes() == before


def test_a_file_that_is_no_database_is_refused(tmp_path: Path) -> None:
    """It is not overwritten."""
    text = tmp_path / "notes.txt"
    text.write_text("These are no tables.\n" * 100)

    assert "not a database" in refused(text)
    assert text.read_text() == "These are no tables.\n" * 100


def test_a_missing_directory_is_refused(tmp_path: Path) -> None:
    """It is not made: more likely the path is wrong."""
    assert "directory" in refused(tmp_path / "missing" / "state.sqlite")
    assert not (tmp_path / "missing").exists()


def test_a_port_in_use_is_refused(tmp_path: Path) -> None:
    """The sentence says which one, and the database is free for the next try."""
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        sentence = refused(tmp_path / "new.sqlite", listen=f"tcp:{port}:interface=127.0.0.1")

    assert str(port) in sentence
    assert "in use" in sentence
    with serving(tmp_path / "new.sqlite") as server:
        assert server.get("builders")["meta"]["total"] == 0


def test_a_wrong_endpoint_is_refused(tmp_path: Path) -> None:
    """Before anybody waits for a server that listens nowhere."""
    assert "8010 is no endpoint to listen on" in refused(tmp_path / "new.sqlite", listen="8010")
    assert "port must be 0-65535" in refused(tmp_path / "new.sqlite", listen="tcp:99999")


def test_twist_serves_the_same(tmp_path: Path) -> None:
    """Under Twisted's own runner; its log says where."""
    url = f"sqlite:///{tmp_path / 'new.sqlite'}"
    arguments = ["--log-format=text", "buildapi", "--db", url, "--listen", ANY_PORT]
    with subprocess.Popen(
        [sys.executable, "-m", "twisted", *arguments], stdout=subprocess.PIPE, text=True
    ) as process:
        try:
            assert process.stdout is not None
            line = next(line for line in process.stdout if "buildapi serves" in line)
            found = re.search(r"http://\S+", line)
            assert found
            with urlopen(f"{found[0]}/builders") as answer:  # noqa: S310  it is http
                assert answer.status == 200
        finally:
            process.terminate()


def test_twist_ends_if_the_server_cannot_start(tmp_path: Path) -> None:
    """A sentence in its log, and a status that whoever watches over it can see."""
    url = f"sqlite:///{tmp_path / 'missing' / 'state.sqlite'}"

    done = subprocess.run(
        [sys.executable, "-m", "twisted", "--log-format=text", "buildapi", "--db", url],
        capture_output=True,
        text=True,
        timeout=20,
        check=False,
    )

    assert done.returncode != 0
    assert f"the directory {tmp_path / 'missing'} does not exist" in done.stdout
    assert "Traceback" not in done.stdout + done.stderr
