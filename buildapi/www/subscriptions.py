"""
``GET /api/v2/subscriptions``: who listens, and who does not keep up.

    {"subscriptions": [{"road": "websocket", "client": "10.0.0.7", "kind": "subscription", "sub": 7,
                        "topics": ["build.#"], "consumer": null, "position": 81200, "lag": 35,
                        "depth": 35, "bytes": 9120, "told": 1200, "dropped": 0, "gaps": 0}, ...],
     "meta": {"total": 1, "newest": 81235, "oldest": 1, "published": 4711, "last_minute": 240}}

The roads are websocket, eventstream, longpoll, and process for who subscribes in the same one.
``lag`` is how far the position is behind the newest event.  ``depth`` and ``bytes`` wait for the
reader; of the consumers on a connection, which have no position, they are the connection's.
``published`` counts events since the start, ``last_minute`` those that were stored in the last 60
seconds.  Who may not read the audit may not read this.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import orjson
import sqlalchemy as sa
from twisted.internet.defer import Deferred
from twisted.web.server import NOT_DONE_YET

from buildapi.data.api import DataAPI
from buildapi.data.gate import ANONYMOUS, Action, Scope
from buildapi.db import eventlog
from buildapi.db.connect import Reader
from buildapi.db.tables import buildapi_events
from buildapi.errors import Forbidden, Unavailable
from buildapi.mq.bus import Bus
from buildapi.mq.stream import Stream
from buildapi.www import envelope
from buildapi.www.connection import Sockets
from buildapi.www.outbox import Outbox
from buildapi.www.pump import Pump
from buildapi.www.replies import refused_with, until_gone
from buildapi.www.sse import Listen

PATH = b"subscriptions"

MINUTE_S = 60
# Of a busier log than that the last minute is not counted to its end.
_MOST_COUNTED = 100_000

_LAST_MINUTE = (
    sa.select(sa.func.count())
    .select_from(buildapi_events)
    .where(
        buildapi_events.c.seq > sa.bindparam("above"), buildapi_events.c.at > sa.bindparam("since")
    )
)

Entry = dict[str, Any]


class Subscriptions:
    """Answers with what is subscribed.  is_own: says whether no page of another site asks."""

    def __init__(
        self,
        data: DataAPI,
        bus: Bus,
        sockets: Sockets,
        listen: Listen,
        is_own: Callable[[Any], bool],
    ) -> None:
        self._data = data
        self._bus = bus
        self._sockets = sockets
        self._listen = listen
        self._is_own = is_own

    def render(self, request: Any) -> int:
        """Answer a GET or HEAD."""
        request.route = PATH.decode()
        answering = Deferred.fromCoroutine(self._answer(request))
        gone = until_gone(request, answering)

        def send(body: bytes) -> None:
            if not gone():
                request.setHeader(b"content-length", b"%d" % len(body))
                request.write(body)
                request.finish()

        answering.addErrback(refused_with, request).addCallback(send)
        return NOT_DONE_YET

    async def _answer(self, request: Any) -> bytes:
        refused = self._data.gate.refusal(ANONYMOUS, Action.METRICS, Scope("subscriptions"))
        if refused is not None:
            raise Forbidden(refused)
        if not self._is_own(request):
            raise Forbidden("invalid origin")
        newest = self._bus.last_seq
        entries = [*self._entries(newest)]
        try:
            oldest, last_minute = await self._stored(newest)
        except Unavailable:
            oldest = last_minute = None
        request.setHeader(b"content-type", envelope.JSON)
        meta = {
            "total": len(entries),
            "newest": newest,
            "oldest": oldest,
            "published": self._bus.published,
            "last_minute": last_minute,
        }
        return orjson.dumps({"subscriptions": entries, "meta": meta})

    async def _stored(self, newest: int) -> tuple[int | None, int | None]:
        database = self._data.database
        if database.identity is None:
            return None, None
        bounds = {"above": newest - _MOST_COUNTED, "since": database.seconds() - MINUTE_S}

        def read(reader: Reader) -> tuple[int, int]:
            return eventlog.oldest(reader), reader.rows(_LAST_MINUTE, bounds)[0][0]

        return await database.read(read)

    def _entries(self, newest: int) -> Iterator[Entry]:
        others = set(self._bus.streams)
        for socket in self._sockets.open:
            client = socket.client
            if client is None:
                continue
            road = {"road": "websocket", "client": socket.transport.getPeer().host}
            if client.paths:
                yield _consumers(road, client.paths, socket.outbox)
            for stream in client.streams:
                if isinstance(stream, Pump):
                    others.discard(stream.stream)
                    yield _stream(road, stream.sub, stream.stream, newest)
                else:
                    yield {**road, "kind": stream.kind, "sub": stream.sub}
        for ears in self._listen.ears.values():
            assert ears.stream is not None  # noqa: S101  it is listed once it has begun
            road = {"road": "eventstream", "client": ears.stream.client}
            yield _consumers(road, ears.paths, ears.stream.outbox)
        for one in others:
            yield _stream({"road": one.road, "client": one.client}, None, one, newest)


def _stream(road: Entry, sub: int | str | None, stream: Stream, newest: int) -> Entry:
    return {
        **road,
        "kind": "subscription",
        "sub": sub,
        "topics": stream.patterns,
        "consumer": stream.consumer,
        "position": stream.bookmark,
        "lag": max(0, newest - stream.bookmark),
        "depth": stream.depth,
        "bytes": stream.waiting_bytes,
        "told": stream.told,
        "dropped": stream.dropped,
        "gaps": stream.gaps,
    }


def _consumers(road: Entry, paths: list[str], outbox: Outbox) -> Entry:
    return {
        **road,
        "kind": "consumer",
        "topics": paths,
        "depth": outbox.depth,
        "bytes": outbox.waiting_bytes,
    }
