"""Who hears of events by being called: a listener, and what masters' code holds instead."""

from __future__ import annotations

from collections.abc import Callable

from twisted.internet.defer import Deferred, succeed


class Listener:
    """
    A callback that hears of the events which match its patterns, until it is closed.

    ``consumer``: the callback, as it was given.  ``closed``: nothing more is heard.
    ``hear``: called with the event, after the key that matched if it listens to keys.
    Made by ``Bus.listen`` and ``Bus.listen_keys``.
    """

    __slots__ = ("_leave", "closed", "consumer", "hear", "number")

    def __init__(
        self,
        number: int,
        consumer: Callable[..., object],
        hear: Callable[..., object],
        leave: Callable[[Listener], None],
    ) -> None:
        self.number = number
        self.consumer = consumer
        self.hear = hear
        self.closed = False
        self._leave = leave

    def close(self) -> None:
        """Hear nothing more, from now on: not even the rest of what is being delivered."""
        if not self.closed:
            self.closed = True
            self._leave(self)


class Consumer:
    """What ``Bus.startConsuming`` fires with."""

    def __init__(self, listener: Listener) -> None:
        self._listener = listener

    def stopConsuming(self) -> Deferred[None]:
        """
        Call the callback no more; what it has begun goes on.

        Fires at once. A second time is harmless.
        """
        self._listener.close()
        return succeed(None)
