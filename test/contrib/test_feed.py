"""Text on its way into a log."""

import pytest
import pytest_twisted
from twisted.internet.defer import Deferred

from contrib.localmaster.feed import MAX_WAITING, LogFeed


class HeldLog:
    """A log whose appends wait until the test lets them through."""

    def __init__(self) -> None:
        self.stored: list[str] = []
        self._arrived: list[Deferred[None]] = []

    def append(self, text: str) -> Deferred[None]:
        """Note the text; the answer waits."""
        self.stored.append(text)
        done: Deferred[None] = Deferred()
        self._arrived.append(done)
        return done

    def let_through(self) -> None:
        """Let the oldest append succeed."""
        self._arrived.pop(0).callback(None)

    def fail(self, error: Exception) -> None:
        """Let the oldest append fail."""
        self._arrived.pop(0).errback(error)


class RecordingProducer:
    """Notes what it is asked to do."""

    def __init__(self) -> None:
        self.asked: list[str] = []

    def pauseProducing(self) -> None:
        """Note it."""
        self.asked.append("pause")

    def resumeProducing(self) -> None:
        """Note it."""
        self.asked.append("resume")


def test_what_comes_during_an_append_is_the_next_batch() -> None:
    """One append is in flight at a time, and the next has everything since."""
    log = HeldLog()
    feed = LogFeed(log.append)
    for line in ("one\n", "two\n", "three\n"):
        feed.write(line)

    assert log.stored == ["one\n"]
    log.let_through()
    assert log.stored == ["one\n", "two\nthree\n"]


def test_flush_waits_for_the_last_batch() -> None:
    """Nothing is on its way any more when flush is done."""
    log = HeldLog()
    feed = LogFeed(log.append)
    feed.write("one\n")
    feed.write("two\n")
    flushed = Deferred.fromCoroutine(feed.flush())

    log.let_through()
    assert not flushed.called
    log.let_through()
    assert flushed.called


@pytest_twisted.ensureDeferred
async def test_a_feed_without_text_is_flushed_at_once() -> None:
    """An empty log isn't waited for, nor is an empty text stored."""
    log = HeldLog()
    feed = LogFeed(log.append)
    feed.write("")
    await feed.flush()

    assert log.stored == []


def test_a_full_feed_pauses_its_producer() -> None:
    """Memory is bounded: a producer writes no more than fits, and goes on after that."""
    log, producer = HeldLog(), RecordingProducer()
    feed = LogFeed(log.append)
    feed.register(producer)
    feed.write("first\n")
    feed.write("x" * MAX_WAITING)
    feed.write("y")

    assert producer.asked == ["pause"]
    assert feed.full
    log.let_through()
    assert producer.asked == ["pause", "resume"]
    assert not feed.full


@pytest_twisted.ensureDeferred
async def test_a_failed_append_is_told_by_flush() -> None:
    """After a failure nothing more is stored out of order, and nobody stays paused."""
    log, producer = HeldLog(), RecordingProducer()
    feed = LogFeed(log.append)
    feed.register(producer)
    feed.write("first\n")
    feed.write("x" * MAX_WAITING)
    log.fail(ValueError("the disk is full"))
    feed.write("late\n")

    with pytest.raises(ValueError, match="the disk is full"):
        await feed.flush()
    assert log.stored == ["first\n"]
    assert producer.asked == ["pause", "resume"]
