"""
Watching a query over a WebSocket: its rows, and then how they change.

    {"cmd": "watch", "path": "builds?builderid=3&complete=false&order=-buildid&limit=20", "_id": 1}

    {"msg": "OK", "code": 200, "_id": 1, "seq": 81234, "rows": […], "ids": […], "meta": {…}}
    {"sub": 1, "seq": 81240, "enter": [[17, {…}]], "update": [[16, {…}]], "leave": [9],
     "order": [17, 16, 12], "meta": {"total": 34}}
    {"sub": 1, "bookmark": 81299}

The client leaves out the rows that leave, puts new ones in the place of those that were updated,
and what enters at the end; with ``order`` it then puts all of them in that order, and with ``meta``
takes the new one. What it has is what the same GET answers at ``seq``.

``slow`` says what is done for a client that reads slowly: ``resume`` and ``latest`` make one
difference of all that came meanwhile, as soon as it reads; ``close`` sends every one until the
socket's buffer is full, and then closes it with code 4008.
"""

from __future__ import annotations

from typing import Any

import orjson
from twisted.internet.defer import CancelledError, Deferred

from buildapi.data.gate import Identity
from buildapi.data.watch import Watch
from buildapi.data.watches import Watches
from buildapi.errors import Conflict
from buildapi.mq.buffer import Slow
from buildapi.www.logstream import Sink


class WatchStream:
    """One watch of one socket; sub: the client's name for it."""

    kind = "watch"

    def __init__(  # all that a watch is about
        self,
        watches: Watches,
        identity: Identity,
        sink: Sink,
        sub: int | str,
        path: str,
        slow: Slow,
    ) -> None:
        self.sub = sub
        self._sink = sink
        self._waits = slow is not Slow.CLOSE
        self._opening = Deferred.fromCoroutine(watches.watch(path, identity))
        self._watch: Watch | None = None

    async def found(self) -> dict[str, Any]:
        """Return what the reply has: the rows and their position.  Raises as a GET would."""
        try:
            self._watch = watch = await self._opening
        except CancelledError:
            raise Conflict("the watch was ended before it began") from None
        rows = watch.content.rows
        return {
            "seq": watch.position,
            "rows": [orjson.Fragment(row) for row in rows.values()],
            "ids": list(rows),
            "meta": watch.content.meta,
        }

    def begin(self) -> Deferred[None]:
        """Send what changes; fire after ``stop``, or fail with what ends the watch."""
        return Deferred.fromCoroutine(self._streamed())

    def stop(self) -> None:
        """Send nothing more."""
        self._opening.cancel()
        if self._watch is not None:
            self._watch.close()

    async def _streamed(self) -> None:
        watch = self._watch
        assert watch is not None  # noqa: S101  it has been found
        while not watch.closed:
            await watch.news()
            if self._waits:
                async with self._sink.turn():
                    self._tell(watch)
            else:
                self._tell(watch)

    def _tell(self, watch: Watch) -> None:
        if watch.closed:
            return
        delta = watch.take()
        if delta is None:
            self._sink.send({"sub": self.sub, "bookmark": watch.position})
        else:
            self._sink.send({"sub": self.sub, "seq": watch.position, **delta.members})
