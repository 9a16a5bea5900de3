"""``/sse``: what Buildbot's clients of server-sent events are promised."""

from __future__ import annotations

import json
from uuid import UUID

import pytest
from twisted.internet.task import Clock

from buildapi.data.gate import Gate, Identity, Restriction
from buildapi.mq.event import Event
from buildapi.service import BuildAPI
from buildapi.settings import Limits, Server, Settings
from buildapi.testing import (
    NOON,
    Answer,
    WebClient,
    WebSocketClient,
    Wire,
    a_build,
    answered,
    in_memory_api,
    result_of,
)
from buildapi.testing.wire import head


def an_event(seq: int, key: str = "builds/3/new", size: int = 0) -> Event:
    """Return an event with one slash key and a body of about this size."""
    return Event(seq, "build.3.new", NOON, (key,), json.dumps({"x": "y" * size}).encode())


class Listener:
    """An EventSource on a wire: ``uuid`` of the handshake, ``events`` with key and message."""

    def __init__(self, api: BuildAPI, path: str = "/sse/listen", **headers: str) -> None:
        self.wire = Wire(api)
        self.wire.send(head(f"GET {path} HTTP/1.0", {"Host": "127.0.0.1:8010", **headers}))
        top, _, self._rest = self.wire.take().partition(b"\r\n\r\n")
        self.head = top.decode().lower()
        kind, self.uuid = self.blocks()[0]
        assert kind == "handshake"
        assert str(UUID(self.uuid)) == self.uuid
        assert UUID(self.uuid).version == 4

    def blocks(self) -> list[tuple[str, str]]:
        """Return what has come: event and data; a comment has neither."""
        received, self._rest = self._rest + b"".join(iter(self.wire.take, b"")), b""
        found = []
        for block in received.decode().split("\n\n")[:-1]:
            fields = dict(line.split(": ", 1) for line in block.splitlines() if line != ":")
            found.append((fields.get("event", ""), fields.get("data", "")))
        return found

    def events(self) -> list[tuple[str, dict[str, object]]]:
        """Return the events that have come."""
        blocks = [json.loads(data) for kind, data in self.blocks() if kind == "event"]
        return [("/".join(block["key"]), block["message"]) for block in blocks]

    def keys(self) -> list[str]:
        """Return the keys of the events that have come."""
        return [key for key, _ in self.events()]


def said(answer: Answer) -> tuple[int, str]:
    """Return status and text of an answer, which must be a plain one."""
    assert answer.headers.get_content_type() == "text/plain"
    return answer.status, answer.body.decode()


@pytest.mark.parametrize(
    "path",
    [
        "/sse/listen/builds/*/new",
        "/sse/builds/*/new",
        "/sse/builds/*/new/",
        "/sse/listen/builds/1/new?a=b&a=c",
        "/sse/%62uilds/%2a/new",
    ],
)
def test_a_path_is_listened_to(api: BuildAPI, path: str) -> None:
    """From the handshake on; a trailing slash and arguments are no part of it."""
    listener = Listener(api, path)

    result_of(a_build(api))

    ((key, message),) = listener.events()
    assert key == "builds/1/new"
    assert message["buildid"] == 1
    assert "text/event-stream" in listener.head


@pytest.mark.parametrize("path", ["/sse", "/sse/", "/sse/listen", "/sse/listen/"])
def test_a_stream_without_a_path_is_silent_until_one_is_added(
    api: BuildAPI, web: WebClient, path: str
) -> None:
    """And again once it is removed."""
    listener = Listener(api, path)
    api.mq.publish([an_event(1)])
    assert listener.events() == []

    assert said(web.get(f"/sse/add/{listener.uuid}/builds/*/new")) == (200, "ok")
    api.mq.publish([an_event(2)])
    assert listener.keys() == ["builds/3/new"]

    assert said(web.get(f"/sse/remove/{listener.uuid}/builds/*/new/")) == (200, "ok")
    api.mq.publish([an_event(3)])
    assert listener.keys() == []


@pytest.mark.parametrize("method", ["GET", "POST", "PUT", "DELETE", "OPTIONS"])
def test_any_method_adds(api: BuildAPI, web: WebClient, method: str) -> None:
    """Clients have chosen differently."""
    listener = Listener(api)

    assert said(web.request(method, f"/sse/add/{listener.uuid}/a/b")) == (200, "ok")
    api.mq.publish([an_event(1, "a/b")])
    assert listener.keys() == ["a/b"]


@pytest.mark.parametrize(
    ("path", "status", "text"),
    [
        ("add", 400, "need uuid"),
        ("remove/", 400, "need uuid"),
        ("add/5/builds/*/new", 400, "unknown uuid"),
        ("remove/UUID/builds/*/new", 404, "consumer is not listening to this event"),
        ("remove/UUID", 404, "consumer is not listening to this event"),
        ("add/UUID/", 200, "ok"),
    ],
)
def test_what_cannot_be_done_is_said(
    api: BuildAPI, web: WebClient, path: str, status: int, text: str
) -> None:
    """In the words that clients know."""
    path = path.replace("UUID", Listener(api).uuid)

    assert said(web.get(f"/sse/{path}")) == (status, text)


def test_an_event_comes_once_for_each_path_that_matches(api: BuildAPI, web: WebClient) -> None:
    """A path that was added twice is one path."""
    listener = Listener(api, "/sse/listen/builds/*/new")
    for path in ("builds/3/new", "builds/3/new", "builds/*/*"):
        web.get(f"/sse/add/{listener.uuid}/{path}")

    api.mq.publish([an_event(1)])

    assert listener.keys() == ["builds/3/new"] * 3


def test_a_head_request_ends_at_once(api: BuildAPI, web: WebClient) -> None:
    """It has no body that could stay open."""
    answer = web.request("HEAD", "/sse/listen")

    assert (answer.status, answer.body) == (200, b"")
    assert api.web is not None
    assert not api.web.streams.open


class Hidden(Gate):
    """Hides builder 1 from everybody."""

    def restriction(self, identity: Identity) -> Restriction:  # noqa: ARG002  hides it from all
        """Return what must not be seen."""
        return Restriction(frozenset({1}))


def test_the_gate_is_asked_for_every_event(api: BuildAPI) -> None:
    """Also when rights change while the stream is open."""
    listener = Listener(api, "/sse/builds/*/*")
    result_of(a_build(api))
    assert listener.keys()

    api.data.gate = Hidden()
    result_of(api.data.updates.finishBuild(1, 0))

    assert listener.keys() == []


def test_who_has_gone_is_forgotten(api: BuildAPI, web: WebClient) -> None:
    """With all paths; its UUID means nothing any more."""
    before = api.mq.listeners
    listener = Listener(api, "/sse/builds/*/new")
    web.get(f"/sse/add/{listener.uuid}/builds/*/finished")
    assert api.mq.listeners == before + 2

    listener.wire.hang_up()

    assert api.mq.listeners == before
    assert said(web.get(f"/sse/add/{listener.uuid}/builds/*/new")) == (400, "unknown uuid")
    assert api.web is not None
    assert (api.web.streams.open, api.web.sse.ears) == (set(), {})
    assert api.web.sockets.admission.total == 0


def test_a_slow_reader_is_cut_off_when_its_buffer_is_full() -> None:
    """It holds no more memory than it may, and the others hear everything."""
    api = in_memory_api(Settings(limits=Limits(subscription_messages=10)))
    slow, quick = Listener(api, "/sse/builds/*/new"), Listener(api, "/sse/builds/*/new")
    slow.wire.slow = True
    api.mq.publish([an_event(1, size=Wire.FULL)])

    api.mq.publish([an_event(seq) for seq in range(2, 12)])
    assert not slow.wire.closed
    api.mq.publish([an_event(12)])

    assert slow.wire.cut
    assert len(quick.keys()) == 12
    assert api.web is not None
    assert (len(api.web.streams.open), api.web.streams.cut) == (1, 1)
    assert slow.uuid not in api.web.sse.ears


def test_a_slow_reader_that_reads_on_has_everything_in_order() -> None:
    """As long as its buffer was not full."""
    api = in_memory_api(Settings(limits=Limits(subscription_messages=10)))
    listener = Listener(api, "/sse/builds/*/new")
    listener.wire.slow = True
    api.mq.publish([an_event(1, size=Wire.FULL)])
    api.mq.publish([an_event(seq, size=seq) for seq in range(2, 9)])

    listener.wire.slow = False

    sizes = [len(str(message["x"])) for _, message in listener.events()]
    assert sizes == [Wire.FULL, *range(2, 9)]


def test_an_idle_stream_shows_that_it_is_alive() -> None:
    """A comment after each beat, and the timer ends with the last stream."""
    clock = Clock()
    clock.advance(NOON)
    api = in_memory_api(Settings(limits=Limits(heartbeat_s=5)), clock=clock)
    timers = len(clock.getDelayedCalls())
    listener = Listener(api)
    clock.pump([5, 5, 4])
    assert listener.blocks() == [("", ""), ("", "")]

    listener.wire.hang_up()

    assert len(clock.getDelayedCalls()) == timers


def test_one_client_can_have_so_many_connections_and_the_server_too() -> None:
    """WebSockets and event streams together; who leaves makes room."""
    api = in_memory_api(Settings(limits=Limits(connections_per_client=2, connections=2)))
    web = WebClient(api)
    first = Listener(api)
    assert WebSocketClient(Wire(api)).status == 101
    refused = web.get("/sse/listen")
    assert refused.status == 503
    assert "2 connections" in refused.body.decode()
    assert WebSocketClient(Wire(api)).status == 503

    first.wire.hang_up()

    assert WebSocketClient(Wire(api)).status == 101


def test_a_client_with_too_many_is_told_so() -> None:
    """Which limit it is, and what would help."""
    api = in_memory_api(Settings(limits=Limits(connections_per_client=1)))
    Listener(api)

    refused = WebClient(api).get("/sse/listen")

    assert refused.status == 429
    assert "127.0.0.1 has 1 connections" in refused.body.decode()
    assert WebSocketClient(Wire(api)).status == 429


def test_a_stream_can_have_so_many_paths() -> None:
    """One that is there already needs no room."""
    api = in_memory_api(Settings(limits=Limits(subscriptions=2)))
    web, listener = WebClient(api), Listener(api, "/sse/a")
    assert web.get(f"/sse/add/{listener.uuid}/b").status == 200
    assert web.get(f"/sse/add/{listener.uuid}/a").status == 200

    status, text = said(web.get(f"/sse/add/{listener.uuid}/c"))

    assert status == 409
    assert "2 paths" in text


def test_pages_of_other_origins_are_refused_unless_allowed() -> None:
    """As everywhere; a page that may read gets the headers for it."""
    server = Server(allowed_origins=("https://ci.example.org",))
    api = in_memory_api(Settings(server=server))
    refused = WebClient(api).get("/sse/listen", {"Origin": "https://evil.example.com"})
    assert (refused.status, refused.body) == (400, b'{"error":"invalid origin"}')

    allowed = Listener(api, Origin="https://ci.example.org")

    assert "access-control-allow-origin: https://ci.example.org" in allowed.head


def test_the_streams_end_when_the_server_stops() -> None:
    """They are not waited for: the answer ends as answers do."""
    api = in_memory_api()
    wire = Wire(api)
    wire.send(head("GET /sse/listen HTTP/1.1", {"Host": "127.0.0.1:8010"}))

    result_of(api.stopService())

    answer = answered(wire.take())
    assert answer.status == 200
    assert answer.headers["transfer-encoding"] == "chunked"
    assert answer.body.startswith(b"event: handshake\n")
