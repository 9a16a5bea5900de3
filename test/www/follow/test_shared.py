"""Many follow one log: what they share, and how they are told."""

from __future__ import annotations

from typing import Any

import pytest
from twisted.internet.defer import Deferred
from twisted.logger import LogEvent

from buildapi.data.loglines import Growth, Lines
from buildapi.service import BuildAPI
from buildapi.settings import Limits, Settings
from buildapi.testing import WebSocketClient, Wire, a_log, in_memory_api, result_of
from buildapi.www import hub
from buildapi.www.connection import Sockets
from buildapi.www.follow import Follower
from buildapi.www.hub import Hub, ready
from test.www.follow.following import append, follow, of, text_of


def test_many_follow_one_log(api: BuildAPI) -> None:
    """On one socket and on many, each has every line."""
    logid = result_of(a_log(api, "a\n"))
    clients = [WebSocketClient(Wire(api)) for _ in range(20)]
    for client in clients:
        for sub in range(5):
            follow(client, sub, logid=logid)

    for i in range(20):
        append(api, logid, f"{i}\n")
    result_of(api.data.updates.finishLog(logid))

    expected = "a\n" + "".join(f"{i}\n" for i in range(20))
    for client in clients:
        for sub in range(5):
            assert text_of(client, sub) == expected
            assert of(client, sub)[-1]["end"]["num_lines"] == 21


def test_followers_at_the_end_share_what_is_read_and_made(
    api: BuildAPI, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One read for all of them, and one text made."""
    logid = result_of(a_log(api, "a\n"))
    clients = [WebSocketClient(Wire(api)) for _ in range(10)]
    for client in clients:
        for sub in range(5):
            follow(client, sub, logid=logid)
    reads: list[Any] = []
    made: list[Any] = []
    monkeypatch.setattr(Hub, "read", _counted(Hub.read, reads))
    fget = vars(Lines)["content"].fget
    monkeypatch.setattr(Lines, "content", property(_counted(fget, made)))

    append(api, logid, "b\n")

    assert len(reads) == 1
    assert len(made) == 1
    assert all(text_of(client, sub) == "a\nb\n" for client in clients for sub in range(5))


def test_who_calls_a_stream_alike_gets_the_same_frame(
    api: BuildAPI, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is made once for all sockets."""
    logid = result_of(a_log(api))
    clients = [WebSocketClient(Wire(api)) for _ in range(10)]
    for client in clients:
        follow(client, "s", logid=logid)
    made: list[Any] = []
    monkeypatch.setattr(Sockets, "prepareMessage", _counted(Sockets.prepareMessage, made))

    append(api, logid, "a\n")

    assert len(made) == 1
    assert all(text_of(client, "s") == "a\n" for client in clients)


def _held(patched: pytest.MonkeyPatch) -> list[tuple[Deferred[Growth], Growth]]:
    """Let hubs read, but tell nobody what they found; return that, and who is to be told."""
    held: list[tuple[Deferred[Growth], Growth]] = []
    read = Hub.read

    def reading(*arguments: Any, **options: Any) -> Deferred[Growth]:
        waiting: Deferred[Growth] = Deferred()
        held.append((waiting, result_of(ready(read(*arguments, **options)))))
        return waiting

    patched.setattr(Hub, "read", reading)
    return held


@pytest.mark.parametrize(("offset", "stays"), [(0, True), (0, False), (2, True), (2, False)])
def test_what_is_read_for_those_further_on_is_not_for_who_comes_meanwhile(
    api: BuildAPI, monkeypatch: pytest.MonkeyPatch, offset: int, *, stays: bool
) -> None:
    """It would lack the lines before; on a slow database, a read takes its time."""
    logid = result_of(a_log(api))
    late, ahead = WebSocketClient(Wire(api)), Wire(api)
    with monkeypatch.context() as patched:
        of_nothing = _held(patched)
        follow(late, "s", logid=logid)
    follow(WebSocketClient(ahead), "s", logid=logid, offset=offset)
    append(api, logid, "0\n1\n")
    with monkeypatch.context() as patched:
        further_on = _held(patched)
        append(api, logid, "2\n")
    if not stays:
        ahead.hang_up()

    for waiting, found in of_nothing + further_on:
        waiting.callback(found)

    assert text_of(late, "s") == "0\n1\n2\n"


@pytest.fixture
def crowd(api: BuildAPI, monkeypatch: pytest.MonkeyPatch) -> list[WebSocketClient]:
    """Return followers of log 1, of whom two are told in one turn of the reactor."""
    monkeypatch.setattr(hub, "TOLD_AT_ONCE", 2)
    logid = result_of(a_log(api))
    clients = [WebSocketClient(Wire(api)) for _ in range(5)]
    for client in clients:
        follow(client, "s", logid=logid)
    return clients


def test_a_crowd_is_told_in_slices(api: BuildAPI, crowd: list[WebSocketClient]) -> None:
    """Other work comes in between; each has every line once, also those that come meanwhile."""
    append(api, 1, "a\n")
    assert [len(of(client, "s")) for client in crowd] == [1, 1, 0, 0, 0]

    append(api, 1, "b\n")
    result_of(api.data.updates.finishLog(1))
    for _ in range(10):
        api.reactor.advance(0)

    assert all(text_of(client, "s") == "a\nb\n" for client in crowd)
    assert all("end" in client.frames[-1] for client in crowd)


def test_who_leaves_before_his_turn_is_not_told(
    api: BuildAPI, crowd: list[WebSocketClient]
) -> None:
    """The others are, and nothing is left to be done when all have gone."""
    append(api, 1, "a\n")
    crowd[2].ask("unsubscribe", sub="s")
    api.reactor.advance(0)
    assert [len(of(client, "s")) for client in crowd] == [1, 1, 0, 1, 1]

    append(api, 1, "b\n")
    for client in (*crowd[:2], *crowd[3:]):
        client.ask("unsubscribe", sub="s")
    api.reactor.advance(0)

    assert [len(of(client, "s")) for client in crowd] == [2, 2, 0, 1, 1]


def test_a_fault_in_a_later_slice_ends_the_streams_of_all_who_wait(
    api: BuildAPI,
    crowd: list[WebSocketClient],
    monkeypatch: pytest.MonkeyPatch,
    logged: list[LogEvent],
) -> None:
    """None of them waits for lines that will never come."""
    append(api, 1, "a\n")

    def fail(*_: object) -> None:
        raise RuntimeError("secret")

    monkeypatch.setattr(Follower, "take", fail)
    api.reactor.advance(0)

    assert [of(client, "s")[-1].get("code") for client in crowd] == [500] * 5
    logged.clear()


def _counted(function: Any, calls: list[Any]) -> Any:
    def counted(*arguments: Any, **named: Any) -> Any:
        calls.append(arguments)
        return function(*arguments, **named)

    return counted


def test_a_server_has_so_many_followers(system: str) -> None:  # noqa: ARG001  see api
    """One more is refused; who goes makes room."""
    api = in_memory_api(Settings(limits=Limits(followers=2)))
    ws = WebSocketClient(Wire(api))
    logid = result_of(a_log(api, "a\n"))
    for sub in range(2):
        follow(ws, sub, logid=logid)

    assert follow(ws, "s", logid=logid)["code"] == 503
    assert ws.ask("unsubscribe", sub=1)["code"] == 200
    assert follow(ws, "s", logid=logid)["code"] == 200
