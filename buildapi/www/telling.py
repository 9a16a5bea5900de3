"""
Telling those who consume without a position, on one connection: each crowd in turns.

To write to a thousand sockets takes the time of many requests. So what they hear is only noted
while an event is delivered, and told when the bus says that it is their turn, which it does in
slices. Nothing is told in another order.
"""

from __future__ import annotations

from collections.abc import Callable

from buildapi.mq.bus import Bus
from buildapi.mq.event import Event


class Telling:
    """
    What one connection is yet to be told.

    tell: tells of an event, under one of its names.  most: when so many events wait they are told
    at once, whoever has to wait for that.
    """

    def __init__(self, bus: Bus, tell: Callable[[str, Event], None], most: int) -> None:
        self._bus = bus
        self._tell = tell
        self._most = most
        self._untold: list[tuple[str, Event]] = []

    def hear(self, name: str, event: Event) -> None:
        """Take note of an event that is being delivered."""
        self._untold.append((name, event))
        if len(self._untold) == 1:
            self._bus.soon(self.now)
        elif len(self._untold) >= self._most:
            self.now()

    def now(self) -> None:
        """Tell what there is to be told."""
        untold, self._untold = self._untold, []
        for name, event in untold:
            self._tell(name, event)

    def forget(self) -> None:
        """Tell nothing of it: the client has gone."""
        self._untold.clear()
