"""
A rest after telling many: others need the reactor, too.

Events that come meanwhile go out together: to write twice to a thousand sockets costs twice as
much, to write more at a time next to nothing. So the busier the bus is, the less a delivery costs.
"""

from __future__ import annotations

from collections.abc import Callable

from twisted.internet.interfaces import IDelayedCall, IReactorTime

# Fewer are told at once, whenever something comes.
MANY = 20
# The rest is so many times as long as telling them took, but not longer than half a glance.
TIMES = 3
MOST_S = 0.05


class Rest:
    """
    Says when many may be told again.

    clock: gives the time; without one there is no rest.  over: called at the end of a rest in which
    somebody wanted to work.
    """

    def __init__(self, clock: IReactorTime | None, over: Callable[[], None]) -> None:
        self._clock = clock
        self._over = over
        self._until = self._began = float("-inf")
        self._timer: IDelayedCall | None = None

    def is_over(self) -> bool:
        """Say whether it is time to work; if it is not, somebody is called when it is."""
        if self._clock is None:
            return True
        self._began = self._clock.seconds()
        # Who waits longer has a clock that was set back.
        if not 0 < self._until - self._began <= 2 * MOST_S:
            self.cancel()
            return True
        if self._timer is None:
            self._timer = self._clock.callLater(self._until - self._began, self._rested)
        return False

    def begin(self, told: int) -> None:
        """Rest from what has been done since the last one was over: ``told`` so many."""
        if self._clock is not None and told >= MANY:
            now = self._clock.seconds()
            self._until = now + min(MOST_S, TIMES * (now - self._began))

    def cancel(self) -> None:
        """Call nobody."""
        timer, self._timer = self._timer, None
        if timer is not None:
            timer.cancel()

    def _rested(self) -> None:
        self._timer = None
        self._until = float("-inf")
        self._over()
