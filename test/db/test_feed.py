"""A process that only reads hears of what another one writes."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.task import Clock

from buildapi.db.feed import Feed
from buildapi.db.groupcommit import Committed
from buildapi.db.upkeep import GENERATION, new_log
from buildapi.errors import Gone, Missed, Unavailable
from buildapi.mq.bus import Bus
from buildapi.mq.event import Event
from buildapi.mq.history import Extent, Replay
from buildapi.mq.stream import Gap
from buildapi.service import BuildAPI
from buildapi.settings import Database, Events, Settings
from buildapi.testing import (
    NOON,
    EventSource,
    RecordingSubscriber,
    WebClient,
    WebSocketClient,
    Wire,
    a_build,
    a_log,
    a_step,
    in_memory_api,
    result_of,
)
from buildapi.testing.memory import DATABASE

EVENTS = "/api/v2/events"
READ_ONLY = Settings(database=Database(read_only=True), events=Events(poll_interval_s=2))


@pytest.fixture
def writer(system: str, tmp_path: Path) -> Iterator[BuildAPI]:
    """Return a service whose database others can open, too."""
    token = DATABASE.set(f"sqlite:///{tmp_path}/shared.sqlite") if system == "sqlite" else None
    api = in_memory_api()
    yield api
    result_of(api.stopService())
    if token is not None:
        DATABASE.reset(token)


@pytest.fixture
def reader(writer: BuildAPI) -> Iterator[BuildAPI]:
    """Return a service that reads what the other one writes."""
    result_of(a_build(writer))
    api = in_memory_api(READ_ONLY, master=None)
    yield api
    stopping = api.stopService()
    # Its clients don't answer the closing of their sockets.
    api.reactor.pump([5.0] * 4)
    result_of(stopping)


def look(reader: BuildAPI) -> None:
    """Let the time pass after which the log is looked at."""
    reader.reactor.advance(2)


def written(writer: BuildAPI, after: int = 0) -> list[Any]:
    """Return what was written, as it is told."""
    assert writer.mq.history is not None
    events = result_of(writer.mq.history.replayed(after, 1000)).events
    return [json.loads(event.told) for event in events]


def test_all_roads_tell_what_another_process_writes(writer: BuildAPI, reader: BuildAPI) -> None:
    """From a position, or from now on; each event once, in order."""
    position = writer.mq.last_seq
    ws, source = WebSocketClient(Wire(reader)), EventSource(Wire(reader), EVENTS)
    assert ws.ask("hello")["seq"] == position
    ws.send({"cmd": "subscribe", "_id": 1, "topic": "#", "since": 0})
    polling = WebClient(reader).fetch("GET", f"{EVENTS}?after={position}&wait=25")
    in_process = RecordingSubscriber(reader)
    for _ in range(2):
        result_of(a_step(writer))
        look(reader)
    reader.reactor.advance(0)

    everything, new = written(writer), written(writer, position)
    assert len(new) > 2
    assert [f["seq"] for f in ws.sync() if "seq" in f and "sub" in f] == [
        event["seq"] for event in everything
    ]
    assert [block.data for block in source.read()] == [{"synced": position}, *new]
    polled = result_of(polling).json()["events"]
    assert polled
    assert polled == new[: len(polled)]
    assert [json.loads(event.told) for event in in_process.events] == new


def test_a_position_of_an_answer_is_one_of_the_log(writer: BuildAPI, reader: BuildAPI) -> None:
    """Also if the answer has more than this process has heard of."""
    result_of(a_step(writer))
    answer = WebClient(reader).get("/api/v2/builds")
    since, log = answer.headers["x-seq"], answer.headers["x-event-log"]
    source = EventSource(Wire(reader), f"{EVENTS}?since={since}&log={log}")
    result_of(a_step(writer))
    look(reader)

    told = [block.data["seq"] for block in source.read() if block.kind == "event"]
    assert told == list(range(int(since) + 1, writer.mq.last_seq + 1))


def test_a_log_that_another_process_writes_can_be_followed(
    writer: BuildAPI, reader: BuildAPI
) -> None:
    """Its followers wake up as at home."""
    logid = result_of(a_log(writer, "one\n"))
    ws = WebSocketClient(Wire(reader))
    assert ws.ask("followLog", logid=logid)["code"] == 200
    result_of(writer.data.updates.appendLog(logid, "two\n"))
    result_of(writer.data.updates.finishLog(logid))
    look(reader)
    reader.reactor.pump([0.1] * 10)

    frames = ws.sync()
    assert "".join(frame.get("content", "") for frame in frames) == "one\ntwo\n"
    assert frames[-1]["end"]["complete"]


def test_what_another_process_changes_can_be_watched(writer: BuildAPI, reader: BuildAPI) -> None:
    """Each difference makes of the rows what a GET answers now."""
    ws = WebSocketClient(Wire(reader))
    ws.send({"cmd": "watch", "_id": 1, "path": "builds?field=buildid&field=state_string"})
    (row,) = ws.sync().pop(0)["rows"]
    result_of(writer.data.updates.setBuildStateString(1, "busy"))
    look(reader)

    assert row["buildid"] == 1
    updates = [frame["update"] for frame in ws.sync() if frame.get("update")]
    assert updates == [[[1, {"buildid": 1, "state_string": "busy"}]]]


@pytest.fixture
def begun_anew(writer: BuildAPI, reader: BuildAPI) -> Callable[[], BuildAPI]:
    """Return what stops the writer, has the log begin anew, and starts another writer."""

    def begin() -> BuildAPI:
        assert reader.database.identity == writer.database.identity
        result_of(writer.stopService())
        new_log(Database(url=DATABASE.get()))
        return in_memory_api()

    return begin


def test_whoever_listens_is_told_that_the_log_was_replaced(
    reader: BuildAPI, begun_anew: Callable[[], BuildAPI]
) -> None:
    """Each road says so in its way, and none tells an event of the new log for one of the old."""
    ws, source = WebSocketClient(Wire(reader)), EventSource(Wire(reader), EVENTS)
    ws.send({"cmd": "subscribe", "_id": 1, "topic": "#"})
    ws.send({"cmd": "watch", "_id": 2, "path": "builds"})
    position = ws.sync()[0]["seq"]
    polling = WebClient(reader).fetch("GET", f"{EVENTS}?after={position}&wait=25")
    in_process = reader.mq.subscribe("#")
    coming = Deferred.fromCoroutine(anext(in_process))
    writer = begun_anew()
    result_of(a_build(writer))
    look(reader)
    reader.reactor.advance(0)

    told = [frame for frame in ws.sync() if "sub" in frame and "synced" not in frame]
    assert [(frame["sub"], frame["code"]) for frame in told] == [(1, 410), (2, 410)]
    assert [block.kind for block in source.read()] == ["synced"]
    assert source.connection.closed
    polled = result_of(polling)
    assert (polled.status, polled.json()["log"]) == (410, writer.database.identity)
    with pytest.raises(Gone, match="replaced"):
        result_of(coming)
    result_of(writer.stopService())


def test_what_is_read_after_that_leads_on_in_the_new_log(
    reader: BuildAPI, begun_anew: Callable[[], BuildAPI]
) -> None:
    """The names that streams had are free; answers tell the new identity, and positions of it."""
    ws = WebSocketClient(Wire(reader))
    ws.send({"cmd": "subscribe", "_id": 1, "topic": "#"})
    writer = begun_anew()
    look(reader)
    answer = WebClient(reader).get("/api/v2/builds")
    since, log = int(answer.headers["x-seq"]), answer.headers["x-event-log"]
    ws.sync().clear()
    ws.send({"cmd": "subscribe", "_id": 1, "topic": "build.#", "since": since, "log": log})
    ws.send({"cmd": "watch", "_id": 2, "path": "builds?field=buildid"})
    result_of(a_build(writer))
    look(reader)
    reader.reactor.advance(0)

    assert (since, log) == (GENERATION, writer.database.identity)
    frames = ws.sync()
    assert [frame["code"] for frame in frames if "code" in frame] == [200, 200]
    new = [event["seq"] for event in written(writer, since) if event["topic"].startswith("build.")]
    assert new
    assert [one["seq"] for one in frames if one.get("sub") == 1 and "topic" in one] == new
    assert [[i for i, _ in one["enter"]] for one in frames if one.get("enter")] == [[2]]
    result_of(writer.stopService())


def test_who_comes_with_a_position_of_the_new_log_goes_on(
    reader: BuildAPI, begun_anew: Callable[[], BuildAPI]
) -> None:
    """Though the process has not looked at the log since it was replaced."""
    ws = WebSocketClient(Wire(reader))
    ws.send({"cmd": "subscribe", "_id": 1, "topic": "#"})
    writer = begun_anew()
    result_of(a_build(writer))
    hello = ws.ask("hello")
    ws.send(
        {"cmd": "subscribe", "_id": 2, "topic": "#", "since": hello["seq"], "log": hello["log"]}
    )
    result_of(a_step(writer))
    look(reader)
    reader.reactor.advance(0)

    frames = ws.sync()
    assert [one["seq"] for one in frames if one.get("sub") == 2 and "topic" in one] == [
        event["seq"] for event in written(writer, hello["seq"])
    ]
    assert [one["code"] for one in frames if one.get("sub") == 1 and "error" in one] == [410]
    result_of(writer.stopService())


def test_who_comes_late_begins_at_the_end(writer: BuildAPI, reader: BuildAPI) -> None:
    """What came while nobody listened is not told as if it were new."""
    result_of(a_step(writer))
    look(reader)
    recorded = RecordingSubscriber(reader)
    look(reader)
    assert recorded.events == []

    result_of(a_step(writer))
    look(reader)
    assert recorded.events


def test_it_ends_with_the_service(reader: BuildAPI) -> None:
    """No call is left behind."""
    result_of(reader.stopService())

    assert reader.reactor.getDelayedCalls() == []


def test_the_interval_is_a_setting(writer: BuildAPI, reader: BuildAPI) -> None:
    """Nothing is looked at before."""
    recorded = RecordingSubscriber(reader)
    result_of(a_build(writer))
    reader.reactor.advance(1.9)
    assert recorded.events == []
    reader.reactor.advance(0.1)

    assert recorded.events


class Log:
    """
    An event log in a list.

    ``broken``: how often it cannot be read.  ``before_read``: called before events are.
    """

    def __init__(self, newest: int) -> None:
        self.events = [an_event(seq) for seq in range(1, newest + 1)]
        self.identity = "log"
        self.broken = 0
        self.reads = 0
        self.before_read: Callable[[], None] = lambda: None

    def extent(self) -> Deferred[Extent]:
        """Say what the log has."""
        return succeed(Extent(self.identity, self.events[0].seq, self.events[-1].seq))

    def replayed(self, after: int, most: int) -> Deferred[Replay]:
        """Read from the log."""
        self.reads += 1
        self.before_read()
        if self.broken:
            self.broken -= 1
            return fail(Unavailable("the database is busy"))
        found = [event for event in self.events if event.seq > after][:most]
        if not found:
            return succeed(Replay([], None, after))
        return succeed(Replay(found, found[0].seq, found[-1].seq))

    def consumed(self, consumer: str) -> Deferred[int | None]:
        """Nobody has a name here."""
        raise AssertionError(f"{consumer} has a name")

    def consume(self, consumer: str, seq: int) -> Deferred[None]:
        """Nobody has a name here."""
        raise AssertionError(f"{consumer} has a name, and is at {seq}")


def an_event(seq: int) -> Event:
    """Make an event."""
    return Event(seq, "build.1.new", NOON, (), b"{}")


@pytest.fixture
def clock() -> Clock:
    """Return the time."""
    return Clock()


def fed(log: Log, clock: Clock) -> Bus:
    """Return a bus that hears of what a log gets."""
    bus = Bus(history=log)

    def deliver(committed: Committed) -> None:
        bus.publish(committed.events)

    feed = Feed(log, "log", bus, deliver, lambda _: None, lambda: bus.listeners > 0, 0.5, clock)
    result_of(Deferred.fromCoroutine(feed.start()))
    return bus


def test_events_are_read_only_while_somebody_listens(clock: Clock) -> None:
    """Else the end of the log is all that is looked at."""
    log = Log(3)
    bus = fed(log, clock)
    log.events.append(an_event(4))
    clock.advance(0.5)

    assert (bus.last_seq, log.reads) == (4, 0)


def test_a_busy_database_is_asked_again(clock: Clock) -> None:
    """Nothing is lost by it."""
    log = Log(3)
    bus = fed(log, clock)
    heard: list[int] = []
    bus.listen("#", lambda event: heard.append(event.seq))
    log.broken = 2
    log.events.append(an_event(4))
    clock.pump([0.5, 0.5])
    assert heard == []
    clock.advance(0.5)

    assert heard == [4]


def test_what_was_forgotten_before_it_was_read_is_a_gap(clock: Clock) -> None:
    """Of a process that was asleep for a week, say."""
    log = Log(3)
    bus = fed(log, clock)
    stream = bus.subscribe("#")
    stream.take()
    log.events = [an_event(seq) for seq in range(8, 10)]
    clock.advance(0.5)

    assert result_of(Deferred.fromCoroutine(stream.catch_up())) == [Gap(4, 7, "retention")]
    assert [item.seq for item in stream.take() if isinstance(item, Event)] == [8, 9]


def test_a_reader_in_process_is_told_of_that_gap(clock: Clock) -> None:
    """By Missed, and goes on behind it."""
    log = Log(3)
    bus = fed(log, clock)
    stream = bus.subscribe("#")
    coming = Deferred.fromCoroutine(anext(stream))
    log.events = [an_event(8)]
    clock.advance(0.5)

    with pytest.raises(Missed, match="4 to 7"):
        result_of(coming)
    assert result_of(Deferred.fromCoroutine(anext(stream))).seq == 8


def test_a_log_that_is_replaced_while_it_is_looked_at_is_no_gap(clock: Clock) -> None:
    """What was forgotten is not told of, but that the position is none any more."""
    log = Log(3)
    bus = fed(log, clock)
    heard: list[int] = []
    bus.listen("#", lambda event: heard.append(event.seq))
    stream = bus.subscribe("#")
    coming = Deferred.fromCoroutine(anext(stream))

    def replace() -> None:
        log.identity, log.events = "another", [an_event(1001), an_event(1002)]

    log.before_read = replace
    clock.advance(0.5)

    with pytest.raises(Gone, match="position 3 is of an event log that was replaced"):
        result_of(coming)
    assert heard == [1001, 1002]


def test_a_log_that_has_lost_events_is_another_one(clock: Clock) -> None:
    """A backup was restored, and nobody told the log; nothing of it is told twice, or as new."""
    log = Log(9)
    bus = fed(log, clock)
    heard: list[int] = []
    bus.listen("#", lambda event: heard.append(event.seq))
    stream = bus.subscribe("#")
    log.events = [an_event(seq) for seq in range(1, 6)]
    clock.advance(0.5)
    log.events.append(an_event(6))
    clock.advance(0.5)

    with pytest.raises(Gone):
        stream.take()
    assert heard == [6]
