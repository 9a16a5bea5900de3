"""A bus that has told many lets others work before it tells them again."""

from __future__ import annotations

from functools import partial

import pytest
from twisted.internet.task import Clock

from buildapi.mq.bus import Bus
from buildapi.mq.event import Event
from buildapi.mq.rest import MANY, MOST_S, TIMES, TURN_S
from buildapi.mq.stream import Stream

TAKES_S = 0.0001
# A little more, as the clock's sums are not exact.
RESTS_S = (TIMES * MANY + 1) * TAKES_S


def an_event(seq: int) -> Event:
    """Return an event."""
    return Event(seq, "build.1.new", 0.0, (), b"{}")


@pytest.fixture
def clock() -> Clock:
    """Return a clock that stands still."""
    return Clock()


@pytest.fixture
def bus(clock: Clock) -> Bus:
    """Return a bus that rests."""
    return Bus(clock=clock)


class Readers:
    """So many who take what there is whenever they are told; each needs some time for that."""

    def __init__(self, bus: Bus, clock: Clock, number: int, takes_s: float = TAKES_S) -> None:
        self.took: list[list[int]] = []
        self._clock, self._takes_s = clock, takes_s
        for stream in [bus.subscribe("build.#") for _ in range(number)]:
            stream.ready = partial(self._take, stream)

    def _take(self, stream: Stream) -> None:
        self._clock.rightNow += self._takes_s
        events = [item.seq for item in stream.take() if isinstance(item, Event)]
        self.took.append(events)


def test_what_comes_in_a_rest_is_told_together(bus: Bus, clock: Clock) -> None:
    """The first event at once, those that come in the rest in one go, to all."""
    readers = Readers(bus, clock, MANY)

    bus.publish([an_event(1)])
    bus.publish([an_event(2)])
    bus.publish([an_event(3), an_event(4)])
    assert readers.took == [[1]] * MANY

    clock.advance(RESTS_S)
    assert readers.took == [[1]] * MANY + [[2, 3, 4]] * MANY


def test_after_a_rest_the_next_is_told_at_once(bus: Bus, clock: Clock) -> None:
    """Nobody waits who is not in the way of others."""
    readers = Readers(bus, clock, MANY)

    bus.publish([an_event(1)])
    clock.advance(RESTS_S)
    bus.publish([an_event(2)])

    assert readers.took == [[1]] * MANY + [[2]] * MANY
    assert not clock.getDelayedCalls()


def test_few_are_always_told_at_once(bus: Bus, clock: Clock) -> None:
    """They take no time worth speaking of."""
    readers = Readers(bus, clock, MANY - 1)

    bus.publish([an_event(1)])
    bus.publish([an_event(2)])

    assert readers.took == [[1]] * (MANY - 1) + [[2]] * (MANY - 1)


def test_a_rest_is_short(bus: Bus, clock: Clock) -> None:
    """However long it took to tell all."""
    readers = Readers(bus, clock, MANY, takes_s=1.0)

    bus.publish([an_event(1)])
    bus.publish([an_event(2)])
    clock.advance(MOST_S + TAKES_S)

    assert len(readers.took) == 2 * MANY


# One of them takes so long that a turn of the reactor is over when MANY have been told.
LONG_S = TURN_S / MANY + TAKES_S


def test_a_crowd_is_told_in_turns(bus: Bus, clock: Clock) -> None:
    """In each a part of it, the first ones first; then it rests."""
    readers = Readers(bus, clock, 2 * MANY + 1, LONG_S)

    bus.publish([an_event(1)])
    told = [len(readers.took)]
    # Somebody else who wants a turn has it after the next part.
    clock.callLater(0, lambda: told.append(len(readers.took)))
    clock.advance(0)
    assert [*told, len(readers.took)] == [MANY, 2 * MANY, 2 * MANY + 1]

    bus.publish([an_event(2)])
    clock.advance(0)
    assert readers.took == [[1]] * (2 * MANY + 1)
    clock.advance(MOST_S)
    assert readers.took == [[1]] * (2 * MANY + 1) + [[2]] * (2 * MANY + 1)


def test_what_comes_between_two_turns_is_told_with_the_rest(bus: Bus, clock: Clock) -> None:
    """To those who were not told yet; the others come after them; all are told everything."""
    readers = Readers(bus, clock, 2 * MANY, LONG_S)

    bus.publish([an_event(1)])
    bus.publish([an_event(2)])
    assert readers.took == [[1]] * MANY
    for _ in range(2):
        clock.advance(0)

    assert readers.took == [[1]] * MANY + [[1, 2]] * MANY + [[2]] * MANY


def test_who_comes_between_two_turns_hears_what_follows(bus: Bus, clock: Clock) -> None:
    """Nothing that was published before."""
    Readers(bus, clock, 2 * MANY, LONG_S)
    bus.publish([an_event(1)])

    late = bus.subscribe("build.#")
    bus.publish([an_event(2)])

    assert [item.seq for item in late.take() if isinstance(item, Event)] == [2]


def test_a_bus_that_closes_between_two_turns_tells_all(bus: Bus, clock: Clock) -> None:
    """At once."""
    readers = Readers(bus, clock, 2 * MANY, LONG_S)
    bus.publish([an_event(1)])

    bus.close()

    assert readers.took == [[1]] * (2 * MANY)
    assert not clock.getDelayedCalls()


def test_a_bus_that_closes_in_a_rest_tells_what_has_come(bus: Bus, clock: Clock) -> None:
    """And wants nothing of the clock any more."""
    readers = Readers(bus, clock, MANY)
    bus.publish([an_event(1)])
    bus.publish([an_event(2)])

    bus.close()

    assert readers.took == [[1]] * MANY + [[2]] * MANY
    assert not clock.getDelayedCalls()


def test_a_clock_that_is_set_back_makes_no_rest_longer(bus: Bus, clock: Clock) -> None:
    """What comes next is told, with what waited, and not when the old time has come again."""
    readers = Readers(bus, clock, MANY)
    bus.publish([an_event(1)])
    bus.publish([an_event(2)])

    clock.rightNow -= 3600
    bus.publish([an_event(3)])

    assert readers.took == [[1]] * MANY + [[2, 3]] * MANY
