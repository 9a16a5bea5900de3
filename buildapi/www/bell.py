"""A bell: wakes who looks again when something has happened, as events say."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from twisted.internet.defer import Deferred

from buildapi.mq.bus import Bus
from buildapi.mq.event import Event


class Bell:
    """
    Rings when something has happened, also if nobody was waiting then.

    It hears from the moment when it is made.  matters: says whether an event rings it.
    ``rung``: whether it has, since whoever waits set it to False.
    """

    def __init__(
        self, bus: Bus, patterns: Iterable[str], matters: Callable[[Event], bool] = lambda _: True
    ) -> None:
        self.rung = False
        self._matters = matters
        self._waiting: Deferred[None] | None = None
        self._listener = bus.listen(patterns, self._hear)

    def ring(self) -> None:
        """Let whoever waits look again."""
        self.rung = True
        waiting, self._waiting = self._waiting, None
        if waiting is not None:
            waiting.callback(None)

    async def wait(self) -> None:
        """Wait until it has rung."""
        if not self.rung:
            self._waiting = Deferred()
            await self._waiting

    def close(self) -> None:
        """Hear no more."""
        self._listener.close()

    def _hear(self, event: Event) -> None:
        if self._matters(event):
            self.ring()
