"""Commands on the WebSocket, their replies and their events, word for word."""

from __future__ import annotations

import json
from typing import Any

import pytest
from twisted.logger import LogEvent

from buildapi.data.gate import Gate, Identity
from buildapi.mq.event import Event
from buildapi.service import BuildAPI
from buildapi.settings import Limits, Settings
from buildapi.testing import (
    WebSocketClient,
    Wire,
    a_build,
    a_request,
    a_step,
    in_memory_api,
    result_of,
)


@pytest.fixture
def ws(api: BuildAPI) -> WebSocketClient:
    """Return a client that is connected."""
    client = WebSocketClient(Wire(api))
    assert client.status == 101
    return client


def replied(ws: WebSocketClient, frame: Any) -> Any:
    """Send a frame and return the one that comes back; the socket lives on."""
    ws.frames.clear()
    ws.send(frame)
    (reply,) = ws.sync()
    return reply


@pytest.mark.parametrize("ident", [1, 0, "x", "", True, 1.5, [1, {"a": None}], {}, 2**53])
def test_a_reply_repeats_the_id(ws: WebSocketClient, ident: object) -> None:
    """Any value but null will do."""
    reply = replied(ws, {"cmd": "ping", "_id": ident})

    assert reply == {"msg": "pong", "code": 200, "_id": ident}


def test_a_reply_is_compact_text(api: BuildAPI) -> None:
    """One whole text frame of JSON without blanks."""
    wire = Wire(api)
    client = WebSocketClient(wire)

    client.send({"cmd": "ping", "_id": 1})

    text = b'{"msg":"pong","code":200,"_id":1}'
    assert wire.take() == bytes([0x81, len(text)]) + text


@pytest.mark.parametrize(
    ("frame", "code", "error", "ident"),
    [
        ({"cmd": "ping"}, 400, "no '_id' or 'type' in websocket frame", None),
        ({"cmd": "ping", "_id": None}, 400, "no '_id' or 'type' in websocket frame", None),
        ({}, 400, "no '_id' or 'type' in websocket frame", None),
        ({"_id": 5}, 400, "no 'cmd' in websocket frame", None),
        ({"type": "x"}, 400, "no 'cmd' in websocket frame", None),
        ({"cmd": "x", "_id": 5}, 404, "no such command type 'x'", 5),
        ({"cmd": "", "_id": 5}, 404, "no such command type ''", 5),
        ({"cmd": "__init__", "_id": 5}, 404, "no such command type '__init__'", 5),
        ({"cmd": "startConsuming", "_id": 5, "path": 5}, 400, "invalid path format '5'", 5),
        ({"cmd": "stopConsuming", "_id": 5, "path": 5}, 400, "invalid path format '5'", 5),
        ({"cmd": "startConsuming", "_id": 5, "path": None}, 400, "invalid path format 'None'", 5),
        ({"cmd": "stopConsuming", "_id": 5, "path": "x"}, 400, "path was not consumed 'x'", 5),
        ({"cmd": "stopConsuming", "_id": 5, "path": ""}, 400, "path was not consumed ''", 5),
    ],
)
def test_what_is_wrong_is_told_in_buildbots_words(
    ws: WebSocketClient, frame: Any, code: int, error: str, ident: object
) -> None:
    """Clients of today look at them."""
    assert replied(ws, frame) == {"error": error, "code": code, "_id": ident}


@pytest.mark.parametrize(
    "frame",
    [
        {"cmd": "startConsuming", "_id": 5},
        {"cmd": "stopConsuming", "_id": 5},
        {"cmd": "ping", "_id": 5, "extra": 1},
        {"cmd": "startConsuming", "_id": 5, "path": "a/b", "grep": "x"},
        {"cmd": "followLog", "_id": 5},
        {"cmd": "followLog", "_id": 5, "logid": 1, "path": "logs/1"},
        {"cmd": "followLog", "_id": 5, "logid": "1"},
        {"cmd": "followLog", "_id": 5, "logid": True},
        {"cmd": "followLog", "_id": 5, "logid": 1, "offset": 1.5},
        {"cmd": "followLog", "_id": 5, "logid": 1, "grep": 5},
        {"cmd": "followLog", "_id": 5, "logid": 1, "grep": "("},
        {"cmd": "followLog", "_id": 5, "logid": 1, "context": 1},
        {"cmd": "followLog", "_id": 5, "logid": 1, "streams": "x"},
        {"cmd": "followLog", "_id": 5, "logid": 1, "lines": 5},
        {"cmd": "unsubscribe", "_id": 5},
        {"cmd": "unsubscribe", "_id": 5, "sub": True},
        {"cmd": "unsubscribe", "_id": 5, "sub": 7},
        {"cmd": "unsubscribe", "_id": 5, "sub": {}},
    ],
)
def test_a_wrong_argument_is_named(ws: WebSocketClient, frame: dict[str, Any]) -> None:
    """A missing one, one of the wrong type, one that nobody knows."""
    reply = replied(ws, frame)

    assert reply["code"] == 400
    assert reply["error"].startswith("Invalid method argument '")
    assert reply["_id"] == frame.get("_id")


@pytest.mark.parametrize("ident", [True, 1.5, [1], {}, None])
@pytest.mark.parametrize(
    "frame",
    [
        {"cmd": "subscribe", "topic": "#"},
        {"cmd": "watch", "path": "builds"},
        {"cmd": "followLog", "logid": 1},
        {"cmd": "follow", "path": "builds/1"},
    ],
)
def test_what_is_no_text_or_integer_names_no_stream(
    ws: WebSocketClient, frame: dict[str, Any], ident: Any
) -> None:
    """As little as what names another one."""
    reply = replied(ws, {**frame, "_id": ident, "type": "x"})

    assert (reply["code"], reply["_id"]) == (409, ident)


@pytest.mark.parametrize(
    "payload",
    [
        b"",
        b"{",
        b"[]",
        b"5",
        b"null",
        b'"text"',
        b"[" * 5_000,
        b'{"cmd": "ping", "_id": "\\ud800"}',
        b'{"cmd": "ping", "_id": ' + b"[" * 500 + b"]" * 500 + b"}",
        b'{"cmd": 5, "_id": 1}',
        b'{"cmd": ["ping"], "_id": 1}',
        b'{"cmd": {}, "_id": 1}',
        b'{"cmd": true, "_id": 1}',
    ],
)
@pytest.mark.parametrize("opcode", [1, 2])
def test_a_malformed_frame_gets_an_error_and_the_socket_lives(
    ws: WebSocketClient, payload: bytes, opcode: int
) -> None:
    """In a text frame and in a binary one."""
    ws.send_frame(opcode, payload)

    (reply,) = ws.sync()
    assert reply["code"] == 400
    assert ws.ended is None


def test_a_binary_frame_is_answered_in_text(ws: WebSocketClient) -> None:
    """Some clients send nothing else."""
    ws.send_frame(2, json.dumps({"cmd": "ping", "_id": "binary"}).encode())

    assert ws.sync() == [{"msg": "pong", "code": 200, "_id": "binary"}]


def test_type_may_stand_for_the_id(ws: WebSocketClient) -> None:
    """As Buildbot takes it; the reply has no id then."""
    reply = replied(ws, {"cmd": "ping", "type": "x"})

    assert reply == {"msg": "pong", "code": 200, "_id": None}


def test_a_consumer_gets_the_events_of_its_path(api: BuildAPI, ws: WebSocketClient) -> None:
    """With the key that matched, and the whole object."""
    assert ws.ask("startConsuming", path="builds/*/new")["msg"] == "OK"

    result_of(a_build(api))

    (frame,) = ws.sync()
    assert list(frame) == ["k", "m"]
    assert frame["k"] == "builds/1/new"
    assert frame["m"]["buildid"] == 1


@pytest.mark.parametrize(
    ("path", "keys"),
    [
        ("builds/1/new", ["builds/1/new"]),
        ("*/*/new", ["buildsets/1/new", "buildrequests/1/new", "builds/1/new"]),
        ("builders/1/buildrequests/*/claimed", ["builders/1/buildrequests/1/claimed"]),
        ("buildrequests/1/*", ["buildrequests/1/new", "buildrequests/1/claimed"]),
        ("builds/*", []),
        ("builds/**", []),
        ("builds/#", []),
        ("Builds/*/new", []),
        ("builds/1/new/", []),
        ("/builds/1/new", []),
        ("build*/1/new", []),
        ("", []),
        ("*", []),
        ("☃", []),
        ("builds/1\x00/new", []),
        ("a" * 60_000, []),
        ("/" * 60_000, []),
    ],
)
def test_a_star_is_exactly_one_element(
    api: BuildAPI, ws: WebSocketClient, path: str, keys: list[str]
) -> None:
    """Any text is a path; most match nothing."""
    assert ws.ask("startConsuming", path=path)["code"] == 200

    result_of(a_build(api))

    assert [frame["k"] for frame in ws.sync()] == keys


def test_twice_the_same_path_is_one_subscription(api: BuildAPI, ws: WebSocketClient) -> None:
    """Both are OK; one stop ends it."""
    for _ in range(2):
        assert ws.ask("startConsuming", path="builds/*/new")["code"] == 200
    result_of(a_build(api))
    assert len(ws.sync()) == 1

    assert ws.ask("stopConsuming", path="builds/*/new")["code"] == 200
    assert ws.ask("stopConsuming", path="builds/*/new")["code"] == 400
    result_of(a_build(api))
    assert len(ws.sync()) == 1


def test_overlapping_paths_each_get_the_event(api: BuildAPI, ws: WebSocketClient) -> None:
    """Under the key that each asked for."""
    paths = ["builds/*/new", "builds/1/*", "workers/1/builds/*/new", "builders/*/builds/1/new"]
    for path in paths:
        ws.ask("startConsuming", path=path)

    result_of(a_build(api))

    assert sorted(frame["k"] for frame in ws.sync()) == [
        "builders/1/builds/1/new",
        "builds/1/new",
        "builds/1/new",
        "workers/1/builds/1/new",
    ]


def test_a_dotted_path_is_a_pattern_of_topics(api: BuildAPI, ws: WebSocketClient) -> None:
    """Its events have the topic as their key."""
    assert ws.ask("startConsuming", path="build.*.step.#")["code"] == 200

    result_of(a_step(api))

    assert [frame["k"] for frame in ws.sync()] == ["build.1.step.0.new", "build.1.step.0.started"]
    assert ws.ask("stopConsuming", path="build.*.step.#")["code"] == 200
    result_of(a_step(api))
    assert len(ws.sync()) == 2


def test_what_buildbot_is_silent_about_has_only_a_topic(api: BuildAPI, ws: WebSocketClient) -> None:
    """So its clients get nothing that they do not know."""
    ws.ask("startConsuming", path="*/*/new")
    ws.ask("startConsuming", path="builder.#")

    result_of(api.data.updates.findBuilderId("runtests"))

    assert [frame["k"] for frame in ws.sync()] == ["builder.1.new"]


@pytest.mark.parametrize("path", ["a..b", ".", "a.*b", "a b.c"])
def test_a_bad_pattern_is_refused(ws: WebSocketClient, path: str) -> None:
    """It would match nothing, for ever."""
    reply = ws.ask("startConsuming", path=path)

    assert reply["code"] == 400


def test_the_subscriptions_of_a_socket_are_bounded() -> None:
    """Whoever wants more than the limit is told so; what there is goes on."""
    api = in_memory_api(Settings(limits=Limits(subscriptions=3)))
    ws = WebSocketClient(Wire(api))
    for i in range(3):
        assert ws.ask("startConsuming", path=f"builds/{i}/new")["code"] == 200

    assert ws.ask("startConsuming", path="builds/4/new")["code"] == 409
    assert ws.ask("startConsuming", path="builds/1/new")["code"] == 200
    assert ws.ask("stopConsuming", path="builds/1/new")["code"] == 200
    assert ws.ask("startConsuming", path="builds/4/new")["code"] == 200


def test_streams_count_as_subscriptions() -> None:
    """They cost as much."""
    api = in_memory_api(Settings(limits=Limits(subscriptions=3)))
    ws = WebSocketClient(Wire(api))
    result_of(a_build(api))
    result_of(api.data.updates.addStep(1, "compile"))
    result_of(api.data.updates.addLog(1, "stdio", "s"))

    codes = [ws.ask("followLog", logid=1)["code"] for _ in range(4)]

    assert codes == [200, 200, 200, 409]


def test_the_gate_is_asked_about_every_event(
    api: BuildAPI, ws: WebSocketClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With who asks, and what the event is about."""
    asked: list[tuple[str, str]] = []

    def sees(_: Gate, identity: Identity, event: Event) -> bool:
        asked.append((identity.name, event.topic))
        return event.builderid == 2

    monkeypatch.setattr(Gate, "sees", sees)
    ws.ask("startConsuming", path="buildrequests/*/new")

    result_of(a_request(api, "hidden"))
    result_of(a_request(api, "shown"))

    assert asked == [("anonymous", "buildrequest.1.new"), ("anonymous", "buildrequest.2.new")]
    assert [frame["m"]["builderid"] for frame in ws.sync()] == [2]


def test_sockets_have_nothing_to_do_with_each_other(api: BuildAPI, ws: WebSocketClient) -> None:
    """What one consumes, the other does not get."""
    other = WebSocketClient(Wire(api))
    ws.ask("startConsuming", path="builds/*/new")

    result_of(a_build(api))

    assert len(ws.sync()) == 1
    assert other.sync() == []


def test_a_client_that_goes_away_leaves_no_listener(api: BuildAPI, ws: WebSocketClient) -> None:
    """Whether it says goodbye or not."""
    before = api.mq.listeners
    other = WebSocketClient(Wire(api))
    for client in (ws, other):
        client.ask("startConsuming", path="builds/*/new")
        client.ask("startConsuming", path="build.#")
    assert api.mq.listeners == before + 4

    other.send_frame(8, b"")
    assert api.mq.listeners == before + 2
    connection = ws.connection
    assert isinstance(connection, Wire)
    connection.hang_up()
    assert api.mq.listeners == before


def test_a_fault_of_ours_is_told_to_the_log_only(
    api: BuildAPI,
    ws: WebSocketClient,
    monkeypatch: pytest.MonkeyPatch,
    logged: list[LogEvent],
) -> None:
    """The reply says no more than that; the socket lives."""

    def fail(*_: object, **__: object) -> None:
        raise RuntimeError("secret")

    monkeypatch.setattr(api.mq, "listen_keys", fail)

    reply = ws.ask("startConsuming", path="builds/*/new")

    assert reply["code"] == 500
    assert reply["error"] == "an internal error; the server's log has it"
    assert "secret" in str(logged[-1]["log_failure"])
    logged.clear()
    assert ws.sync() == []
