"""
``kill -9`` at random moments, while 20 builds log as fast as they can, on each database system.

    CRASH_ROUNDS=100 pytest test/db/test_crash.py
"""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import sqlalchemy as sa

from buildapi.db.chunks import Chunk, lines
from buildapi.db.tables import metadata, own

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
def a_master(url: str) -> Iterator[subprocess.Popen[str]]:
    """Run a master; nothing of it outlives the block."""
    command = [sys.executable, str(APPENDING), url]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        yield process
        process.kill()


def ended(url: str, told: Told, after: int, by: signal.Signals) -> tuple[int, str]:
    """
    Run a master until it was told so many things; return its status, and what it complained of.
    """
    with a_master(url) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        until = told.words + after
        for said in process.stdout:
            told.take(said)
            if told.words == until:
                process.send_signal(by)
        return process.wait(), process.stderr.read()


@contextmanager
def one_moment(url: str) -> Iterator[sa.Connection]:
    """Give a connection that sees one state: what the last master sent may still be committed."""
    level = "SERIALIZABLE" if url.startswith("sqlite") else "REPEATABLE READ"
    engine = sa.create_engine(url, isolation_level=level)
    with engine.connect() as connection:
        yield connection
    engine.dispose()


def logs(connection: sa.Connection) -> dict[int, int]:
    """Return the number of lines of every log; check that each line is there once, and in order."""
    sizes = connection.execute(sa.text("SELECT id, num_lines FROM logs"))
    found: dict[int, int] = {row.id: row.num_lines for row in sizes}
    chunks = defaultdict(list)
    for logid, *chunk in connection.execute(
        sa.text(
            "SELECT logid, first_line, last_line, content, compressed FROM logchunks"
            " ORDER BY logid, first_line"
        )
    ):
        chunks[logid].append(Chunk(*chunk))
    for logid, number in found.items():
        text = lines(chunks[logid], 0, number) if number else b""
        assert text == b"".join(b"%d\n" % line for line in range(number))
    return found


def is_made(connection: sa.Connection) -> bool:
    """Say whether a master came so far as to have a database: some die of their first start."""
    wanted = {*metadata.tables, *own.tables}
    if not wanted <= set(sa.inspect(connection).get_table_names()):
        return False
    return connection.execute(sa.text("SELECT seq FROM buildapi_log")).first() is not None


def check(url: str, told: Told) -> None:
    """Check that everything that was told is in the database, and nothing by halves."""
    with one_moment(url) as connection:
        if connection.dialect.name == "sqlite":
            assert connection.exec_driver_sql("PRAGMA integrity_check").all() == [("ok",)]
        if not is_made(connection):
            assert not told.events
            return
        newest = connection.execute(sa.text("SELECT seq FROM buildapi_log")).scalar_one()
        events = connection.execute(
            sa.text("SELECT seq, topic, body FROM buildapi_events ORDER BY seq")
        ).all()
        sizes = logs(connection)
    appends = [json.loads(body) for _, topic, body in events if topic.endswith(".append")]
    announced = {body["logid"]: body["num_lines"] for body in appends}
    stored = [seq for seq, _, _ in events]
    assert stored == list(range(1, newest + 1)), "the log has a hole"
    assert set(told.events) <= set(stored), "an event was delivered and is not in the log"
    assert told.events == sorted(set(told.events)), "an event was delivered twice"
    assert all(sizes[logid] >= number for logid, number in told.lines.items()), "a line is lost"
    assert announced == {k: v for k, v in sizes.items() if v}, "a line is there without its event"


def test_a_master_killed_at_any_moment_has_lost_nothing_it_was_told(fresh_url: str) -> None:
    """
    Every acknowledged line is there, each once and in order; every delivered event is in the log,
    which has no hole; and the next master starts at once, on the same database.
    """
    told = Told()
    # On a server a master takes longer to begin.
    for number in range(ROUNDS if fresh_url.startswith("sqlite") else ROUNDS // 2):
        # The first thing it says is that it opens the database: some die of that.
        after = random.choice([1, random.randint(2, 200), random.randint(200, 4000)])
        if number == 1:
            # At least one is told of lines before it dies.
            after = 2000

        status, complaint = ended(fresh_url, told, after, signal.SIGKILL)

        assert (status, complaint) == (-signal.SIGKILL, ""), f"round {number}, after {after}"
        check(fresh_url, told)
    assert told.lines


@pytest.mark.parametrize("by", [signal.SIGTERM, signal.SIGINT])
def test_a_master_that_is_asked_to_end_finishes_what_it_accepted(
    fresh_url: str, by: signal.Signals
) -> None:
    """What it does says it did; the WAL is written back, and the file can be copied as it is."""
    told = Told()

    status, complaint = ended(fresh_url, told, 2000, by)

    assert (status, complaint) == (0, "")
    assert not Path(f"{sa.make_url(fresh_url).database}-wal").exists()
    check(fresh_url, told)
    with one_moment(fresh_url) as connection:
        assert {logid: number for logid, number in logs(connection).items() if number} == told.lines
