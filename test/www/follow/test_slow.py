"""Followers of logs that are slow: nothing piles up, and nobody waits for them."""

from __future__ import annotations

from buildapi.service import BuildAPI
from buildapi.testing import WebSocketClient, Wire, a_log, a_step, result_of
from test.www.follow.following import LINE, append, of, text_of


def test_a_slow_follower_makes_nothing_pile_up(
    api: BuildAPI, ws: WebSocketClient, wire: Wire
) -> None:
    """It gets everything, whenever it reads on."""
    logid = result_of(a_log(api))
    wire.slow = True
    ws.send({"cmd": "followLog", "_id": "s", "logid": logid})
    for _ in range(20):
        append(api, logid, LINE * 1_000)
    result_of(api.data.updates.finishLog(logid))
    for _ in range(200):
        api.reactor.advance(0)
    assert wire.waiting < 400_000

    wire.slow = False

    assert text_of(ws, "s") == LINE * 20_000
    assert of(ws, "s")[-1]["end"]["num_lines"] == 20_000


def test_many_slow_followers_of_one_socket_take_turns(
    api: BuildAPI, ws: WebSocketClient, wire: Wire
) -> None:
    """Not each of them may fill the buffer, or the socket would be closed."""
    logid = result_of(a_log(api, LINE * 1_000, finished=True))
    wire.slow = True
    for sub in range(100):
        ws.send({"cmd": "followLog", "_id": sub, "logid": logid})

    most = 0
    while wire.waiting:
        most = max(most, wire.waiting)
        ws._received += wire.sip()
    wire.slow = False
    ws._shake_hands()
    ws._read_frames()

    assert most < 600_000
    assert ws.ended is None
    for sub in range(100):
        assert text_of(ws, sub) == LINE * 1_000


def test_a_slow_follower_does_not_keep_events_back(
    api: BuildAPI, ws: WebSocketClient, wire: Wire
) -> None:
    """They stand in the buffer, in order, behind what was sent."""
    logid = result_of(a_log(api, LINE * 1_000))
    ws.ask("startConsuming", path="builds/*/new")
    wire.slow = True
    ws.send({"cmd": "followLog", "_id": "s", "logid": logid})
    result_of(a_step(api))

    wire.slow = False

    keys = [frame.get("k") for frame in ws.sync()]
    assert 0 < keys.index("builds/2/new") < len(keys) - 1
