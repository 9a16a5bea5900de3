"""
Wakes who watches: a thousand of them in several turns of the reactor, so that others have theirs.

It costs nothing to be woken late, or once instead of twice: who is woken looks what there is by
then.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable

from twisted.internet.interfaces import IDelayedCall, IReactorTime

from buildapi.data.views import Watcher
from buildapi.mq.rest import MANY, TURN_S


class Waking:
    """Wakes them in the order in which they came; clock: gives the time."""

    def __init__(self, clock: IReactorTime) -> None:
        self._clock = clock
        self._asleep: deque[Watcher] = deque()
        self._known: set[Watcher] = set()
        self._busy = False
        self._turn: IDelayedCall | None = None

    def wake(self, watchers: Iterable[Watcher]) -> None:
        """Have them look whether there is something new: now, or soon."""
        for watcher in watchers:
            if watcher not in self._known:
                self._known.add(watcher)
                self._asleep.append(watcher)
        if not self._busy and self._turn is None:
            self._go_on()

    def close(self) -> None:
        """Wake nobody."""
        self._asleep.clear()
        self._known.clear()
        if self._turn is not None:
            self._turn.cancel()
            self._turn = None

    def _go_on(self) -> None:
        self._turn = None
        self._busy = True
        try:
            began = self._clock.seconds()
            woken = 0
            while self._asleep:
                # A clock that was set back ends a turn, too.
                if woken >= MANY and not 0 <= self._clock.seconds() - began < TURN_S:
                    self._turn = self._clock.callLater(0, self._go_on)
                    return
                watcher = self._asleep.popleft()
                self._known.discard(watcher)
                watcher.wake()
                woken += 1
        finally:
            self._busy = False
