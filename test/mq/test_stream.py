"""Streams of events from a position: nothing missed, nothing twice, gaps said aloud."""

from __future__ import annotations

from dataclasses import fields
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.defer import CancelledError, Deferred, fail, succeed

from buildapi.errors import BadArgument, BadQuery, Conflict, Gone, Missed, Overflow
from buildapi.mq.buffer import EVENT_BYTES, NEEDED_BY_OTHERS, Bounds, Slow
from buildapi.mq.bus import Bus
from buildapi.mq.event import Event
from buildapi.mq.history import Extent, Replay
from buildapi.mq.stream import Gap, Stream, Synced

LOG = "5c9c0a6e-9d4c-4f0e-8a2e-1f6d3b1c7a10"


def an_event(seq: int, topic: str = "build.10.new", body: bytes = b"{}") -> Event:
    """Make an event."""
    return Event(seq=seq, topic=topic, at=0.0, keys=(), body=body)


class Kit:
    """A bus with an event log in a list."""

    def __init__(self, stored: int = 0) -> None:
        self.events: list[Event] = []
        self.consumers: dict[str, int] = {}
        self.oldest = 1
        self.reads = 0
        self.bus = Bus(history=self)
        self.publish(*["build.10.new"] * stored)

    def publish(self, *topics: str, body: bytes = b"{}") -> None:
        """Store events and publish them, as one batch."""
        first = len(self.events) + 1
        batch = [an_event(first + n, topic, body) for n, topic in enumerate(topics)]
        self.events += batch
        self.bus.publish(batch)

    def extent(self) -> Deferred[Extent]:
        """Say what the log has."""
        return succeed(Extent(LOG, self.oldest, len(self.events)))

    def replayed(self, after: int, most: int) -> Deferred[Replay]:
        """Read from the log."""
        self.reads += 1
        found = self.events[max(after, self.oldest - 1) :][:most]
        if not found:
            return succeed(Replay([], None, after))
        return succeed(Replay(found, found[0].seq, found[-1].seq))

    def consumed(self, consumer: str) -> Deferred[int | None]:
        """Read a stored position."""
        return succeed(self.consumers.get(consumer))

    def consume(self, consumer: str, seq: int) -> Deferred[None]:
        """Store a position."""
        self.consumers[consumer] = max(seq, self.consumers.get(consumer, 0))
        return succeed(None)


def drained(stream: Stream) -> list[Any]:
    """Take all that there is: an event as its position."""
    found: list[Any] = []
    while True:
        if stream.is_behind:
            items = result(Deferred.fromCoroutine(stream.catch_up()))
        else:
            items = stream.take()
            if not items and not stream.is_behind:
                return found
        found += [item.seq if isinstance(item, Event) else item for item in items]


def result(deferred: Deferred[Any]) -> Any:
    """Return what has come, or raise it."""
    got: list[Any] = []
    deferred.addBoth(got.append)
    deferred.addErrback(lambda _: None)
    if hasattr(got[0], "raiseException"):
        got[0].raiseException()
    return got[0]


def next_seq(stream: Stream) -> int:
    """Read one event that is there."""
    event: Event = result(Deferred.fromCoroutine(anext(stream)))
    return event.seq


def test_without_a_position_a_stream_begins_now() -> None:
    """With the next event; that there is nothing stored to wait for is said at once."""
    kit = Kit(stored=3)
    stream = kit.bus.subscribe("build.#")
    kit.publish("build.1.new", "worker.1.new", "build.2.new")

    assert drained(stream) == [Synced(3), 4, 6]
    assert stream.position == 6


def test_a_stream_begins_after_its_position() -> None:
    """What is stored comes first, then what is new."""
    kit = Kit(stored=5)
    stream = kit.bus.subscribe("build.#", since=2)
    kit.publish("build.1.new")

    assert drained(stream) == [3, 4, 5, Synced(5), 6]


def test_what_comes_while_the_log_is_read_comes_once() -> None:
    """It is in the log by then, and in the buffer."""
    kit = Kit(stored=3)
    stream = kit.bus.subscribe("#", since=0)
    replayed = kit.replayed

    def late(after: int, most: int) -> Deferred[Replay]:
        kit.publish("build.7.new")
        return replayed(after, most)

    kit.replayed = late  # type: ignore[method-assign]
    first = result(Deferred.fromCoroutine(stream.catch_up()))
    kit.replayed = replayed  # type: ignore[method-assign]

    assert [event.seq for event in first] == [1, 2, 3]
    assert drained(stream) == [Synced(3), 4]


def test_a_gap_ends_where_the_log_ended_when_it_was_read() -> None:
    """Who has to look back meanwhile is told of what came behind it, not that it is lost."""
    kit = Kit(stored=3)
    kit.oldest = 4
    stream = kit.bus.subscribe("#", since=0)
    replayed = kit.replayed

    def late(after: int, most: int) -> Deferred[Replay]:
        found = replayed(after, most)
        kit.publish("build.7.new")
        stream.look_back()
        return found

    kit.replayed = late  # type: ignore[method-assign]
    first = result(Deferred.fromCoroutine(stream.catch_up()))
    kit.replayed = replayed  # type: ignore[method-assign]

    assert first == [Gap(1, 3, "retention")]
    assert drained(stream) == [4, Synced(4)]


def test_a_position_that_is_forgotten_is_a_gap() -> None:
    """It is said which events are not coming."""
    kit = Kit(stored=9)
    kit.oldest = 5

    assert drained(kit.bus.subscribe("#", since=1)) == [
        Gap(2, 4, "retention"),
        *range(5, 10),
        Synced(9),
    ]
    assert drained(kit.bus.subscribe("#", since=4)) == [*range(5, 10), Synced(9)]


def test_a_log_that_is_emptied_is_a_gap_to_its_end() -> None:
    """Nothing of what is missed is there any more."""
    kit = Kit(stored=4)
    kit.oldest = 5

    assert drained(kit.bus.subscribe("#", since=1)) == [Gap(2, 4, "retention"), Synced(4)]


@pytest.mark.parametrize(("since", "log"), [(6, None), (2, "another"), (6, LOG), (None, "another")])
def test_a_position_of_another_log_is_refused(since: int | None, log: str | None) -> None:
    """So is one from the future: this log never gave it to anybody."""
    stream = Kit(stored=5).bus.subscribe("#", since=since, log=log)

    with pytest.raises(Gone) as caught:
        result(Deferred.fromCoroutine(stream.begin()))

    assert (caught.value.log, caught.value.oldest, caught.value.newest) == (LOG, 1, 5)


@pytest.mark.parametrize("since", [-1, 1.0, "1", True])
def test_what_is_no_position_is_refused_at_once(since: Any) -> None:
    """Not as a gap before the beginning, nor when the first event is waited for."""
    bus = Kit(stored=2).bus

    with pytest.raises(BadArgument, match="since"):
        bus.subscribe("#", since=since)
    assert not bus.streams


def test_a_refused_iteration_is_closed() -> None:
    """Who was told that nothing will come has nothing to close, and counts no more as behind."""
    kit = Kit(stored=5)
    future = kit.bus.subscribe("#", since=99)
    slow = kit.bus.subscribe("#", slow=Slow.CLOSE, bounds=Bounds(messages=2))
    kit.publish("a.new", "a.new", "a.new")

    for stream, error in ((future, Gone), (slow, Overflow)):
        with pytest.raises(error):
            next_seq(stream)
        with pytest.raises(StopAsyncIteration):
            next_seq(stream)
    assert not kit.bus.streams


def test_a_position_that_is_committed_but_not_published_is_taken() -> None:
    """Who read an answer a moment ago has it; the event comes to him no more."""
    kit = Kit(stored=2)
    kit.events.append(an_event(3))
    stream = kit.bus.subscribe("#", since=3)
    result(Deferred.fromCoroutine(stream.begin()))
    kit.bus.publish(kit.events[2:])
    kit.publish("build.1.new")

    assert drained(stream) == [Synced(3), 4]


def test_without_a_log_there_are_no_positions() -> None:
    """But there are events, as long as the reader keeps up."""
    bus = Bus()
    live, positioned = bus.subscribe("#"), bus.subscribe("#", since=0)
    bus.publish([an_event(1)])

    assert drained(live) == [Synced(0), 1]
    with pytest.raises(Conflict):
        result(Deferred.fromCoroutine(positioned.begin()))


def test_a_slow_reader_goes_back_to_the_log() -> None:
    """What was dropped from memory is read again, and the publisher no longer fills it."""
    kit = Kit()
    stream = kit.bus.subscribe("#", bounds=Bounds(messages=3))
    for _ in range(10):
        kit.publish("build.1.new")

    assert stream.depth == 0
    assert stream.dropped == 4
    assert kit.bus.listeners == 0
    assert drained(stream) == [*range(1, 11), Synced(10)]
    kit.publish("build.1.new")
    assert drained(stream) == [11]


def test_no_more_is_read_from_the_log_than_may_wait() -> None:
    """A client that stops reading meanwhile has no room for more, either."""
    stream = Kit(stored=10).bus.subscribe("#", since=0, bounds=Bounds(messages=3))

    portion = result(Deferred.fromCoroutine(stream.catch_up()))

    assert [event.seq for event in portion] == [1, 2, 3]
    assert drained(stream) == [*range(4, 11), Synced(10)]


def test_bytes_are_bounded_too() -> None:
    """But one event always fits."""
    kit = Kit()
    stream = kit.bus.subscribe("#", bounds=Bounds(size=2 * EVENT_BYTES + 100))
    kit.publish("build.1.new", body=b"x" * 10_000)
    assert drained(stream) == [Synced(0), 1]

    kit.publish("build.1.new", "build.1.new", body=b"x" * 50)
    assert stream.waiting_bytes == 2 * EVENT_BYTES + 100
    assert drained(stream) == [2, 3]
    kit.publish("build.1.new", "build.1.new", body=b"x" * 51)
    assert stream.waiting_bytes == 0
    assert drained(stream) == [4, 5]


def test_what_was_made_of_an_event_does_not_wait_with_it() -> None:
    """Frames and parsed bodies are many times as big, and can be made again."""
    kit = Kit()
    stream = kit.bus.subscribe("#")
    told: list[bytes] = []
    kit.bus.listen("#", lambda event: told.append(event.told + str(event.message).encode()))
    kit.publish(*(["build.1.new"] * 100))

    waiting = [item for item in stream.take() if isinstance(item, Event)]
    made = [event for event in waiting if len(vars(event)) > len(fields(event))]
    assert len(waiting) == 100
    assert len(made) <= NEEDED_BY_OTHERS
    assert [event.told + str(event.message).encode() for event in waiting] == told


def test_latest_keeps_the_newest_event_of_each_topic() -> None:
    """A gap says once what is not coming, but for those that follow."""
    kit = Kit()
    stream = kit.bus.subscribe("#", slow=Slow.LATEST, bounds=Bounds(messages=3))
    drained(stream)
    kit.publish("a.new", "b.new", "a.new", "a.new", "c.new", "b.new")

    assert drained(stream) == [Gap(1, 6, "overflow"), 4, 5, 6]
    kit.publish("a.new")
    assert drained(stream) == [7]
    assert kit.reads == 0


def test_latest_is_bounded_though_topics_are_not() -> None:
    """The oldest of the newest go."""
    kit = Kit()
    stream = kit.bus.subscribe("#", slow=Slow.LATEST, bounds=Bounds(messages=3))
    drained(stream)
    kit.publish(*(f"build.{n}.new" for n in range(9)))

    assert drained(stream) == [Gap(1, 9, "overflow"), 7, 8, 9]


def test_close_ends_a_slow_reader() -> None:
    """With the positions that it did not get."""
    kit = Kit()
    stream = kit.bus.subscribe("#", slow=Slow.CLOSE, bounds=Bounds(messages=2))
    kit.publish("a.new", "a.new", "a.new")

    with pytest.raises(Overflow) as caught:
        drained(stream)
    assert (caught.value.from_seq, caught.value.to_seq) == (1, 3)


def test_a_slice_is_no_more_than_is_wanted() -> None:
    """The rest waits where it is."""
    kit = Kit()
    stream = kit.bus.subscribe("#")
    kit.publish("a.new", "a.new", "a.new", body=b"x" * 10)

    assert [getattr(item, "seq", None) for item in stream.take(20)] == [0, 1, 2]
    assert (stream.position, stream.depth) == (2, 1)
    assert [getattr(item, "seq", None) for item in stream.take(20)] == [3]


def test_what_may_not_be_seen_is_passed() -> None:
    """Stored or new: the position goes on behind it."""
    kit = Kit(stored=2)
    hidden = {2, 3}
    stream = kit.bus.subscribe("#", since=0, sees=lambda event: event.seq not in hidden)
    kit.publish("a.new", "a.new")

    assert drained(stream) == [1, Synced(2), 4]
    hidden.add(5)
    kit.publish("a.new")
    assert drained(stream) == []
    assert stream.position == 5


def test_a_slice_that_may_not_be_seen_is_passed_too() -> None:
    """Nothing is taken only when nothing waits: who got it would wait for the next event."""
    kit = Kit()
    stream = kit.bus.subscribe("#", sees=lambda event: event.seq > 2)
    drained(stream)
    kit.publish("a.new", "a.new", "a.new", body=b"x" * 10)

    assert [getattr(item, "seq", None) for item in stream.take(10)] == [3]


def test_a_bookmark_passes_what_is_not_wanted() -> None:
    """But nothing that still waits."""
    kit = Kit()
    stream = kit.bus.subscribe("build.#")
    drained(stream)
    kit.publish("worker.1.new", "worker.2.new")
    assert stream.bookmark == 2

    kit.publish("build.1.new", "worker.1.new")
    assert stream.bookmark == 0
    drained(stream)
    assert stream.bookmark == 4


def test_a_named_consumer_goes_on_where_it_was() -> None:
    """After what it said it had done with; a new one begins now."""
    kit = Kit(stored=3)
    first = kit.bus.subscribe("#", consumer="exporter")
    kit.publish("a.new", "a.new")
    assert [next_seq(first), next_seq(first)] == [4, 5]
    result(first.ack(4))
    first.close()
    kit.publish("a.new")

    again = kit.bus.subscribe("#", consumer="exporter")

    assert [next_seq(again), next_seq(again)] == [5, 6]


def test_a_consumer_acknowledges_what_was_handed_out() -> None:
    """Not what has been read for it."""
    kit = Kit()
    stream = kit.bus.subscribe("#", consumer="exporter")
    result(Deferred.fromCoroutine(stream.begin()))
    kit.publish("a.new", "a.new", "a.new")
    next_seq(stream)
    next_seq(stream)

    result(stream.ack())

    assert kit.consumers == {"exporter": 2}
    with pytest.raises(BadArgument, match="4 is not reached yet, the newest event is 3"):
        stream.ack(4)
    with pytest.raises(Conflict):
        kit.bus.subscribe("#").ack()


def test_an_iterator_says_what_is_missed_and_goes_on() -> None:
    """Once; the next call gives what follows."""
    kit = Kit(stored=4)
    kit.oldest = 3
    stream = kit.bus.subscribe("#", since=0)

    with pytest.raises(Missed) as caught:
        next_seq(stream)

    assert (caught.value.first, caught.value.last, caught.value.why) == (1, 2, "retention")
    assert [next_seq(stream), next_seq(stream)] == [3, 4]


def test_a_reader_waits_and_is_woken_once_for_a_batch() -> None:
    """Not for each of its events."""
    kit = Kit()
    stream = kit.bus.subscribe("#")
    rings: list[int] = []
    stream.ready = lambda: rings.append(stream.depth)
    kit.publish("a.new", "a.new", "a.new")

    assert rings == [3]


def test_a_wait_that_is_cancelled_loses_nothing() -> None:
    """The next one gets the event."""
    kit = Kit()
    stream = kit.bus.subscribe("#")
    waiting: Deferred[Any] = Deferred.fromCoroutine(anext(stream))
    waiting.addErrback(lambda failure: failure.trap(CancelledError))
    waiting.cancel()
    kit.publish("a.new")

    assert next_seq(stream) == 1


def test_one_reader_waits_at_a_time() -> None:
    """Two would each get half of the events."""
    stream = Kit().bus.subscribe("#")
    Deferred.fromCoroutine(anext(stream))

    with pytest.raises(RuntimeError):
        next_seq(stream)


def test_a_closed_stream_ends() -> None:
    """For who waits, and for who asks; what waited is forgotten."""
    kit = Kit()
    stream = kit.bus.subscribe("#")
    kit.publish("a.new")
    stream.close()

    assert kit.bus.streams == frozenset()
    with pytest.raises(StopAsyncIteration):
        next_seq(stream)


def test_the_end_of_the_bus_is_the_end_of_its_streams() -> None:
    """What is buffered can still be read."""
    kit = Kit()
    stream = kit.bus.subscribe("#")
    kit.publish("a.new")
    kit.bus.close()

    assert next_seq(stream) == 1
    with pytest.raises(StopAsyncIteration):
        next_seq(stream)


def test_what_goes_wrong_with_the_log_is_the_readers() -> None:
    """The stream can be asked again."""
    kit = Kit(stored=1)
    stream = kit.bus.subscribe("#", since=0)
    real = kit.replayed
    kit.replayed = lambda after, most: fail(Conflict("no"))  # type: ignore[method-assign]  # noqa: ARG005
    with pytest.raises(Conflict):
        next_seq(stream)
    kit.replayed = real  # type: ignore[method-assign]

    assert next_seq(stream) == 1


@pytest.mark.parametrize("patterns", ["", "a..b", "a/b", [], ["a.b", "*x"]])
def test_a_bad_pattern_is_refused_at_once(patterns: Any) -> None:
    """Nothing is left behind."""
    bus = Bus()

    with pytest.raises(BadQuery):
        bus.subscribe(patterns)
    assert (bus.listeners, bus.streams) == (0, frozenset())


@given(
    st.lists(
        st.one_of(
            st.tuples(st.just("publish"), st.integers(1, 6)),
            st.tuples(st.just("take"), st.integers(1, 40)),
            st.tuples(st.just("resume"), st.just(0)),
            st.tuples(st.just("forget"), st.integers(0, 3)),
        ),
        min_size=10,
        max_size=40,
    ),
    st.integers(1, 5),
)
def test_every_event_comes_once_or_is_in_a_gap(steps: list[tuple[str, int]], room: int) -> None:
    """However the reader stalls, goes and comes back, and whatever the log forgets."""
    kit = Kit()
    stream = kit.bus.subscribe("#", since=0, bounds=Bounds(messages=room))
    got: list[Any] = []

    def read(most: int) -> None:
        items = (
            result(Deferred.fromCoroutine(stream.catch_up()))
            if stream.is_behind
            else stream.take(most)
        )
        got.extend(item for item in items if not isinstance(item, Synced))

    for step, number in steps:
        if step == "publish":
            kit.publish(*["build.1.new"] * number, body=b"x" * 10)
        elif step == "take":
            read(number)
        elif step == "forget":
            kit.oldest = min(len(kit.events) + 1, kit.oldest + number)
        else:
            position = stream.position
            stream.close()
            stream = kit.bus.subscribe("#", since=position, bounds=Bounds(messages=room))
    for _ in range(2 * len(kit.events) + 5):
        read(1000)

    covered: list[int] = []
    for item in got:
        covered += range(item.first, item.last + 1) if isinstance(item, Gap) else [item.seq]
    assert covered == list(range(1, len(kit.events) + 1))
