"""A file that grows, as a log of its own."""

from __future__ import annotations

import os
from pathlib import Path

import pytest_twisted
from twisted.internet.defer import Deferred, succeed
from twisted.internet.task import Clock

from contrib.localmaster.feed import LogFeed
from contrib.localmaster.tail import LOOK_EVERY_S, READ_SIZE, Tail


class MemoryLog:
    """A log in memory."""

    def __init__(self) -> None:
        self.text = ""

    def append(self, text: str) -> Deferred[None]:
        """Take the text."""
        self.text += text
        return succeed(None)


def a_tail(path: Path) -> tuple[Tail, MemoryLog, Clock]:
    """Follow a file; return also the log that it ends in, and the time."""
    log, clock = MemoryLog(), Clock()
    tail = Tail(clock, path, LogFeed(log.append))
    tail.start()
    return tail, log, clock


@pytest_twisted.ensureDeferred
async def test_new_lines_come_while_the_file_grows(tmp_path: Path) -> None:
    """Whole lines only, each once, also if the file isn't there at first."""
    tail, log, clock = a_tail(tmp_path / "report.txt")
    clock.advance(LOOK_EVERY_S)
    with (tmp_path / "report.txt").open("w") as file:
        file.write("one\ntw")
        file.flush()
        clock.advance(LOOK_EVERY_S)
        assert log.text == "one\n"
        file.write("o\nthree")
    clock.advance(LOOK_EVERY_S)
    assert log.text == "one\ntwo\n"
    await tail.finish()

    assert log.text == "one\ntwo\nthree\n"
    assert clock.getDelayedCalls() == []


@pytest_twisted.ensureDeferred
async def test_a_file_written_at_once_is_taken_whole(tmp_path: Path) -> None:
    """What a command writes in its last moment isn't lost, however much it is."""
    text = "".join(f"line {n}\n" for n in range(READ_SIZE // 4))
    tail, log, _ = a_tail(tmp_path / "report.txt")
    (tmp_path / "report.txt").write_text(text)
    await tail.finish()

    assert log.text == text


@pytest_twisted.ensureDeferred
async def test_what_is_no_file_is_an_empty_log(tmp_path: Path) -> None:
    """Neither a missing file nor a pipe that nobody writes holds up the build."""
    os.mkfifo(tmp_path / "pipe")
    for name in ("none", "pipe"):
        tail, log, clock = a_tail(tmp_path / name)
        clock.advance(LOOK_EVERY_S)
        await tail.finish()

        assert log.text == ""
