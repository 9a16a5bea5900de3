"""Bounded subscriptions: an async iterator of events."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from twisted.internet.defer import CancelledError, Deferred

from buildapi.errors import BadQuery, Overflow
from buildapi.mq.bus import Bus
from buildapi.mq.event import Event
from buildapi.mq.subscription import Subscription


def an_event(seq: int, topic: str = "build.10.new", body: bytes = b"{}") -> Event:
    """Make an event."""
    return Event(seq=seq, topic=topic, at=0.0, keys=(), body=body)


class Reader:
    """Reads a subscription to its end, as a coroutine run by a Deferred."""

    def __init__(self, subscription: Subscription) -> None:
        self.seqs: list[int] = []
        self.subscription = subscription
        self.done = Deferred.fromCoroutine(self._read())
        self.error: BaseException | None = None
        self.done.addErrback(self._keep)

    async def _read(self) -> str:
        async for event in self.subscription:
            self.seqs.append(event.seq)
        return "ended"

    def _keep(self, failure: object) -> None:
        self.error = getattr(failure, "value", None)

    @property
    def ended(self) -> bool:
        """Whether the iteration came to its end, without an error."""
        return getattr(self.done, "result", None) == "ended"


def next_seq(subscription: Subscription) -> int:
    """Read one event that is there."""
    seqs: list[int] = []

    async def read() -> None:
        seqs.append((await anext(subscription)).seq)

    Deferred.fromCoroutine(read())
    return seqs[0]


@pytest.fixture
def bus() -> Iterator[Bus]:
    """Make a bus that has had five events."""
    bus = Bus(last_seq=5)
    yield bus
    bus.close()
    assert bus.listeners == 0
    assert bus.subscriptions == frozenset()


def test_a_reader_that_waits_gets_each_event_as_it_is_published(bus: Bus) -> None:
    """An `async for` wakes inside publish; nothing is buffered."""
    subscription = bus.subscribe("build.#")
    reader = Reader(subscription)
    assert subscription.waiting
    assert bus.waiters == 1

    bus.publish([an_event(6), an_event(7, "builder.1.new"), an_event(8)])

    assert reader.seqs == [6, 8]
    assert subscription.depth == 0
    assert subscription.waiting


def test_buffered_events_are_read_in_order(bus: Bus) -> None:
    """Who reads later gets the same events."""
    subscription = bus.subscribe(["build.#", "builder.#"])
    bus.publish([an_event(6), an_event(7, "builder.1.new"), an_event(8)])
    assert subscription.depth == 3

    reader = Reader(subscription)

    assert reader.seqs == [6, 7, 8]
    assert subscription.depth == 0


def test_the_position_is_that_of_the_event_handed_out_last(bus: Bus) -> None:
    """It starts at the newest event; what is only buffered does not count."""
    subscription = bus.subscribe("build.#")
    assert subscription.position == 5
    bus.publish([an_event(6), an_event(7)])
    assert subscription.position == 5

    next_seq(subscription)

    assert subscription.position == 6


def test_an_event_that_was_never_stored_does_not_move_the_position(bus: Bus) -> None:
    """Its seq is 0, which as a position would mean the beginning of the log."""
    subscription = bus.subscribe("build.#")
    bus.publish([an_event(0)])

    assert next_seq(subscription) == 0
    assert subscription.position == 5


def test_too_many_messages_end_it_with_an_error_that_names_what_is_lost(bus: Bus) -> None:
    """The range begins after the position, so that the log can be read from there."""
    subscription = bus.subscribe("build.#", max_messages=3)
    bus.publish([an_event(6)])
    next_seq(subscription)

    bus.publish([an_event(seq) for seq in range(7, 12)])
    reader = Reader(subscription)

    assert isinstance(reader.error, Overflow)
    assert (reader.error.from_seq, reader.error.to_seq) == (7, 10)
    assert "events 7 to 10 were dropped" in reader.error.sentence
    assert reader.error.status == 409
    assert (subscription.position, subscription.dropped, subscription.depth) == (6, 4, 0)
    assert reader.seqs == []


def test_overflow_leaves_the_bus_and_frees_the_buffer(bus: Bus) -> None:
    """A reader that never comes back costs nothing more."""
    subscription = bus.subscribe("#", max_messages=1)

    bus.publish([an_event(6), an_event(7)])

    assert bus.listeners == 0
    assert bus.subscriptions == frozenset()
    assert subscription.depth == 0


def test_overflow_is_raised_to_everyone_who_reads_on(bus: Bus) -> None:
    """A second look does not mistake the hole for the end."""
    subscription = bus.subscribe("#", max_messages=1)
    bus.publish([an_event(6), an_event(7)])

    assert isinstance(Reader(subscription).error, Overflow)
    assert isinstance(Reader(subscription).error, Overflow)


def test_as_many_messages_as_allowed_fit(bus: Bus) -> None:
    """The limit is the last number that is fine."""
    subscription = bus.subscribe("#", max_messages=3)
    bus.publish([an_event(6), an_event(7), an_event(8)])

    assert Reader(subscription).seqs == [6, 7, 8]


def test_bytes_are_bounded_too(bus: Bus) -> None:
    """Bodies count with their length; reading makes room again."""
    subscription = bus.subscribe("#", max_bytes=10)
    bus.publish([an_event(6, body=b"x" * 5), an_event(7, body=b"x" * 5)])
    next_seq(subscription)
    bus.publish([an_event(8, body=b"x" * 5)])
    assert subscription.depth == 2

    bus.publish([an_event(9, body=b"x")])

    error = Reader(subscription).error
    assert isinstance(error, Overflow)
    assert (error.from_seq, error.to_seq) == (7, 9)


def test_one_event_always_fits(bus: Bus) -> None:
    """Otherwise an event bigger than the buffer would end every new subscription, for ever."""
    subscription = bus.subscribe("#", max_bytes=10)
    bus.publish([an_event(6, body=b"x" * 1000)])

    assert Reader(subscription).seqs == [6]


def test_close_ends_the_iteration_of_a_reader_that_waits(bus: Bus) -> None:
    """Whoever closes need not be the reader."""
    subscription = bus.subscribe("#")
    reader = Reader(subscription)

    subscription.close()
    subscription.close()

    assert reader.ended
    assert not subscription.waiting


def test_close_forgets_what_was_not_read(bus: Bus) -> None:
    """Nothing more is handed out, and nothing more is taken."""
    subscription = bus.subscribe("#")
    bus.publish([an_event(6)])

    subscription.close()
    bus.publish([an_event(7)])
    reader = Reader(subscription)

    assert reader.ended
    assert reader.seqs == []


def test_a_closed_bus_lets_readers_finish(bus: Bus) -> None:
    """What was published before the end is read; then the iteration ends without an error."""
    waits = Reader(bus.subscribe("builder.#"))
    slow = bus.subscribe("build.#")
    bus.publish([an_event(6), an_event(7)])

    bus.close()
    late = Reader(slow)

    assert waits.ended
    assert late.ended
    assert late.seqs == [6, 7]


def test_a_cancelled_wait_loses_no_event(bus: Bus) -> None:
    """A reader with a time limit may come back."""
    subscription = bus.subscribe("#")
    given_up = Reader(subscription)
    given_up.done.cancel()
    assert isinstance(given_up.error, CancelledError)
    assert not subscription.waiting

    bus.publish([an_event(6)])

    assert Reader(subscription).seqs == [6]


def test_a_second_reader_at_once_is_refused(bus: Bus) -> None:
    """Two readers would share the events between them, which nobody can mean."""
    subscription = bus.subscribe("#")
    first, second = Reader(subscription), Reader(subscription)
    assert isinstance(second.error, RuntimeError)

    bus.publish([an_event(6)])

    assert first.seqs == [6]


def test_a_reader_may_close_its_own_subscription(bus: Bus) -> None:
    """Reading until something comes is an ordinary thing to do."""
    subscription = bus.subscribe("#")
    seqs: list[int] = []

    async def until_seven() -> None:
        async for event in subscription:
            seqs.append(event.seq)
            if event.seq == 7:
                subscription.close()

    Deferred.fromCoroutine(until_seven())
    bus.publish([an_event(6), an_event(7), an_event(8)])

    assert seqs == [6, 7]


def test_a_bad_pattern_leaves_nothing_behind(bus: Bus) -> None:
    """The error comes when subscribing, not when reading."""
    with pytest.raises(BadQuery):
        bus.subscribe(["build.#", "build..new"])

    assert bus.listeners == 0
    assert bus.subscriptions == frozenset()
