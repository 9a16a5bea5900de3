"""How many connections stay open (WebSockets, event streams): on the server, and of one client."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any

from buildapi.errors import TooMany, Unavailable
from buildapi.settings import Limits


class Admission:
    """
    Counts who is in.  A client is an address: behind a proxy, all are one.

    ``total``: how many are in.  ``refused``: how many were not let in, since the start.
    """

    def __init__(self, limits: Limits) -> None:
        self._most = limits.connections
        self._most_per_client = limits.connections_per_client
        self._inside: Counter[str] = Counter()
        self.total = 0
        self.refused = 0

    def enter(self, address: Any) -> Callable[[], None]:
        """
        Let one more connection of this address in; return what must be called when it ends.

        Raises Unavailable if the server is full, TooMany if this client has enough.  To call what
        is returned twice is harmless.
        """
        host = getattr(address, "host", None) or "a local socket"
        if self.total >= self._most:
            self.refused += 1
            raise Unavailable(
                f"the server has {self._most} connections that stay open already; come later"
            )
        if self._inside[host] >= self._most_per_client:
            self.refused += 1
            raise TooMany(
                f"{host} has {self._most_per_client} connections that stay open already; "
                "close one, or put more subscriptions on each"
            )
        self._inside[host] += 1
        self.total += 1
        inside = [host]

        def leave() -> None:
            if inside:
                self._leave(inside.pop())

        return leave

    def _leave(self, host: str) -> None:
        self.total -= 1
        self._inside[host] -= 1
        if not self._inside[host]:
            del self._inside[host]
