"""
One reader of a view: what he was given last, and what is new since then.

The difference is made when the reader comes for it: so one that is slow costs no queue, and finds
one difference.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable

from twisted.internet.defer import Deferred, succeed
from twisted.python.failure import Failure

from buildapi.data.contents import NOTHING, Delta
from buildapi.data.gate import Identity
from buildapi.data.views import View


class Watch(AsyncIterator[Delta]):
    """
    One reader of a view; for one task at a time.

    ``content``: what the reader was given last.  ``position``: the event up to which that is what
    a GET shows.  ``view``: what it reads; None once it has ended.
    """

    def __init__(
        self, path: str, query: str, identity: Identity, left: Callable[[Watch], None]
    ) -> None:
        self.content = NOTHING
        self.position = 0
        self.closed = False
        self.failure: Failure | None = None
        self.identity = identity
        self.asks = (path, query)
        self.idle = False
        self.overdue = False
        self.view: View | None = None
        self._left = left
        self._news: Deferred[None] | None = None

    async def __anext__(self) -> Delta:
        """Wait for the next difference; StopAsyncIteration after close()."""
        while (delta := self.take()) is None:
            await self.news()
            if self.closed:
                raise StopAsyncIteration
        return delta

    def news(self) -> Deferred[None]:
        """Fire as soon as ``take`` has something, the position is due to be told, or it ends."""
        if self._concerned:
            return succeed(None)

        def cancelled(_: Deferred[None]) -> None:
            self._news = None

        self._news = Deferred(cancelled)
        return self._news

    def take(self) -> Delta | None:
        """
        Return what has changed since the last time, whatever that is by now; None: nothing.

        Raises what has ended the watch.
        """
        if self.failure is not None:
            self.failure.raiseException()
        self.idle = self.overdue = False
        view = self.view
        if view is None or not view.ready or view.valid_to < self.position:
            return None
        if view.content is self.content:
            self.position = view.valid_to
            return None
        delta = view.delta(self.content)
        self.content = view.content
        self.position = max(self.position, view.seq)
        return delta

    def close(self) -> None:
        """End it: who waits is let go."""
        if not self.closed:
            self.closed = True
            self._left(self)
            self.wake()

    def fail(self, failure: Failure) -> None:
        """End it with an error, for whoever takes next."""
        self.failure = failure
        self._left(self)
        self.wake()

    def wake(self) -> None:
        """Let go who waits, if there is a reason."""
        if self._news is not None and self._concerned:
            news, self._news = self._news, None
            news.callback(None)

    def start(self, view: View) -> None:
        """Begin with what the view shows, as if it had been given already."""
        self.content, self.position = view.content, view.valid_to

    @property
    def _concerned(self) -> bool:
        """Whether there is a reason to let go who waits."""
        return bool(self.closed or self.failure or self.overdue or self._ahead)

    @property
    def _ahead(self) -> bool:
        """Whether the view shows something else than the reader has been given."""
        view = self.view
        return (
            view is not None
            and view.ready
            and view.content is not self.content
            and view.valid_to >= self.position
        )
