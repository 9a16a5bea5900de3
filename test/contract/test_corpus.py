"""
What the reference server answered, asked of ours: the recorded corpus, over HTTP.

``reference/`` is the project's own black-box kit, as it is; only the recording is packed. It runs
as a program of its own, which knows nothing of buildapi.
"""

from __future__ import annotations

import lzma
import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

HERE = Path(__file__).parent
REFERENCE = HERE / "reference"

Serve = Callable[..., str]


def unpacked(name: str, folder: Path) -> Path:
    """Return a file of the reference, without its .xz, in a folder of its own."""
    path = folder / name
    path.write_bytes(lzma.decompress((REFERENCE / f"{name}.xz").read_bytes()))
    return path


@pytest.fixture
def sample(tmp_path: Path) -> str:
    """The URL of a fresh copy of the sample database."""
    return f"sqlite:///{unpacked('sample.sqlite', tmp_path)}"


@pytest.fixture
def serve(sample: str) -> Iterator[Serve]:
    """Serve a database, by default the sample, as its recorder was configured."""
    servers: list[subprocess.Popen[str]] = []

    def serving(*options: str, database: str = sample, **environment: str) -> str:
        command = [sys.executable, "-m", "buildapi", "serve", "--config", f"{HERE}/sample.toml"]
        where = ["--db", database, "--listen", "tcp:0:interface=127.0.0.1"]
        server = subprocess.Popen(
            [*command, *where, *options],
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, **environment},
        )
        servers.append(server)
        assert server.stdout is not None
        # It prints this line when it is ready.
        found = re.search(r"(http://\S+)/api/v2", server.stdout.readline())
        assert found
        return found[1]

    yield serving
    for server in servers:
        server.terminate()
        server.communicate()


def replayed(url: str, folder: Path, *options: str) -> str:
    """Ask a server everything that was recorded; return the last line of the report."""
    corpus = unpacked("corpus_sample.jsonl", folder)
    done = subprocess.run(
        [sys.executable, REFERENCE / "replay.py", url, "--corpus", corpus, *options],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout.splitlines()[-1]


def test_every_recorded_request_is_answered_as_the_contract_says(
    serve: Serve, tmp_path: Path
) -> None:
    """GET, HEAD, OPTIONS, POST and what is no method of ours."""
    assert replayed(serve(), tmp_path) == "OVERALL 1200/1200 = 100.00%"


@pytest.mark.parametrize("fresh_url", ["postgresql", "mariadb"], indirect=True)
def test_the_sample_moved_to_a_server_gives_the_same_answers(
    serve: Serve, sample: str, fresh_url: str, tmp_path: Path
) -> None:
    """Of an operator's copy, to the last record."""
    copy = [sys.executable, "-m", "buildapi", "db", "copy", "--from", sample, "--to", fresh_url]
    subprocess.run(copy, check=True)

    url = serve(database=fresh_url)

    assert replayed(url, tmp_path) == "OVERALL 1200/1200 = 100.00%"


def test_reads_in_the_pool_answer_the_same(serve: Serve, tmp_path: Path) -> None:
    """Small reads need not be made on the reactor thread, and nothing need be writable."""
    url = serve("--read-only", BUILDAPI_DATABASE_INLINE_READS="false")

    assert replayed(url, tmp_path, "--method", "GET") == "OVERALL 1172/1172 = 100.00%"
