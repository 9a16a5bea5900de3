"""Streams of followed logs have names, and end with their client, or by its will."""

from __future__ import annotations

from typing import Any

import pytest
from twisted.internet.defer import Deferred

from buildapi.service import BuildAPI
from buildapi.testing import WebSocketClient, Wire, a_log, a_step, result_of
from test.www.follow.following import append, follow, text_of


def test_a_name_is_of_one_stream_at_a_time(api: BuildAPI, ws: WebSocketClient) -> None:
    """A second one of the name is refused; the first goes on."""
    logid = result_of(a_log(api, "a\n"))
    follow(ws, "s", logid=logid)

    assert follow(ws, "s", logid=logid)["code"] == 409
    append(api, logid, "b\n")
    assert text_of(ws, "s") == "a\nb\n"

    result_of(api.data.updates.finishLog(logid))
    assert follow(ws, "s", logid=logid)["code"] == 200


def test_numbers_and_texts_are_different_names(api: BuildAPI, ws: WebSocketClient) -> None:
    """1 is not "1"."""
    logid = result_of(a_log(api, "a\n"))

    assert follow(ws, 1, logid=logid)["code"] == 200
    assert follow(ws, "1", logid=logid)["code"] == 200


def test_nothing_more_comes_after_unsubscribe(api: BuildAPI, ws: WebSocketClient) -> None:
    """After its reply; the other streams go on, and the name is free."""
    logid = result_of(a_log(api, "a\n"))
    for sub in ("s", "t"):
        follow(ws, sub, logid=logid)
    before = api.mq.listeners

    assert ws.ask("unsubscribe", sub="s")["code"] == 200
    append(api, logid, "b\n")

    assert text_of(ws, "s") == "a\n"
    assert text_of(ws, "t") == "a\nb\n"
    assert ws.ask("unsubscribe", sub="t")["code"] == 200
    # Both shared one.
    assert api.mq.listeners == before - 1
    assert ws.ask("unsubscribe", sub="s")["code"] == 400
    assert follow(ws, "s", logid=logid)["code"] == 200


def test_a_stream_that_is_stopped_while_its_log_is_looked_up_never_begins(
    api: BuildAPI, ws: WebSocketClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nor does it take the name from the next one."""
    logid = result_of(a_log(api, "a\n"))
    before = api.mq.listeners
    looking: Deferred[Any] = Deferred()
    with monkeypatch.context() as patched:
        patched.setattr(api.data, "get", lambda *_, **__: looking)
        ws.send({"cmd": "followLog", "_id": "s", "logid": logid})
    assert ws.ask("unsubscribe", sub="s")["code"] == 200
    assert follow(ws, "s", logid=logid)["code"] == 200

    looking.callback({"logid": logid})

    assert text_of(ws, "s") == "a\n"
    assert api.mq.listeners == before + 1
    append(api, logid, "b\n")
    assert text_of(ws, "s") == "a\nb\n"


def test_a_client_that_goes_while_its_log_is_looked_up_leaves_nothing(
    api: BuildAPI, ws: WebSocketClient, wire: Wire, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No listener that nobody would ever close."""
    logid = result_of(a_log(api, "a\n"))
    before = api.mq.listeners
    looking: Deferred[Any] = Deferred()
    with monkeypatch.context() as patched:
        patched.setattr(api.data, "get", lambda *_, **__: looking)
        ws.send({"cmd": "followLog", "_id": "s", "logid": logid})

    wire.hang_up()
    looking.callback({"logid": logid})

    assert api.mq.listeners == before


def test_a_client_that_goes_away_ends_its_streams(
    api: BuildAPI, ws: WebSocketClient, wire: Wire
) -> None:
    """Those that wait for lines, and one that waits for its log."""
    stepid = result_of(a_step(api))
    logid = result_of(a_log(api, "a\n", stepid=stepid))
    before = api.mq.listeners
    follow(ws, "s", logid=logid)
    follow(ws, "t", path="steps/1/logs/late")
    assert api.mq.listeners == before + 2

    wire.hang_up()

    assert api.mq.listeners == before
