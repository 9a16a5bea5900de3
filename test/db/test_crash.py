"""
``kill -9`` at random moments, while 20 builds log as fast as they can.

    CRASH_ROUNDS=100 pytest test/db/test_crash.py
"""

from __future__ import annotations

import os
import random
import signal
import sqlite3
import subprocess
import sys
from collections import defaultdict
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from buildapi.db.chunks import Chunk, lines

ROUNDS = int(os.environ.get("CRASH_ROUNDS", "8"))
APPENDING = Path(__file__).with_name("appending.py")


@dataclass
class Told:
    """What masters were told before they ended."""

    # Log -> the number of its lines that were acknowledged.
    lines: dict[int, int] = field(default_factory=lambda: defaultdict(int))
    events: list[int] = field(default_factory=list)
    words: int = 0

    def take(self, said: str) -> None:
        """Take what a master printed; a line that was cut off by its end says nothing."""
        if not said.endswith("\n"):
            return
        self.words += 1
        kind, *numbers = said.split()
        if kind == "line":
            logid, first, last = map(int, numbers)
            assert first == self.lines[logid], "a line was numbered wrongly"
            self.lines[logid] = last + 1
        elif kind == "event":
            self.events.append(int(numbers[0]))


@contextmanager
def a_master(path: Path) -> Iterator[subprocess.Popen[str]]:
    """Run a master; nothing of it outlives the block."""
    command = [sys.executable, str(APPENDING), f"sqlite:///{path}"]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        yield process
        process.kill()


def ended(path: Path, told: Told, after: int, by: signal.Signals) -> tuple[int, str]:
    """
    Run a master until it was told so many things; return its status, and what it complained of.
    """
    with a_master(path) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        until = told.words + after
        for said in process.stdout:
            told.take(said)
            if told.words == until:
                process.send_signal(by)
        return process.wait(), process.stderr.read()


def logs(connection: sqlite3.Connection) -> dict[int, int]:
    """Return the number of lines of every log; check that each line is there once, and in order."""
    found = dict(connection.execute("SELECT id, num_lines FROM logs"))
    chunks = defaultdict(list)
    for logid, *chunk in connection.execute(
        "SELECT logid, first_line, last_line, content, compressed FROM logchunks"
        " ORDER BY logid, first_line"
    ):
        chunks[logid].append(Chunk(*chunk))
    for logid, number in found.items():
        text = lines(chunks[logid], 0, number) if number else b""
        assert text == b"".join(b"%d\n" % line for line in range(number))
    return found


def check(path: Path, told: Told) -> None:
    """Check that everything that was told is in the database, and nothing by halves."""
    with closing(sqlite3.connect(path)) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        if not connection.execute("SELECT * FROM sqlite_master").fetchall():
            assert not told.events
            return
        stored = [seq for (seq,) in connection.execute("SELECT seq FROM buildapi_events")]
        (newest,) = connection.execute("SELECT seq FROM buildapi_log").fetchone()
        sizes = logs(connection)
        announced = dict(
            connection.execute(
                "SELECT json_extract(body, '$.logid'), json_extract(body, '$.num_lines')"
                " FROM buildapi_events WHERE topic LIKE '%.append' ORDER BY seq"
            )
        )
    assert stored == list(range(1, newest + 1)), "the log has a hole"
    assert set(told.events) <= set(stored), "an event was delivered and is not in the log"
    assert told.events == sorted(set(told.events)), "an event was delivered twice"
    assert all(sizes[logid] >= number for logid, number in told.lines.items()), "a line is lost"
    assert announced == {k: v for k, v in sizes.items() if v}, "a line is there without its event"


def test_a_master_killed_at_any_moment_has_lost_nothing_it_was_told(tmp_path: Path) -> None:
    """
    Every acknowledged line is there, each once and in order; every delivered event is in the log,
    which has no hole; and the next master starts at once, on the same database.
    """
    path, told = tmp_path / "state.sqlite", Told()
    for number in range(ROUNDS):
        # The first thing it says is that it opens the database: some die of that.
        after = random.choice([1, random.randint(2, 200), random.randint(200, 4000)])

        status, complaint = ended(path, told, after, signal.SIGKILL)

        assert (status, complaint) == (-signal.SIGKILL, ""), f"round {number}, after {after}"
        check(path, told)
    assert told.lines


@pytest.mark.parametrize("by", [signal.SIGTERM, signal.SIGINT])
def test_a_master_that_is_asked_to_end_finishes_what_it_accepted(
    tmp_path: Path, by: signal.Signals
) -> None:
    """What it does says it did; the WAL is written back, and the file can be copied as it is."""
    path, told = tmp_path / "state.sqlite", Told()

    status, complaint = ended(path, told, 2000, by)

    assert (status, complaint) == (0, "")
    assert not path.with_name("state.sqlite-wal").exists()
    check(path, told)
    with closing(sqlite3.connect(path)) as connection:
        assert {logid: number for logid, number in logs(connection).items() if number} == told.lines
