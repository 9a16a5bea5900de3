"""
The in-process bus: everybody who wants it hears of every committed event.

What it promises:

- Order: every listener hears events in the order in which they were published, each once,
  even if several of its patterns or several keys of the event match. For one event,
  listeners are called in the order in which they came.
- Delivery is never re-entrant: what is published by a listener is delivered after everything that
  was published before, and ``publish`` returns to it at once.
- Listeners may come and go at any moment, also while an event is delivered. One that comes hears
  exactly the events after ``last_seq``; one that is closed hears nothing more.
- A listener that fails is logged; it stays, and nobody else notices.
- Who does not match costs nothing, and slash keys are not looked at while nobody listens to one.

Everything here runs on the reactor's thread, and nothing waits for a listener. Who can't
keep pace subscribes: a stream is bounded, goes back to the event log when it was too slow, and can
begin at any position of it. A thousand streams that have something to take are told so in slices,
and between these the reactor does other work.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Coroutine, Iterable, Sequence
from itertools import count
from typing import Any

from twisted.internet.defer import Deferred, execute
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure

from buildapi.errors import BadArgument, BadQuery, Stopping
from buildapi.mq.buffer import Bounds, Room, Slow
from buildapi.mq.event import Event
from buildapi.mq.history import Extent, History, replaced
from buildapi.mq.listener import Consumer, Listener
from buildapi.mq.rest import Rest
from buildapi.mq.stream import Stream
from buildapi.mq.topic import (
    MAX_ELEMENTS,
    Pattern,
    parse_key_pattern,
    parse_pattern,
    parse_routing_key,
    split_key,
    split_topic,
)
from buildapi.mq.trie import Place, Trie

# Audiences that are remembered, their listeners included: a few megabytes.
MOST_REMEMBERED = 50_000
# Topics whose audience is remembered.
MOST_RECENT = 1_000

# Where an event's topic led to, and each of its keys.
_Matched = tuple[tuple[Place[Listener], ...], ...]
# Who hears of it, in the order in which they came; None: by the topic, else by which of the keys.
_Audience = tuple[tuple[Listener, int | None], ...]
_UNKNOWN: tuple[tuple[str, ...], _Audience | None] = ((), None)

_log = Logger()


class Bus:
    """
    Publish events, and hear of them.

    Counters since the start: ``published`` events, ``delivered`` calls of listeners, and how many
    of these ``failed``.  ``history``: the event log, if there is one to go back to.
    clock: gives the time, if many are to be told only as often as leaves time for other work.
    """

    def __init__(
        self,
        last_seq: int = 0,
        history: History | None = None,
        clock: IReactorTime | None = None,
    ) -> None:
        self.history = history
        self.published = 0
        self.delivered = 0
        self.failed = 0
        self._last_seq = last_seq
        self._topics: Trie[Listener] = Trie()
        self._keys: Trie[Listener] = Trie()
        self._listeners: set[Listener] = set()
        self._streams: set[Stream] = set()
        # Good until somebody comes or goes: by topic, and by what the names led to.
        self._recent: dict[str, tuple[tuple[str, ...], _Audience | None]] = {}
        self._audiences: dict[_Matched, _Audience] = {}
        self._remembered = 0
        # Of streams that have ended.
        self._past_dropped = self._past_gaps = 0
        self._afterwards: deque[Callable[[], None]] = deque()
        self._rest = Rest(clock, self._work)
        self._numbers = count()
        self._pending: deque[Event] = deque()
        self._delivering = False
        self._closed = False

    @property
    def last_seq(self) -> int:
        """Position of the newest event delivered; whoever comes now hears those after it."""
        return self._last_seq

    @property
    def listeners(self) -> int:
        """Number of listeners, subscriptions and consumers included."""
        return len(self._listeners)

    @property
    def streams(self) -> frozenset[Stream]:
        """The open streams: their ``depth`` tells who is slow."""
        return frozenset(self._streams)

    @property
    def dropped(self) -> int:
        """Number of events that did not fit into the buffer of a stream, since the start."""
        return self._past_dropped + sum(stream.dropped for stream in self._streams)

    @property
    def gaps(self) -> int:
        """Number of gaps that streams have told of, since the start."""
        return self._past_gaps + sum(stream.gaps for stream in self._streams)

    def begin_after(self, seq: int) -> None:
        """Say where the event log ends at start, before anybody subscribes; never moves back."""
        self._last_seq = max(self._last_seq, seq)

    def begin_anew(self, extent: Extent) -> None:
        """
        Go over to another log: streams whose positions are of the old one end with Gone.

        What the other log has already is told from now on, if it is all above the old positions.
        """
        known = self._last_seq
        self._last_seq = extent.oldest - 1 if extent.oldest > known else extent.newest
        for stream in self.streams:
            if not known < stream.position <= extent.newest:
                stream.refuse(replaced(stream.position, extent))

    def publish(self, events: Sequence[Event]) -> None:
        """
        Deliver events, which must be in the order of their ``seq``, to all who match.

        On the reactor's thread. Never raises because of a listener.
        """
        self._pending.extend(events)
        if not self._delivering:
            self._work()

    def _work(self) -> None:
        self._delivering = True
        try:
            self._deliver_pending()
            if self._afterwards and (self._closed or self._rest.is_over()):
                self._call_all()
        finally:
            self._delivering = False

    def _deliver_pending(self) -> None:
        while self._pending:
            self._deliver(self._pending.popleft())

    def _call_all(self) -> None:
        """Call who waits for the end of publishing: some now, the others in the next turns."""
        while self._afterwards:
            if not self._closed and self._rest.pauses():
                return
            self._call_afterwards(self._afterwards.popleft())
            self._deliver_pending()
        self._rest.begin()

    def soon(self, callback: Callable[[], None]) -> None:
        """
        Call back once all that is being published has been; at once, if nothing is.

        When many are called so, some wait for other turns of the reactor, or all of them for some
        milliseconds, and find more then.
        """
        if self._delivering:
            self._afterwards.append(callback)
        else:
            self._call_afterwards(callback)

    def _call_afterwards(self, callback: Callable[[], None]) -> None:
        try:
            callback()
        except Exception:  # noqa: BLE001  whatever it is, the others come next
            self.failed += 1
            _log.failure("{callback} failed after events", callback=callback)

    def listen(
        self, patterns: str | Iterable[str], callback: Callable[[Event], object]
    ) -> Listener:
        """
        Call ``callback(event)`` for every event whose topic matches one of the patterns.

        A callback may be ``async`` or return a Deferred: nobody waits for it, but what it raises is
        logged. Raises BadQuery for a bad topic pattern, or none; Stopping after close().
        """
        return self._join(
            self._topics,
            {parse_pattern(text) for text in _listed(patterns)},
            callback,
            callback,
        )

    def listen_keys(
        self, patterns: str | Iterable[str], callback: Callable[[str, Event], object]
    ) -> Listener:
        """
        Call ``callback(key, event)`` for every event that has a slash key which matches.

        ``key`` is the first of the event's keys that does. Otherwise like ``listen``, save that
        no text is a bad slash pattern.
        """
        parsed = {parse_key_pattern(text) for text in _listed(patterns)}
        return self._join(self._keys, parsed, callback, callback)

    def subscribe(
        self,
        patterns: str | Iterable[str],
        since: int | None = None,
        consumer: str | None = None,
        *,
        log: str | None = None,
        slow: Slow = Slow.RESUME,
        bounds: Bounds = Bounds(),  # noqa: B008  it is frozen
        room: Room | None = None,
        sees: Callable[[Event], bool] = lambda _: True,
    ) -> Stream:
        """
        Return an async iterator of the events whose topic matches: after ``since``, or from now on.

        since: a position; the reader has everything up to it.  consumer: a name under which the
        position is stored (``ack``): who comes back goes on there, whatever ``since`` says.
        log: the identity of the log that the position is of.  slow: what happens when more waits
        than ``bounds``.  room: instead of them, what may wait for a client that has other buffers,
        too.  sees: asked for each event, when it is told, whether it may be.

        Delivery: in order, at least once; an event whose ``seq`` is not above the last one has been
        told before.  Events that are not coming are told by Missed, once, and the next call goes on
        behind them.  Raises like ``listen``, BadArgument if ``since`` is no position.
        """
        texts = _listed(patterns)
        if since is not None and (type(since) is not int or since < 0):
            raise BadArgument(f"since: a position is an integer, 0 or more, not {since!r}")
        stream = Stream(
            self,
            self.history,
            texts,
            [parse_pattern(text) for text in texts],
            since,
            consumer=consumer,
            log=log,
            slow=slow,
            room=room or Room(bounds),
            sees=sees,
            ended=self._left,
        )
        self._streams.add(stream)
        return stream

    def startConsuming(
        self,
        callback: Callable[[tuple[str, ...], dict[str, Any]], object],
        routing_key: Sequence[str | None],
    ) -> Deferred[Consumer]:
        """
        Call ``callback(key, message)`` for events whose slash key matches, as masters' code does.

        routing_key: the key's elements, None for any, as in ``("builds", None, "new")``.
        ``key`` is a tuple of the same length, without None; ``message`` is the body, shared by all
        consumers, who must not change it. A callback may be ``async`` or return a Deferred.
        Fires at once; fails with BadArgument for what is no routing key, Stopping after close().
        """

        def hear(key: str, event: Event) -> object:
            return callback(tuple(split_key(key)), event.message)

        def start() -> Consumer:
            parsed = {parse_routing_key(routing_key)}
            return Consumer(self._join(self._keys, parsed, callback, hear))

        return execute(start)

    def close(self) -> None:
        """
        End all subscriptions and listeners, and take no new ones.

        Subscribers can still read what is buffered; then their iteration ends.
        """
        self._closed = True
        self._rest.cancel()
        if not self._delivering:
            self._work()
        for stream in self.streams:
            stream.end()
        for listener in tuple(self._listeners):
            listener.close()

    def _left(self, stream: Stream) -> None:
        self._streams.discard(stream)
        self._past_dropped += stream.dropped
        self._past_gaps += stream.gaps

    def _join(
        self,
        trie: Trie[Listener],
        patterns: set[Pattern],
        consumer: Callable[..., object],
        hear: Callable[..., object],
    ) -> Listener:
        if self._closed:
            raise Stopping("the bus is closed, and no more events will come")
        # A client may send any text; no key is so long, and an index of such patterns would be big.
        patterns = {pattern for pattern in patterns if len(pattern) <= MAX_ELEMENTS}

        def leave(listener: Listener) -> None:
            self._listeners.remove(listener)
            for pattern in patterns:
                trie.remove(pattern, listener)
            self._forget_audiences()

        listener = Listener(next(self._numbers), consumer, hear, leave)
        self._listeners.add(listener)
        for pattern in patterns:
            trie.add(pattern, listener)
        self._forget_audiences()
        return listener

    def _deliver(self, event: Event) -> None:
        self._last_seq = event.seq or self._last_seq
        self.published += 1
        for listener, at in self._audience(event):
            if listener.closed:
                continue
            self.delivered += 1
            try:
                result = (
                    listener.hear(event) if at is None else listener.hear(event.keys[at], event)
                )
            except Exception:  # noqa: BLE001  whatever it is, the other listeners come next
                self._report(None, listener, event)
            else:
                if result is not None:
                    self._watch(result, listener, event)

    def _audience(self, event: Event) -> _Audience:
        """Who is to hear of the event."""
        # The next line of a log has the names of the one before.
        keys, audience = self._recent.get(event.topic, _UNKNOWN)
        if audience is None or keys != event.keys:
            audience = self._audience_by_names(event)
            if len(self._recent) >= MOST_RECENT:
                self._recent.clear()
            self._recent[event.topic] = (event.keys, audience)
        return audience

    def _audience_by_names(self, event: Event) -> _Audience:
        places = [self._topics.places(split_topic(event.topic))]
        if self._keys.pairs:
            find = self._keys.places
            for key in event.keys:
                places.append(find(split_key(key)))  # noqa: PERF401  here a loop is quicker
        # Where a name leads to, most others lead too: as many as there are patterns, not topics.
        matched = tuple(places)
        audience = self._audiences.get(matched)
        if audience is None:
            audience = self._audiences[matched] = _listeners(matched)
            self._remembered += 1 + len(audience)
            if self._remembered > MOST_REMEMBERED:
                self._forget_audiences()
        return audience

    def _forget_audiences(self) -> None:
        self._recent.clear()
        self._audiences.clear()
        self._remembered = 0

    def _watch(self, result: object, listener: Listener, event: Event) -> None:
        """Log what goes wrong later."""
        if isinstance(result, Coroutine):
            result = Deferred.fromCoroutine(result)
        if isinstance(result, Deferred):
            result.addErrback(self._report, listener, event)

    def _report(self, failure: Failure | None, listener: Listener, event: Event) -> None:
        """Log a failure; None is the exception that is being handled."""
        self.failed += 1
        _log.failure(
            "{consumer} failed on event {seq}, {topic}",
            failure,
            consumer=listener.consumer,
            seq=event.seq,
            topic=event.topic,
        )


def _listeners(matched: _Matched) -> _Audience:
    """Return who stands where an event's topic and its keys led to, each with its first name."""
    topic, *keys = matched
    names: dict[Listener, int | None] = {}
    for place in topic:
        names |= dict.fromkeys(place.values)
    for at, places in enumerate(keys):
        for place in places:
            for listener in place.values:
                names.setdefault(listener, at)
    return tuple(sorted(names.items(), key=_arrival))


def _arrival(entry: tuple[Listener, int | None]) -> int:
    return entry[0].number


def _listed(patterns: str | Iterable[str]) -> list[str]:
    """Take a single pattern for a list of one; its characters are never meant."""
    listed = [patterns] if isinstance(patterns, str) else list(patterns)
    if not listed:
        raise BadQuery("at least one pattern is needed")
    return listed
