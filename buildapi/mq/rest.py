"""
A rest after telling many, and a pause now and then meanwhile: others need the reactor, too.

Events that come in a rest go out together: to write twice to a thousand sockets costs twice as
much, to write more at a time next to nothing. So the busier the bus is, the less a delivery costs.
"""

from __future__ import annotations

from collections.abc import Callable

from twisted.internet.interfaces import IDelayedCall, IReactorTime

# Fewer are told at once, whenever something comes, and take no time.
MANY = 20
# The rest is so many times as long as telling them took, but not longer than half a glance.
TIMES = 3
MOST_S = 0.05
# So long the reactor tells some, wakes watches or reads for them before it is the turn of others.
TURN_S = 0.005


class Rest:
    """
    Says when many may be told, and when it is the turn of others.

    clock: gives the time; without one there is no rest.  over: called at the end of a rest in which
    somebody wanted to work, and of a pause.
    """

    def __init__(self, clock: IReactorTime | None, over: Callable[[], None]) -> None:
        self._clock = clock
        self._over = over
        self._until = self._began = float("-inf")
        self._timer: IDelayedCall | None = None
        # Since the last rest: how many were told, and how long that took before the last pause.
        self._told = 0
        self._took_s = 0.0
        self._paused = False

    def is_over(self) -> bool:
        """Say whether it is time to work; if it is not, somebody is called when it is."""
        if self._clock is None:
            return True
        if self._paused:
            return False
        self._began = self._clock.seconds()
        # Who waits longer has a clock that was set back.
        if not 0 < self._until - self._began <= 2 * MOST_S:
            self.cancel()
            return True
        if self._timer is None:
            self._timer = self._clock.callLater(self._until - self._began, self._rested)
        return False

    def pauses(self) -> bool:
        """
        Say, before one more is told, whether others have their turn first.

        Somebody is called after it, who asks whether the rest ``is_over``.
        """
        if self._clock is None:
            return False
        if self._told and self._told % MANY == 0:
            took_s = self._clock.seconds() - self._began
            if not 0 <= took_s < TURN_S:
                self._took_s += max(0.0, took_s)
                self._paused = True
                self._timer = self._clock.callLater(0, self._rested)
                return True
        self._told += 1
        return False

    def begin(self) -> None:
        """Rest from what has been done since the last rest was over, if many were told."""
        if self._clock is not None and self._told >= MANY:
            now = self._clock.seconds()
            took_s = self._took_s + now - self._began
            self._until = now + min(MOST_S, TIMES * took_s)
        self._told, self._took_s = 0, 0.0

    def cancel(self) -> None:
        """Call nobody."""
        self._paused = False
        timer, self._timer = self._timer, None
        if timer is not None:
            timer.cancel()

    def _rested(self) -> None:
        self._timer = None
        self._paused = False
        self._until = float("-inf")
        self._over()
