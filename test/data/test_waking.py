"""Who watches is woken in turns, when there are many."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from twisted.internet.task import Clock
from twisted.python.failure import Failure

from buildapi.data.waking import Waking
from buildapi.mq.rest import MANY, TURN_S

TAKES_S = TURN_S / MANY + 0.0001


class Sleeper:
    """Somebody who needs some time when he is woken; ``woken``: how often that was."""

    def __init__(self, clock: Clock, then: Callable[[], None] = lambda: None) -> None:
        self.woken = 0
        self._clock = clock
        self._then = then

    def wake(self) -> None:
        """Take note of it."""
        self.woken += 1
        self._clock.rightNow += TAKES_S
        self._then()

    def fail(self, failure: Failure) -> None:
        """Nothing fails here."""
        raise AssertionError(failure)


@pytest.fixture
def clock() -> Clock:
    """Return a clock that stands still, save when somebody is woken."""
    return Clock()


@pytest.fixture
def waking(clock: Clock) -> Waking:
    """Return what wakes by it."""
    return Waking(clock)


def woken(sleepers: list[Sleeper]) -> list[int]:
    """Return how often each was woken."""
    return [one.woken for one in sleepers]


def test_a_crowd_is_woken_in_turns(waking: Waking, clock: Clock) -> None:
    """Others have theirs in between."""
    crowd = [Sleeper(clock) for _ in range(2 * MANY + 1)]
    between = []

    waking.wake(crowd)
    clock.callLater(0, lambda: between.append(sum(woken(crowd))))
    assert woken(crowd) == [1] * MANY + [0] * (MANY + 1)
    clock.advance(0)

    assert between == [2 * MANY]
    assert woken(crowd) == [1] * (2 * MANY + 1)


def test_who_waits_for_his_turn_is_woken_once(waking: Waking, clock: Clock) -> None:
    """However often there was a reason; who had his turn already has another one."""
    crowd = [Sleeper(clock) for _ in range(MANY + 1)]
    waking.wake(crowd)

    waking.wake(crowd)
    waking.wake(crowd)
    clock.advance(0)

    assert woken(crowd) == [2] * MANY + [1]


def test_few_are_woken_at_once(waking: Waking, clock: Clock) -> None:
    """Whatever time they take, and also those who are a consequence."""
    last = Sleeper(clock)
    first = Sleeper(clock, lambda: waking.wake([last]))

    waking.wake([first, *(Sleeper(clock) for _ in range(MANY - 2))])

    assert woken([first, last]) == [1, 1]
    assert not clock.getDelayedCalls()


def test_nobody_is_woken_after_the_end(waking: Waking, clock: Clock) -> None:
    """And nothing is wanted of the clock any more."""
    crowd = [Sleeper(clock) for _ in range(MANY + 1)]
    waking.wake(crowd)

    waking.close()

    assert not clock.getDelayedCalls()
    assert crowd[-1].woken == 0
