"""``GET /api/v2/events``: events by position, as a stream of server-sent events or by answers."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest
from twisted.internet.task import Clock

from buildapi.data.gate import Gate, Identity, Restriction
from buildapi.db.tables import buildapi_events
from buildapi.mq.event import Event
from buildapi.service import BuildAPI
from buildapi.settings import Database, Limits, Server, Settings
from buildapi.testing import (
    NOON,
    Answer,
    EventSource,
    WebClient,
    Wire,
    a_build,
    a_step,
    answered,
    in_memory_api,
    result_of,
)
from buildapi.testing.wire import head
from buildapi.www.events import event_block

EVENTS = "/api/v2/events"


class Source(EventSource):
    """A client of the stream."""

    def __init__(
        self, api: BuildAPI, query: str = "", *, slow: bool = False, **headers: str
    ) -> None:
        self.wire = Wire(api)
        self.wire.slow = slow
        given = {name.replace("_", "-"): value for name, value in headers.items()}
        super().__init__(self.wire, f"{EVENTS}{query}", given)

    def heard(self) -> list[Any]:
        """Return the data of what has come; of a comment, None."""
        blocks = self.taken()
        for kind, data in blocks:
            assert (kind == "event") == (data is not None and "seq" in data)
        return [data for _, data in blocks]


def events_of(api: BuildAPI) -> list[Any]:
    """Return all events of the log, as they are told."""
    history = api.mq.history
    assert history is not None
    return [json.loads(event.told) for event in result_of(history.replayed(0, 1000)).events]


def forget(api: BuildAPI, up_to: int) -> None:
    """Forget the events up to a position, as retention does."""
    gone = buildapi_events.delete().where(buildapi_events.c.seq <= up_to)
    result_of(api.database.write(lambda tx: tx.run(gone, {})))


def said(answer: Answer) -> tuple[int, Any]:
    """Return status and JSON of an answer."""
    return answer.status, answer.json()


# As a stream.


def test_a_stream_begins_now_and_is_synced_at_once(api: BuildAPI) -> None:
    """Without a position; its headers say from where."""
    result_of(a_build(api))
    position = api.mq.last_seq
    source = Source(api, "?topic=build.%23")
    result_of(a_step(api))

    new = [e for e in events_of(api) if e["seq"] > position and e["topic"].startswith("build.")]
    assert source.heard() == [{"synced": position}, *new]
    assert f"\r\nx-seq: {position}\r\n" in source.head
    assert f"\r\nx-event-log: {api.database.identity}" in source.head
    assert "\r\ncontent-type: text/event-stream; charset=utf-8\r\n" in source.head
    assert "\r\ncache-control: no-store\r\n" in source.head
    assert "\r\nx-accel-buffering: no" in source.head


def test_a_stream_goes_on_from_a_position(api: BuildAPI) -> None:
    """First what is stored, then what is new, each once for all patterns that match."""
    result_of(a_build(api))
    stored = events_of(api)
    source = Source(api, "?since=2&topic=%23&topic=build.%23")
    result_of(a_step(api))

    everything = events_of(api)
    assert source.heard() == [
        *everything[2 : len(stored)],
        {"synced": len(stored)},
        *everything[len(stored) :],
    ]


def test_a_stream_that_was_cut_goes_on_after_its_last_event(api: BuildAPI) -> None:
    """The browser says which that was, at the same address as before."""
    result_of(a_build(api))
    source = Source(api, "?since=0")
    before = source.heard()
    source.wire.hang_up()
    result_of(a_step(api))
    again = Source(api, "?since=0", Last_Event_ID=source.last_event_id)

    told = [one for one in before + again.heard() if "seq" in one]
    assert told == events_of(api)


def test_forgotten_events_are_a_gap_in_a_stream(api: BuildAPI) -> None:
    """What follows them comes."""
    result_of(a_build(api))
    forget(api, 3)
    source = Source(api, "?since=1")

    gap, *rest = source.heard()
    assert gap == {"gap": {"from": 2, "to": 3, "why": "retention"}}
    assert [one["seq"] for one in rest[:-1]] == list(range(4, api.mq.last_seq + 1))


def test_an_idle_stream_is_alive_and_tells_its_position() -> None:
    """Comments and bookmarks somewhat before they are due; nothing once it is gone."""
    clock = Clock()
    clock.advance(NOON)
    api = in_memory_api(clock=clock)
    timers = len(clock.getDelayedCalls())
    source = Source(api, "?topic=nothing")
    source.heard()
    result_of(a_build(api))
    bookmark = {"bookmark": api.mq.last_seq}
    for _ in range(3):
        clock.advance(14)
        assert source.heard() == [None]
        clock.advance(14)
        assert sorted(source.heard(), key=str) == sorted([None, bookmark], key=str)
    source.wire.hang_up()
    assert len(clock.getDelayedCalls()) == timers


def test_a_client_that_goes_leaves_nothing(api: BuildAPI) -> None:
    """Neither a stream nor its place."""
    source = Source(api, "?since=0")
    source.wire.hang_up()

    assert (api.mq.streams, api.mq.listeners) == (frozenset(), 0)
    assert api.web is not None
    assert (api.web.streams.open, api.web.sockets.admission.total) == (set(), 0)


def test_a_slow_stream_has_everything_in_the_end() -> None:
    """It waits in the log, not in memory, and nobody is cut off."""
    api = in_memory_api(Settings(limits=replace(Limits(), subscription_messages=5)))
    source = Source(api, "?topic=builder.%23")
    source.wire.slow = True
    for number in range(30):
        result_of(api.data.updates.findBuilderId(f"{number} {'x' * 30_000}"))
    (stream,) = api.mq.streams
    assert stream.depth <= 5
    assert source.wire.waiting < 4 * Wire.FULL

    source.wire.slow = False

    told = [one["seq"] for one in source.heard() if "seq" in one]
    assert told == [e["seq"] for e in events_of(api) if e["topic"].startswith("builder.")]


@pytest.mark.parametrize("size", [1_000, 100_000])
def test_what_is_read_from_the_log_cuts_no_slow_stream(size: int) -> None:
    """Though less may wait for a client than is read at a time."""
    api = in_memory_api(Settings(limits=replace(Limits(), subscription_bytes=size)))
    for number in range(30):
        result_of(api.data.updates.findBuilderId(f"{number} {'x' * 30_000}"))
    source = Source(api, "?topic=builder.%23&since=0", slow=True)
    assert source.wire.waiting < 3 * Wire.FULL

    source.wire.slow = False

    told = [one["seq"] for one in source.heard() if one and "seq" in one]
    assert told == [e["seq"] for e in events_of(api) if e["topic"].startswith("builder.")]
    assert api.web is not None
    assert api.web.streams.cut == 0


def test_stored_text_of_several_lines_is_one_line_of_data() -> None:
    """A property may have been written with line breaks by another program."""
    block = event_block(Event(5, "build.1.new", NOON, (), b'{"x":\r\n[1,\n2]}'))

    name, kind, data, *rest = block.split(b"\n")
    assert (name, kind, rest) == (b"id: 5", b"event: event", [b"", b""])
    assert json.loads(data.removeprefix(b"data: "))["m"] == {"x": [1, 2]}


def test_one_client_can_have_so_many_streams() -> None:
    """As of all connections that stay open; who waits for an answer has one, too."""
    api = in_memory_api(Settings(limits=Limits(connections_per_client=1)))
    web, first = WebClient(api), Source(api)
    refused = web.get(EVENTS, {"Accept": "text/event-stream"})
    waiting = web.get(f"{EVENTS}?wait=5&since={api.mq.last_seq}")

    assert (refused.status, waiting.status) == (429, 429)
    assert api.mq.streams == {next(iter(api.mq.streams))}
    first.wire.hang_up()
    assert " 200 " in Source(api).head


def test_streams_end_when_the_server_stops() -> None:
    """As answers end, so that the browser comes back."""
    api = in_memory_api()
    wire = Wire(api)
    accept = {"Host": "127.0.0.1:8010", "Accept": "text/event-stream"}
    wire.send(head(f"GET {EVENTS} HTTP/1.1", accept))
    result_of(api.stopService())

    answer = answered(wire.take())
    assert (answer.status, answer.headers["transfer-encoding"]) == (200, "chunked")
    assert answer.body.startswith(b"id: ")


def test_a_head_request_ends_at_once(api: BuildAPI, web: WebClient) -> None:
    """On both roads, and with all headers."""
    stream = web.request("HEAD", EVENTS, {"Accept": "text/event-stream"})
    page = web.request("HEAD", f"{EVENTS}?wait=60&since={api.mq.last_seq}")

    assert (stream.status, stream.body, stream.headers["x-seq"]) == (200, b"", "1")
    assert (page.status, page.body, page.headers["x-seq"]) == (200, b"", "1")
    assert api.mq.streams == frozenset()


# Answer by answer.


def test_answers_lead_from_one_to_the_next(api: BuildAPI, web: WebClient) -> None:
    """Without a position from the oldest; meta.seq is the position to pass next."""
    result_of(a_build(api))
    told: list[Any] = []
    path, more = f"{EVENTS}?limit=2", True
    while more:
        answer = web.get(path).json()
        assert len(answer["events"]) <= 2
        told += answer["events"]
        meta = answer["meta"]
        assert (meta["oldest"], meta["newest"]) == (1, api.mq.last_seq)
        path, more = f"{EVENTS}?limit=2&after={meta['seq']}", meta["more"]

    assert told == events_of(api)
    assert meta["seq"] == api.mq.last_seq


def test_an_answer_has_only_what_matches_and_leads_behind_the_rest(
    api: BuildAPI, web: WebClient
) -> None:
    """Nobody has to look at the same events again."""
    result_of(a_build(api))
    answer = web.get(f"{EVENTS}?topic=builder.*.new")

    told = [e for e in events_of(api) if e["topic"] == "builder.1.new"]
    assert answer.json()["events"] == told
    assert answer.json()["meta"]["seq"] == api.mq.last_seq
    assert answer.headers["x-seq"] == str(api.mq.last_seq)
    assert answer.headers["content-type"] == "application/json; charset=utf-8"


def test_an_answer_has_no_more_events_than_the_setting_allows() -> None:
    """Whatever limit it is asked for; the next one has more."""
    api = in_memory_api(Settings(limits=replace(Limits(), events=2)))
    result_of(a_build(api))

    answer = WebClient(api).get(f"{EVENTS}?limit=1000").json()
    assert [event["seq"] for event in answer["events"]] == [1, 2]
    assert (answer["meta"]["seq"], answer["meta"]["more"]) == (2, True)


def test_an_answer_looks_at_so_many_events_and_no_more() -> None:
    """One that finds none among them leads on, and does not wait."""
    api = in_memory_api(Settings(limits=replace(Limits(), events=1_000)))
    add = api.data.updates.findBuilderId.within
    result_of(api.data.transaction(lambda tx: [add(tx, f"b{n}") for n in range(1_500)]))
    web = WebClient(api)

    first = web.get(f"{EVENTS}?topic=nothing&wait=60").json()
    assert first["events"] == []
    assert first["meta"]["more"]
    assert 0 < first["meta"]["seq"] < api.mq.last_seq
    second = web.get(f"{EVENTS}?topic=nothing&since={first['meta']['seq']}").json()
    assert (second["meta"]["seq"], second["meta"]["more"]) == (api.mq.last_seq, False)


def test_a_long_poll_is_answered_as_soon_as_something_comes() -> None:
    """And costs no SQL until then."""
    api = in_memory_api()
    web, position = WebClient(api), api.mq.last_seq
    waiting = web.fetch("GET", f"{EVENTS}?after={position}&wait=25&topic=builder.%23")
    api.mq.publish([Event(position + 1, "worker.1.new", NOON, (), b"{}")])
    assert not waiting.called
    api.mq.publish([Event(position + 2, "builder.1.new", NOON, (), b"{}")])
    api.reactor.advance(0)

    answer = result_of(waiting).json()
    assert [event["seq"] for event in answer["events"]] == [position + 2]
    assert answer["meta"] == {
        "seq": position + 2,
        "oldest": 1,
        "newest": position + 2,
        "more": False,
    }
    assert api.mq.streams == frozenset()


def test_a_long_poll_is_answered_in_time_with_nothing() -> None:
    """Its position has moved on."""
    api = in_memory_api()
    web, position = WebClient(api), api.mq.last_seq
    waiting = web.fetch("GET", f"{EVENTS}?after={position}&wait=25&topic=nothing")
    result_of(a_build(api))
    api.reactor.advance(24)
    assert not waiting.called
    api.reactor.advance(1)
    api.reactor.advance(0)

    answer = result_of(waiting).json()
    assert answer["events"] == []
    assert (answer["meta"]["seq"], answer["meta"]["more"]) == (api.mq.last_seq, False)


def test_a_long_poll_that_goes_leaves_nothing() -> None:
    """Neither a stream, nor its place, nor a timer."""
    api = in_memory_api()
    timers = len(api.reactor.getDelayedCalls())
    wire = Wire(api)
    wire.send(head(f"GET {EVENTS}?after=1&wait=60 HTTP/1.1", {"Host": "127.0.0.1:8010"}))
    assert api.web is not None
    assert len(api.web.events.waiting) == 1
    wire.hang_up()

    assert (api.mq.streams, api.web.events.waiting) == (frozenset(), set())
    assert api.web.sockets.admission.total == 0
    assert len(api.reactor.getDelayedCalls()) <= timers


def test_a_long_poll_is_answered_when_the_server_stops() -> None:
    """With what there is: nothing."""
    api = in_memory_api()
    waiting = WebClient(api).fetch("GET", f"{EVENTS}?after=1&wait=60")
    stopping = api.stopService()
    api.reactor.advance(0)

    result_of(stopping)
    assert result_of(waiting).json()["events"] == []


def test_forgotten_events_are_gone_for_who_asks_for_them(api: BuildAPI, web: WebClient) -> None:
    """With what there is; who names no position has what is left."""
    result_of(a_build(api))
    forget(api, 3)
    status, told = said(web.get(f"{EVENTS}?since=2"))

    assert status == 410
    assert "3 to 3" in told.pop("error")
    assert told == {"oldest": 4, "newest": api.mq.last_seq, "log": api.database.identity}
    assert web.get(EVENTS).json()["events"] == events_of(api)[0:]
    assert web.get(f"{EVENTS}?since=3").status == 200


@pytest.mark.parametrize("accept", ["application/json", "text/event-stream"])
@pytest.mark.parametrize("query", ["since=1000000", "since=0&log=another", "log=another"])
def test_a_position_of_another_log_is_gone(
    api: BuildAPI, web: WebClient, accept: str, query: str
) -> None:
    """On both roads, with what this log has."""
    status, told = said(web.get(f"{EVENTS}?{query}", {"Accept": accept}))

    assert status == 410
    assert "event log" in told.pop("error")
    assert told == {"oldest": 1, "newest": api.mq.last_seq, "log": api.database.identity}
    assert api.mq.streams == frozenset()


@pytest.mark.parametrize("accept", ["application/json", "text/event-stream"])
def test_wrong_arguments_are_refused(web: WebClient, accept: str) -> None:
    """By name."""
    status, told = said(web.get(f"{EVENTS}?sinze=1", {"Accept": accept}))

    assert status == 400
    assert "sinze" in told["error"]


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE"])
def test_other_methods_are_refused(web: WebClient, method: str) -> None:
    """There is nothing to change here."""
    assert web.request(method, EVENTS).status in (400, 404)


@pytest.mark.parametrize("accept", ["application/json", "text/event-stream"])
def test_beside_another_writer_there_are_no_positions(system: str, accept: str) -> None:  # noqa: ARG001
    """The log can't tell what another program did, and says so."""
    api = in_memory_api(Settings(database=Database(foreign_writer=True)))
    status, told = said(WebClient(api).get(EVENTS, {"Accept": accept}))

    assert status == 409
    assert "no event log" in told["error"]


class Hidden(Gate):
    """Hides builder 1 from everybody."""

    def restriction(self, identity: Identity) -> Restriction:  # noqa: ARG002  hides it from all
        """Return what must not be seen."""
        return Restriction(frozenset({1}))


def test_the_gate_is_asked_for_every_event(api: BuildAPI, web: WebClient) -> None:
    """Stored or new, and when rights change while the stream is open."""
    result_of(a_build(api))
    source = Source(api, "?since=0")
    assert [e for e in source.heard() if e.get("topic", "").startswith("build.")]

    api.data.gate = Hidden()
    result_of(api.data.updates.finishBuild(1, 0))

    assert source.heard() == []
    topics = [event["topic"] for event in web.get(EVENTS).json()["events"]]
    assert topics
    assert not [topic for topic in topics if topic.startswith("build.")]


def test_pages_of_allowed_origins_can_use_it() -> None:
    """Also to ask beforehand whether Last-Event-ID may be sent; others are refused."""
    origin = "https://ci.example.org"
    api = in_memory_api(Settings(server=Server(allowed_origins=(origin,))))
    web = WebClient(api)
    asked = {
        "Origin": origin,
        "Access-Control-Request-Method": "GET",
        "Access-Control-Request-Headers": "last-event-id",
    }
    preflight = web.request("OPTIONS", EVENTS, asked)

    assert preflight.status == 200
    assert "Last-Event-ID" in preflight.headers["access-control-allow-headers"]
    source = Source(api, Origin=origin)
    assert f"access-control-allow-origin: {origin}" in source.head
    assert "x-event-log" in source.head.partition("access-control-expose-headers: ")[2]
    assert web.get(EVENTS, {"Origin": "https://evil.example.com"}).status == 400
