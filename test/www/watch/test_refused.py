"""What cannot be watched, and how much."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from buildapi.service import BuildAPI
from buildapi.settings import Settings
from buildapi.testing import (
    WebSocketClient,
    Wire,
    a_build,
    in_memory_api,
    result_of,
)
from test.www.watch.watching import Mirror, refused


@pytest.mark.parametrize(
    ("frame", "code", "words"),
    [
        ({}, 400, "path"),
        ({"path": 5}, 400, "path"),
        ({"path": "nowhere"}, 404, "Invalid path"),
        ({"path": "builds/77"}, 404, "not found"),
        ({"path": "builds?colour=red"}, 400, "colour"),
        ({"path": "builds?limit=10001"}, 400, "10000 rows"),
        ({"path": "logs/1/raw"}, 400, "follow"),
        ({"path": "builds", "slow": "maybe"}, 400, "resume, latest, close"),
        ({"path": "builds", "since": 5}, 400, "since"),
    ],
)
def test_what_cannot_be_watched_is_refused(
    ws: WebSocketClient, frame: dict[str, Any], code: int, words: str
) -> None:
    """As a GET of it would be."""
    refusal = refused(ws, **frame)

    assert refusal[0] == code
    assert words in refusal[1]


def test_a_name_is_taken_once(api: BuildAPI, ws: WebSocketClient) -> None:
    """A refused watch frees it again, and so does unsubscribe."""
    Mirror(ws, "builds", sub="a")
    ws.send({"cmd": "watch", "path": "builds", "_id": "a"})
    (taken,) = ws.sync()
    ws.frames.clear()
    assert ws.ask("unsubscribe", sub="a")["code"] == 200
    result_of(a_build(api))

    assert taken["code"] == 409
    assert ws.sync() == []
    assert len(api.watches) == 0
    assert Mirror(ws, "builds", sub="a").rows


def test_a_socket_has_so_many_watches(small: BuildAPI) -> None:
    """One that ends makes room for another."""
    ws = WebSocketClient(Wire(small))
    Mirror(ws, "builds", sub=1)
    Mirror(ws, "builders", sub=2)
    refusal = refused(ws, path="masters")
    ws.ask("unsubscribe", sub=1)

    assert refusal == (409, "a socket can have 2 watches, not more")
    assert Mirror(ws, "masters", sub=3).rows


def test_a_watch_has_so_many_rows(small: BuildAPI) -> None:
    """Who gives no limit gets as many as there may be, and is told that there are more."""
    ws = WebSocketClient(Wire(small))
    cut = Mirror(ws, "builds?field=buildid")

    assert (cut.ids, cut.meta) == ([1, 2], {"total": 3, "truncated": True})
    assert refused(ws, path="builds?limit=3")[0] == 400


def test_a_watch_has_so_many_bytes(small: BuildAPI) -> None:
    """One that outgrows them ends, with an error that says so."""
    ws = WebSocketClient(Wire(small))
    Mirror(ws, "builds/1?field=state_string", sub="grows")
    result_of(small.data.updates.setBuildStateString(1, "x" * 2_000))
    inside = ws.sync()[-1]
    result_of(small.data.updates.setBuildStateString(1, "x" * 4_000))
    outside = ws.sync()[-1]

    assert "update" in inside
    assert (outside["sub"], outside["code"]) == ("grows", 400)
    assert "3000 bytes" in outside["error"]
    assert len(small.watches) == 0
    assert refused(ws, path="builds/1")[0] == 400


@pytest.mark.systems("sqlite")
def test_without_an_event_log_nothing_is_watched() -> None:
    """Changes that another program makes are told by nobody."""
    settings = Settings()
    api = in_memory_api(replace(settings, database=replace(settings.database, foreign_writer=True)))
    code, sentence = refused(WebSocketClient(Wire(api)), path="builds")
    api.stopService()

    assert code == 409
    assert "another program" in sentence
