"""Trying again while the database is unavailable."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import pytest
from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.task import Clock

from buildapi.errors import BadArgument, QueueFull, Stopping, Unavailable
from buildapi.testing import result_of
from contrib.localmaster.patience import FIRST_DELAY_S, insist


def after(*errors: Exception) -> Callable[[], Awaitable[str]]:
    """Make an attempt that fails so many times, then succeeds."""
    answers = [*map(fail, errors), succeed("stored")]
    return lambda: answers.pop(0)


def test_what_fails_for_a_while_is_tried_again() -> None:
    """The delays grow; in the end the result is there."""
    clock = Clock()
    attempt = after(Unavailable("the disk is full"), QueueFull("too many writes wait"))
    stored = Deferred.fromCoroutine(insist(clock, attempt))
    clock.advance(FIRST_DELAY_S)
    assert not stored.called
    clock.advance(2 * FIRST_DELAY_S)

    assert result_of(stored) == "stored"


@pytest.mark.parametrize("error", [Stopping("it is being stopped"), BadArgument("it is wrong")])
def test_what_will_never_work_is_not_tried_again(error: Exception) -> None:
    """The end of the service, or a mistake, is told at once."""
    stored = Deferred.fromCoroutine(insist(Clock(), after(error)))

    with pytest.raises(type(error)):
        result_of(stored)
