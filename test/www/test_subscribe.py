"""``hello`` and ``subscribe``: events by position, over the WebSocket."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest
from twisted.internet.task import Clock

from buildapi.mq.event import Event
from buildapi.service import BuildAPI
from buildapi.settings import Database, Limits, Settings
from buildapi.testing import (
    NOON,
    WebClient,
    WebSocketClient,
    Wire,
    a_build,
    a_step,
    in_memory_api,
    result_of,
)


@pytest.fixture
def ws(api: BuildAPI) -> WebSocketClient:
    """Return a client that is connected."""
    return WebSocketClient(Wire(api))


def replied(ws: WebSocketClient, **frame: Any) -> Any:
    """Send a command, and return its reply; frames of streams stay."""
    known = len(ws.frames)
    ws.send({"_id": 7, **frame})
    ws.sync()
    (reply,) = [one for one in ws.frames[known:] if "_id" in one]
    ws.frames.remove(reply)
    return reply


def logged(api: BuildAPI) -> list[Event]:
    """Return all events of the log."""
    history = api.mq.history
    assert history is not None
    events: list[Event] = []
    while found := result_of(history.replayed(events[-1].seq if events else 0, 1000)).events:
        events += found
    return events


def frames_of(events: list[Event], sub: Any) -> list[Any]:
    """Return the frames that tell of events."""
    return [{"sub": sub, **json.loads(event.told)} for event in events]


def test_hello_tells_what_the_log_has(api: BuildAPI, ws: WebSocketClient) -> None:
    """Its identity and extent, and the limits for this client."""
    result_of(a_build(api))
    reply = replied(ws, cmd="hello")

    assert reply["log"] == api.database.identity
    assert (reply["oldest"], reply["seq"]) == (1, api.mq.last_seq)
    assert reply["server"] == "buildapi"
    assert reply["limits"]["frame_bytes"] == api.settings.limits.frame_bytes


def test_a_subscription_without_a_position_begins_now(api: BuildAPI, ws: WebSocketClient) -> None:
    """The reply says from where; ``synced`` comes at once."""
    result_of(a_build(api))
    position = api.mq.last_seq
    reply = replied(ws, cmd="subscribe", topic="build.#")
    result_of(a_step(api))

    new = [event for event in logged(api) if event.seq > position and event.topic[:6] == "build."]
    assert reply == {"msg": "OK", "code": 200, "_id": 7, "seq": position}
    assert ws.sync() == [{"sub": 7, "synced": position}, *frames_of(new, 7)]


def test_a_subscription_goes_on_from_a_position(api: BuildAPI, ws: WebSocketClient) -> None:
    """First what is stored, then what is new; keys only where Buildbot knows the event."""
    result_of(a_build(api))
    reply = replied(ws, cmd="subscribe", topics=["builder.*.new", "build.#"], since=1, _id="x")
    stored = [e for e in logged(api) if e.seq > 1 and e.topic.startswith(("build.", "builder.1."))]
    synced = {"sub": "x", "synced": api.mq.last_seq}
    result_of(api.data.updates.setBuildStateString(1, "busy"))
    frames = ws.sync()

    assert reply["seq"] == 1
    assert frames == [*frames_of(stored, "x"), synced, *frames_of(logged(api)[-1:], "x")]


def test_what_is_read_and_then_subscribed_is_everything(
    api: BuildAPI, web: WebClient, ws: WebSocketClient
) -> None:
    """The answer's X-Seq is a position, its X-Event-Log the log's name."""
    result_of(a_build(api))
    answer = web.get("/api/v2/builds")
    result_of(a_step(api))
    since, log = int(answer.headers["x-seq"]), answer.headers["x-event-log"]

    replied(ws, cmd="subscribe", topic="#", since=since, log=log)

    seqs = [frame["seq"] for frame in ws.sync() if "seq" in frame]
    assert seqs == list(range(since + 1, api.mq.last_seq + 1))


@pytest.mark.parametrize(
    ("frame", "code"),
    [
        ({"topic": "build.#", "since": 10**6}, 410),
        ({"topic": "build.#", "since": 0, "log": "another"}, 410),
        ({"topic": "build.#", "log": "another"}, 410),
        ({"topic": "build.#", "since": -1}, 400),
        ({"topic": "build.#", "since": "5"}, 400),
        ({"topic": "build.#", "since": True}, 400),
        ({"topic": "build.#", "log": 5}, 400),
        ({"topic": "build.#", "slow": "never"}, 400),
        ({"topic": "build.#", "slow": []}, 400),
        ({"topic": "build.#", "topics": ["a"]}, 400),
        ({"topic": "a/b"}, 400),
        ({"topic": ""}, 400),
        ({"topic": 5}, 400),
        ({"topic": "#.#.a.#.b.#.c.#.d.#"}, 400),
        ({"topics": []}, 400),
        ({"topics": ["a"] * 101}, 400),
        ({"topics": [5]}, 400),
        ({"topics": "a"}, 400),
        ({}, 400),
        ({"topic": "a", "_id": [1]}, 409),
        ({"topic": "a", "_id": True}, 409),
    ],
)
def test_what_cannot_be_subscribed_is_refused(
    api: BuildAPI, ws: WebSocketClient, frame: dict[str, Any], code: int
) -> None:
    """With a sentence; the socket lives on, and nothing is left behind."""
    reply = replied(ws, cmd="subscribe", **frame)

    assert reply["code"] == code
    assert api.mq.streams == frozenset()
    assert replied(ws, cmd="subscribe", topic="a")["code"] == 200


def test_a_name_is_free_again_after_unsubscribe(api: BuildAPI, ws: WebSocketClient) -> None:
    """Nothing more of the stream comes; a second one of the same name is refused before."""
    replied(ws, cmd="subscribe", topic="#")
    assert replied(ws, cmd="subscribe", topic="#")["code"] == 409
    assert replied(ws, cmd="unsubscribe", sub=7, _id=8)["code"] == 200
    ws.frames.clear()
    result_of(a_build(api))

    assert ws.sync() == []
    assert replied(ws, cmd="subscribe", topic="#")["code"] == 200


def test_streams_of_a_socket_are_independent(api: BuildAPI, ws: WebSocketClient) -> None:
    """Each has its position, and an event once."""
    result_of(a_build(api))
    replied(ws, cmd="subscribe", topics=["#", "build.#"], since=0, _id=1)
    replied(ws, cmd="subscribe", topic="#", since=2, _id=2)

    def seqs(sub: int) -> list[int]:
        return [f["seq"] for f in ws.frames if f.get("sub") == sub and "seq" in f]

    ws.sync()
    assert seqs(1) == list(range(1, api.mq.last_seq + 1))
    assert seqs(2) == list(range(3, api.mq.last_seq + 1))


def test_an_idle_stream_tells_its_position(system: str) -> None:  # noqa: ARG001
    """More often than every thirty seconds, so that the way may take a while; new or not."""
    clock = Clock()
    clock.advance(NOON)
    api = in_memory_api(clock=clock)
    ws = WebSocketClient(Wire(api))
    replied(ws, cmd="subscribe", topic="nothing")
    result_of(a_build(api))
    ws.frames.clear()
    clock.advance(Limits().bookmark_s)

    assert Limits().bookmark_s < 30
    assert ws.sync() == [{"sub": 7, "bookmark": api.mq.last_seq}]
    ws.frames.clear()
    clock.advance(Limits().bookmark_s)
    assert ws.sync() == [{"sub": 7, "bookmark": api.mq.last_seq}]


# Some of these fill what the system buffers for a client that does not read.
LONG = "x" * 30_000


class Slowly:
    """A client that reads when it wants to, of a server with small buffers."""

    def __init__(self, **limits: int) -> None:
        self.api = in_memory_api(Settings(limits=replace(Limits(), **limits)))
        self.wire = Wire(self.api)
        self.ws = WebSocketClient(self.wire)

    def builds(self, number: int) -> None:
        """Make events."""
        for _ in range(number):
            name = f"{self.api.mq.last_seq} {LONG}"
            result_of(self.api.data.updates.findBuilderId(name))


@pytest.fixture
def slowly(system: str) -> type[Slowly]:  # noqa: ARG001
    """Return the kit, on each database system."""
    return Slowly


def test_a_slow_client_gets_everything_in_the_end(slowly: type[Slowly]) -> None:
    """Its events wait in the log, not in memory."""
    kit = slowly(subscription_messages=5)
    replied(kit.ws, cmd="subscribe", topic="builder.#", since=0)
    kit.ws.frames.clear()
    kit.wire.slow = True
    kit.builds(30)
    (stream,) = kit.api.mq.streams
    assert stream.depth <= 5

    kit.wire.slow = False
    kit.ws.sync()

    seqs = [frame["seq"] for frame in kit.ws.frames if "seq" in frame]
    assert seqs == [e.seq for e in logged(kit.api) if e.topic.startswith("builder.")]


@pytest.mark.parametrize("size", [1_000, 100_000, 200_000])
def test_what_is_read_from_the_log_cuts_no_slow_client(slowly: type[Slowly], size: int) -> None:
    """Not even where less may wait than is read at a time, or than one event has."""
    kit = slowly(subscription_bytes=size)
    kit.builds(30)
    kit.wire.slow = True
    for sub in (1, 2):
        kit.ws.send({"cmd": "subscribe", "topic": "builder.#", "since": 0, "_id": sub})
    kit.builds(5)
    assert kit.wire.waiting < 3 * Wire.FULL
    assert sum(stream.waiting_bytes for stream in kit.api.mq.streams) < size + len(LONG) * 4

    kit.wire.slow = False
    kit.ws.sync()

    stored = [e.seq for e in logged(kit.api) if e.topic.startswith("builder.")]
    for sub in (1, 2):
        frames = [frame for frame in kit.ws.frames if frame.get("sub") == sub]
        assert [frame["seq"] for frame in frames if "seq" in frame] == stored
    assert kit.ws.ended is None


def test_the_streams_of_a_client_share_what_may_wait_for_it(slowly: type[Slowly]) -> None:
    """To subscribe often is not to get more memory."""
    kit = slowly(subscription_bytes=500_000)
    for _ in range(4):
        kit.ws.ask("subscribe", topic="builder.#")
    kit.wire.slow = True
    waited = 0
    for _ in range(20):
        kit.builds(1)
        now = sum(stream.waiting_bytes for stream in kit.api.mq.streams)
        waited = max(waited, now)

    assert 200_000 < waited <= 500_000
    assert kit.ws.ended is None


def test_a_slow_client_may_want_the_latest_only(slowly: type[Slowly]) -> None:
    """And hears what is not coming."""
    kit = slowly(subscription_messages=5)
    replied(kit.ws, cmd="subscribe", topic="builder.#", slow="latest")
    kit.ws.frames.clear()
    kit.wire.slow = True
    kit.builds(30)
    kit.wire.slow = False
    kit.ws.sync()

    gaps = [frame["gap"] for frame in kit.ws.frames if "gap" in frame]
    assert [gap["why"] for gap in gaps] == ["overflow"]
    assert kit.ws.frames[-1]["seq"] == kit.api.mq.last_seq


def test_a_slow_client_may_want_to_be_closed(slowly: type[Slowly]) -> None:
    """With the code that says so, and the reason."""
    kit = slowly(subscription_messages=5)
    replied(kit.ws, cmd="subscribe", topic="builder.#", slow="close")
    kit.wire.slow = True
    kit.builds(30)
    kit.wire.slow = False
    kit.ws.read()

    assert kit.ws.ended is not None
    assert kit.ws.ended[0] == 4008
    assert "too slow" in kit.ws.ended[1]


def test_a_client_that_goes_leaves_nothing(api: BuildAPI) -> None:
    """Neither a stream nor a call later."""
    wire = Wire(api)
    ws = WebSocketClient(wire)
    replied(ws, cmd="subscribe", topic="#", since=0)
    wire.hang_up()

    assert (api.mq.streams, api.mq.listeners) == (frozenset(), 0)


def test_beside_another_writer_there_is_nothing_to_subscribe_to(system: str) -> None:  # noqa: ARG001
    """The log can't tell what another program did, and says so."""
    api = in_memory_api(Settings(database=Database(foreign_writer=True)))
    ws = WebSocketClient(Wire(api))

    reply = replied(ws, cmd="subscribe", topic="#")
    hello = replied(ws, cmd="hello", _id=8)

    assert reply["code"] == 409
    assert (hello["log"], hello["seq"], hello["oldest"]) == (None, None, None)
