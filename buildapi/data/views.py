"""
What is shown of one query to all who watch it.

It holds what the query showed last.  Whoever reads it remembers what he was given, and gets the
difference: it is made once for all who were given the same.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple, Protocol

from twisted.internet.defer import Deferred
from twisted.python.failure import Failure

from buildapi.data.contents import NOTHING, Content, Delta, Rowing
from buildapi.data.fetch import Ask
from buildapi.db.groupcommit import Committed


class Asked(NamedTuple):
    """What a view shows.  cut: the list may go on behind the last row.  shows_id: among others."""

    ask: Ask
    cut: bool
    shows_id: bool

    @property
    def key(self) -> Any:
        """What is the same for whoever asks the same and may see the same."""
        route, bound = self.ask.match
        return route, tuple(bound.items()), self.ask.query, self.ask.restriction, self.cut


class Watcher(Protocol):
    """Who watches a view."""

    def wake(self) -> None:
        """Look whether there is something new."""

    def fail(self, failure: Failure) -> None:
        """End with an error."""


class View:
    """
    One query: what it showed last, and all who watch it.

    published: says which event was published last.
    """

    def __init__(self, asked: Asked, published: Callable[[], int]) -> None:
        self.asked = asked
        self.rowing = Rowing(asked.ask, hidden=not asked.shows_id)
        self.content = NOTHING
        # Whether it was read at all, and whether the single object that it is of was there.
        self.ready = self.there = False
        self.seq = 0
        self.current = False
        self.queued = False
        self.reading: Deferred[Any] | None = None
        # The last batch that came while it was read: its position, and whether it had events.
        self.missed: Committed | None = None
        self.rests_until = 0.0
        self.watches: dict[Watcher, None] = {}
        self.waiting: list[Deferred[None]] = []
        self._published = published
        self._last: tuple[Content, Delta] | None = None

    @property
    def valid_to(self) -> int:
        """The event up to which what it shows is what a GET shows."""
        return max(self.seq, self._published()) if self.current else self.seq

    def delta(self, old: Content) -> Delta:
        """Return what makes ``old`` what it is now; made once for all who were given ``old``."""
        if self._last is None or self._last[0] is not old:
            self._last = old, Delta(old, self.content)
        return self._last[1]

    def show(self, new: Content, seq: int, *, there: bool = True) -> None:
        """Show what was read, which has all events up to ``seq``."""
        self.seq = max(self.seq, seq)
        self.ready, self.there = True, there
        if new is not self.content:
            self.content, self._last = new, None

    def has(self, committed: Committed) -> bool:
        """Say whether what was read last shows this batch."""
        # A batch without events has the position of the one before it.
        return self.seq > committed.seq or (self.seq == committed.seq and bool(committed.events))

    def fail(self, failure: Failure) -> None:
        """End all who watch."""
        for watch in list(self.watches):
            watch.fail(failure)

    def let_go(self) -> None:
        """Let go who waits for it to be read."""
        waiting, self.waiting = self.waiting, []
        for waiter in waiting:
            waiter.callback(None)
