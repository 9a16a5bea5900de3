"""
One answer with events: what the log has after a position, or what comes while somebody waits.

    {"events": [{"seq": 81235, …}, …],
     "meta": {"seq": 81240, "oldest": 1, "newest": 90110, "more": true}}

``meta.seq`` is the position to pass next.  An answer looks at no more than so many events of the
log: it may have none of them and still lead on.
"""

from __future__ import annotations

import orjson
from twisted.internet.defer import Deferred

from buildapi.errors import Gone
from buildapi.mq.event import Event
from buildapi.mq.history import Extent
from buildapi.mq.stream import Gap, Stream
from buildapi.settings import Limits


class EventPage:
    """
    Gathers the events of one answer from a stream.

    extent: what the log has.  limit: most events.  forgetful: what has been forgotten is left out
    without a word, as nobody said from where to go on.
    """

    def __init__(
        self, stream: Stream, extent: Extent, limit: int, limits: Limits, *, forgetful: bool
    ) -> None:
        self._stream = stream
        self._extent = extent
        self._limit = min(limit, limits.events)
        self._last = stream.position + limits.events
        self._room = limits.subscription_bytes
        self._forgetful = forgetful
        self._events: list[Event] = []
        # Where the next answer goes on, if this one stops before all that it has looked at.
        self._cut: int | None = None
        self._over = False
        self._bell: Deferred[None] | None = None
        stream.ready = self._ring

    @property
    def seq(self) -> int:
        """The position to go on from."""
        return self._stream.bookmark if self._cut is None else self._cut

    @property
    def waits(self) -> bool:
        """Whether there is nothing to answer yet."""
        return not (self._events or self._more)

    async def gather(self) -> None:
        """
        Take what there is.

        Fails with Gone if the first of what was asked for has been forgotten.
        """
        stream = self._stream
        while self._has_room:
            behind = stream.is_behind
            items = await stream.catch_up() if behind else stream.take(self._room)
            if not (items or behind or stream.is_behind):
                return
            for item in items:
                if isinstance(item, Gap):
                    self._miss(item)
                elif isinstance(item, Event):
                    self._add(item)

    async def wait(self) -> None:
        """Take what comes, as soon as there is an event, or at the ``end``."""
        while self.waits and not self._over:
            self._bell = Deferred()
            await self._bell
            await self.gather()

    def end(self) -> None:
        """Wait no longer."""
        self._over = True
        self._ring()

    def body(self, newest: int) -> bytes:
        """Return the answer.  newest: the newest position that was published."""
        extent = self._extent
        meta = {
            "seq": self.seq,
            "oldest": extent.oldest,
            "newest": max(newest, extent.newest),
            "more": self._more,
        }
        told = b",".join([event.told for event in self._events])
        return b'{"events":[%b],"meta":%b}' % (told, orjson.dumps(meta))

    @property
    def _has_room(self) -> bool:
        if self._cut is not None or self._stream.closed:
            return False
        return (
            len(self._events) < self._limit
            and self._room > 0
            and self._stream.position < self._last
        )

    @property
    def _more(self) -> bool:
        return self._cut is not None or self._stream.is_behind or self._stream.depth > 0

    def _add(self, event: Event) -> None:
        if len(self._events) < self._limit:
            self._events.append(event)
            self._room -= len(event.body)
        elif self._cut is None:
            self._cut = self._events[-1].seq

    def _miss(self, gap: Gap) -> None:
        if self._forgetful:
            return
        if self._events:
            # The next answer says it.
            self._cut = self._events[-1].seq
            return
        extent = self._extent._replace(oldest=gap.last + 1)
        raise Gone(
            f"events {gap.first} to {gap.last} have been forgotten: the log begins with"
            f" {extent.oldest}; read what is now, and go on from its X-Seq",
            *extent,
        )

    def _ring(self) -> None:
        bell, self._bell = self._bell, None
        if bell is not None:
            bell.callback(None)
