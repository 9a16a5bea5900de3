"""WebSocket connections: the handshake, the limits, slow clients, the way out."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest
from twisted.internet.task import Clock

from buildapi.service import BuildAPI
from buildapi.settings import Limits, Server, Settings
from buildapi.testing import (
    NOON,
    WebClient,
    WebSocketClient,
    Wire,
    a_build,
    a_log,
    answered,
    in_memory_api,
    masked,
    result_of,
)

LINE = "x" * 1023 + "\n"


@pytest.fixture
def clock() -> Clock:
    """Return the clock of the service."""
    clock = Clock()
    clock.advance(NOON)
    return clock


@pytest.fixture
def api(clock: Clock) -> BuildAPI:
    """Return a service with small limits."""
    limits = Limits(subscription_messages=50, subscription_bytes=500_000, frame_bytes=2_000)
    return in_memory_api(Settings(limits=limits), clock=clock)


@pytest.fixture
def wire(api: BuildAPI) -> Wire:
    """Return a connection."""
    return Wire(api)


@pytest.fixture
def ws(wire: Wire) -> WebSocketClient:
    """Return a WebSocket on it."""
    return WebSocketClient(wire)


@pytest.mark.parametrize("path", ["/ws", "/ws/", "/ws/anything", "/ws/a/b?c=d", "/ws?x=1"])
def test_it_has_many_addresses(api: BuildAPI, path: str) -> None:
    """What follows is not looked at."""
    ws = WebSocketClient(Wire(api), path)

    assert ws.status == 101
    assert ws.sync() == []


@pytest.mark.parametrize("path", ["/ws", "/ws/", "/ws/anything"])
def test_a_plain_get_is_told_to_upgrade(api: BuildAPI, path: str) -> None:
    """And the connection is closed."""
    wire = Wire(api)

    wire.send(b"GET %b HTTP/1.1\r\nHost: x\r\n\r\n" % path.encode())

    assert wire.closed
    assert answered(wire.take()).status == 426


@pytest.mark.parametrize("method", ["POST", "HEAD", "PUT"])
def test_other_methods_are_refused(api: BuildAPI, method: str) -> None:
    """Never with a 5xx."""
    wire = Wire(api)

    wire.send(f"{method} /ws HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n".encode())

    assert 400 <= answered(wire.take(), method).status < 500


def test_offered_subprotocols_are_ignored(api: BuildAPI) -> None:
    """None is chosen, and the conversation is the same."""
    wire = Wire(api)
    wire.slow = True
    ws = WebSocketClient(wire, headers={"Sec-WebSocket-Protocol": "a, graphql-websocket"})

    handshake = bytes(wire._written)

    assert b"101" in handshake
    assert b"sec-websocket-protocol" not in handshake.lower()
    wire.slow = False
    assert ws.sync() == []


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({}, 101),
        ({"Origin": "http://127.0.0.1:8010"}, 101),
        ({"Origin": "https://127.0.0.1:8010"}, 101),
        ({"Origin": "HTTP://127.0.0.1:8010"}, 101),
        ({"Origin": "http://good.example.org"}, 101),
        ({"Origin": "https://a.wild.example.org"}, 101),
        ({"Origin": "http://evil.example.org"}, 403),
        ({"Origin": "http://127.0.0.1:8011"}, 403),
        ({"Origin": "http://good.example.org.evil.org"}, 403),
        ({"Origin": "null"}, 403),
        ({"Origin": "file://"}, 403),
        ({"Origin": "http://127.0.0.1:8010", "Host": "x"}, 403),
    ],
)
def test_pages_of_other_origins_are_refused(headers: dict[str, str], status: int) -> None:
    """At the handshake: they could read what a logged-in user may see."""
    server = replace(Server(), allowed_origins=("http://good.example.org", "*.wild.example.org"))
    api = in_memory_api(Settings(server=server))

    assert WebSocketClient(Wire(api), headers=headers).status == status


def test_a_refused_page_is_told_which_settings_decide(api: BuildAPI) -> None:
    """Behind a proxy that nobody has told the server of, it is the first that people see."""
    wire = Wire(api)
    wire.slow = True
    WebSocketClient(wire, headers={"Origin": "https://ci.example.org", "Host": "ci.example.org"})

    assert b"server.base_url and server.allowed_origins" in wire._written


def test_a_page_of_the_known_address_is_ours() -> None:
    """Whatever the proxy calls us; the path is no part of an origin."""
    server = Server(base_url="https://ci.example.org/buildapi/")
    api = in_memory_api(Settings(server=server))
    headers = {"Origin": "https://ci.example.org", "Host": "10.0.0.1:8010"}

    assert WebSocketClient(Wire(api), headers=headers).status == 101


def test_a_client_that_has_not_finished_its_handshake_is_dropped(clock: Clock, wire: Wire) -> None:
    """A connection is not for nothing."""
    wire.send(b"GET /ws HTTP/1.1\r\nHost: x\r\nUpg")

    clock.advance(61)

    assert wire.closed


@pytest.mark.parametrize("parts", [1, 3])
def test_a_frame_that_is_too_long_closes_with_1009(
    ws: WebSocketClient, wire: Wire, parts: int
) -> None:
    """Whole or in fragments; nothing of it is kept."""
    text = json.dumps({"cmd": "ping", "_id": "x" * 3_000}).encode()
    size = len(text) // parts + 1
    pieces = [text[at : at + size] for at in range(0, len(text), size)]
    for number, piece in enumerate(pieces):
        frame = bytearray(masked(1 if number == 0 else 0, piece))
        if number < len(pieces) - 1:
            frame[0] &= 0x7F
        wire.send(bytes(frame))
    ws.read()

    assert ws.ended is not None
    assert ws.ended[0] == 1009


def test_text_that_is_no_utf8_closes_with_1007(ws: WebSocketClient) -> None:
    """As the protocol wants it; in a binary frame it is only no JSON."""
    ws.send_frame(2, b"\xff")
    assert ws.sync()[0]["code"] == 400

    ws.send_frame(1, b"\xff")
    ws.read()

    assert ws.ended is not None
    assert ws.ended[0] == 1007


def test_a_client_that_says_goodbye_gets_the_same_word(ws: WebSocketClient, wire: Wire) -> None:
    """And the connection is closed."""
    ws.send_frame(8, b"\x03\xe8")
    ws.read()

    assert ws.ended is not None
    assert ws.ended[0] == 1000
    assert wire.closed


def test_a_client_that_has_gone_without_a_word_is_noticed(
    api: BuildAPI, clock: Clock, ws: WebSocketClient, wire: Wire
) -> None:
    """Within a minute or so: it answers no ping."""
    assert ws.status == 101
    before = api.mq.listeners
    ws.ask("startConsuming", path="builds/*/new")

    for _ in range(7):
        clock.advance(10)

    assert wire.closed
    assert api.mq.listeners == before


def test_a_client_that_answers_pings_stays(clock: Clock, ws: WebSocketClient) -> None:
    """However long it says nothing else."""
    for _ in range(60):
        clock.advance(10)
        ws.read()

    assert ws.sync() == []


def consume_slowly(ws: WebSocketClient, wire: Wire, path: str) -> None:
    """Subscribe, then read nothing more."""
    ws.ask("startConsuming", path=path)
    wire.slow = True


def test_events_wait_for_a_slow_client(api: BuildAPI, ws: WebSocketClient, wire: Wire) -> None:
    """Up to the limit, and then in order."""
    buildid = result_of(a_build(api))
    consume_slowly(ws, wire, "build.*.properties.update")

    for i in range(50):
        value = (i, "x" * 5_000)
        result_of(api.data.updates.setBuildProperty(buildid, "p", value, "test"))
    assert wire.waiting < Wire.FULL + 10_000

    wire.slow = False
    numbers = [frame["m"]["p"][0][0] for frame in ws.sync()]
    assert numbers == list(range(50))


@pytest.mark.parametrize(("events", "size"), [(120, 5_000), (30, 50_000)])
def test_a_client_that_is_too_slow_is_closed_with_4008(
    api: BuildAPI, ws: WebSocketClient, wire: Wire, events: int, size: int
) -> None:
    """Too many events or too many bytes: it is told why, and nothing is dropped in silence."""
    buildid = result_of(a_build(api))
    before = api.mq.listeners
    consume_slowly(ws, wire, "build.*.properties.update")

    for i in range(events):
        value = (i, "x" * size)
        result_of(api.data.updates.setBuildProperty(buildid, "p", value, "test"))

    assert api.mq.listeners == before
    wire.slow = False
    ws.read()
    assert ws.ended == (4008, "this client reads too slowly; connect again")
    numbers = [frame["m"]["p"][0][0] for frame in ws.frames]
    assert numbers == list(range(len(numbers)))


def test_a_client_that_never_reads_is_cut_off(
    api: BuildAPI, clock: Clock, ws: WebSocketClient, wire: Wire
) -> None:
    """Five seconds after it was told that it is too slow."""
    buildid = result_of(a_build(api))
    consume_slowly(ws, wire, "build.*.properties.update")
    for _ in range(30):
        result_of(api.data.updates.setBuildProperty(buildid, "p", LINE * 50, "test"))
        result_of(api.data.updates.setBuildProperty(buildid, "p", "", "test"))
    assert not wire.closed

    clock.advance(6)

    assert wire.cut


def test_replies_count_as_well(ws: WebSocketClient, wire: Wire) -> None:
    """Who asks and asks and never reads is closed too."""
    wire.slow = True
    for _ in range(300):
        ws.send({"cmd": "ping", "_id": "x" * 1_900})

    wire.slow = False
    ws.read()
    assert ws.ended is not None
    assert ws.ended[0] == 4008


def test_who_pings_and_does_not_read_gets_one_answer(ws: WebSocketClient, wire: Wire) -> None:
    """To the last, when it reads on: what waits for it has a bound, whatever it sends."""
    wire.slow = True
    while wire.waiting <= Wire.FULL:
        ws.send({"cmd": "ping", "_id": "x" * 1_900})
    before = wire.waiting
    for number in range(10_000):
        ws.send_frame(0x9, b"%0100d" % number)
    assert wire.waiting == before

    received = wire.sip()
    wire.slow = False
    received += wire.take()

    pong = bytes([0x8A, 100])
    assert received.count(pong) == 1
    assert received.endswith(pong + b"%0100d" % 9_999)


def test_a_slow_client_is_not_dropped_for_a_late_pong(
    api: BuildAPI, clock: Clock, ws: WebSocketClient, wire: Wire
) -> None:
    """Our ping stands in line behind what it has not read."""
    logid = result_of(a_log(api, LINE * 1_000))
    wire.slow = True
    ws.send({"cmd": "followLog", "logid": logid, "_id": "log"})

    for _ in range(60):
        clock.advance(10)
    assert not wire.closed

    wire.slow = False
    ws.sync()
    assert sum(len(frame.get("content", "")) for frame in ws.frames) == 1_024_000
    assert not wire.closed


def test_the_server_goes_away_with_1001(api: BuildAPI) -> None:
    """Every client is told; then the stop is complete."""
    clients = [WebSocketClient(Wire(api)) for _ in range(3)]
    stopping = api.stopService()

    for client in clients:
        client.read()
        assert client.ended == (1001, "the server stops")

    assert result_of(stopping) is None


def test_a_stop_does_not_wait_for_a_dead_client(
    api: BuildAPI, clock: Clock, ws: WebSocketClient
) -> None:
    """It is cut off."""
    assert ws.status == 101
    fired: list[Any] = []
    api.stopService().addCallback(fired.append)
    assert fired == []

    clock.advance(6)

    assert fired == [None]


def test_nothing_is_carried_out_after_the_goodbye(api: BuildAPI, ws: WebSocketClient) -> None:
    """A command that was on its way gets no reply and leaves nothing."""
    api.stopService()

    ws.send({"cmd": "startConsuming", "path": "builds/*/new", "_id": 1})
    ws.read()

    assert ws.frames == []
    assert api.mq.listeners == 0


def test_idle_connections_are_closed_when_the_server_stops(api: BuildAPI) -> None:
    """A program that keeps its connection must connect again, and learns that nobody is there."""
    idle = Wire(api)
    idle.send(b"GET /api/v2/builders HTTP/1.1\r\nHost: x\r\n\r\n")
    assert not idle.closed

    result_of(api.stopService())

    assert idle.closed
    assert answered(idle.take()).status == 200


def test_closed_connections_are_forgotten(api: BuildAPI) -> None:
    """Those of HTTP and those that became a WebSocket."""
    assert api.web is not None
    web = WebClient(api)
    for _ in range(5):
        web.get("/healthz")
        WebSocketClient(Wire(api)).connection.send(masked(8, b""))

    assert len(api.web.sockets.open) == 0
    assert all(channel.transport is None for channel in api.web.site.channels)
