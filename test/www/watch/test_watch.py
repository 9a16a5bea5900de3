"""Watching a query over a WebSocket: its rows, and how they change."""

from __future__ import annotations

from typing import Any

import pytest
import sqlalchemy as sa

from buildapi.data.watches import TICKS_PER_BOOKMARK
from buildapi.db.tables import (
    build_data,
)
from buildapi.db.transaction import Tx
from buildapi.service import BuildAPI
from buildapi.settings import Limits, Settings
from buildapi.testing import (
    WebSocketClient,
    Wire,
    a_build,
    in_memory_api,
    result_of,
)
from test.www.watch.watching import TICK_S, Mirror, get


def test_the_reply_is_what_a_get_answers(api: BuildAPI, ws: WebSocketClient) -> None:
    """With its position, and the ids of the rows."""
    for _ in range(3):
        result_of(a_build(api))
    watch = Mirror(ws, "builds?order=-buildid&limit=2")

    assert (watch.rows, watch.meta, watch.seq) == get(api, "builds?order=-buildid&limit=2")
    assert watch.ids == [3, 2]
    assert set(watch.reply) == {"msg", "code", "_id", "seq", "rows", "ids", "meta"}


def test_rows_enter_change_and_leave(api: BuildAPI, ws: WebSocketClient) -> None:
    """What has no place at the end comes with the order of all."""
    first = result_of(a_build(api))
    Mirror(
        ws, "builds?complete=false&order=-buildid&field=buildid&field=complete&field=state_string"
    )
    ws.frames.clear()
    second = result_of(a_build(api))
    result_of(api.data.updates.setBuildStateString(first, "halfway"))
    result_of(api.data.updates.finishBuild(second, 0))
    row = {"buildid": first, "complete": False, "state_string": "halfway"}
    frames = [frame for frame in ws.sync() if frame.get("sub") == 1]
    entered = frames[0]["enter"][0]

    assert entered[0] == second
    assert frames[0]["order"] == [second, first]
    assert frames[0]["meta"] == {"total": 2}
    assert [frame["update"] for frame in frames[-2:]] == [[[first, row]], []]
    assert frames[-1] == {
        "sub": 1,
        "seq": api.seq(),
        "enter": [],
        "update": [],
        "leave": [second],
        "meta": {"total": 1},
    }


def test_the_id_is_told_though_it_was_not_asked_for(api: BuildAPI, ws: WebSocketClient) -> None:
    """Rows have the fields that the GET has."""
    buildid = result_of(a_build(api))
    watch = Mirror(ws, "builds?field=state_string")
    result_of(api.data.updates.setBuildStateString(buildid, "halfway"))
    watch.catch_up()

    assert watch.ids == [buildid]
    assert watch.rows == [{"state_string": "halfway"}]


@pytest.mark.parametrize(
    ("path", "ids"),
    [
        ("/", ["builders", "builds"]),
        ("application.spec?order=path&offset=1", ["application.spec", "branches/n:branchid"]),
        ("builds/1/properties", [0]),
        ("builds/1/property_list", ["owner"]),
        ("masters", [1]),
        ("builds/1", [1]),
        ("forceschedulers", []),
        ("builds/1/data", ["note"]),
    ],
)
def test_a_row_is_told_by_id_or_name_or_path(
    api: BuildAPI, ws: WebSocketClient, path: str, ids: list[Any]
) -> None:
    """What has none of them is 0: then there is but one."""
    buildid = result_of(a_build(api))
    result_of(api.data.updates.setBuildProperty(buildid, "owner", "alice", "test"))
    result_of(api.data.updates.setBuildData(buildid, "note", b"text", "test"))
    watch = Mirror(ws, path)

    assert watch.ids[:2] == ids
    assert watch.rows == get(api, path)[0]


def test_one_object_that_is_deleted_leaves_and_may_come_back(
    api: BuildAPI, ws: WebSocketClient
) -> None:
    """The watch goes on."""
    buildid = result_of(a_build(api))
    result_of(api.data.updates.setBuildData(buildid, "note", b"text", "test"))
    watch = Mirror(ws, f"builds/{buildid}/data/note")
    result_of(api.data.transaction(lambda tx: tx.run(sa.delete(build_data))))
    watch.catch_up()
    gone = watch.rows
    result_of(api.data.updates.setBuildData(buildid, "note", b"more", "test"))
    watch.catch_up()

    assert gone == []
    assert watch.rows == get(api, watch.path)[0] != []


def test_an_idle_watch_tells_its_position(api: BuildAPI, ws: WebSocketClient) -> None:
    """As often as a stream of events does, however much happens elsewhere."""
    watch = Mirror(ws, "masters")
    result_of(a_build(api))
    for _ in range(2 * TICKS_PER_BOOKMARK):
        api.reactor.advance(TICK_S)
        ws.read()

    assert watch.seq < (api.seq() or 0)
    assert ws.sync() == [{"sub": 1, "bookmark": api.seq()}] * 2


@pytest.mark.systems("sqlite")
def test_how_often_a_watch_tells_its_position_is_a_setting() -> None:
    """The one that streams of events have."""
    api = in_memory_api(Settings(limits=Limits(bookmark_s=4.0)))
    ws = WebSocketClient(Wire(api))
    Mirror(ws, "masters")
    for _ in range(12):
        api.reactor.advance(1.0)

    assert ws.sync() == [{"sub": 1, "bookmark": api.seq()}] * 3
    api.stopService()


def test_many_changes_of_a_transaction_are_one_difference(
    api: BuildAPI, ws: WebSocketClient
) -> None:
    """And one read."""
    buildid = result_of(a_build(api))
    updates = api.data.updates
    watch = Mirror(ws, "builds")
    reads = api.watches.reads

    def body(tx: Tx) -> None:
        for number in range(20):
            updates.setBuildStateString.within(tx, buildid, f"state {number}")

    result_of(api.data.transaction(body))
    watch.catch_up()

    assert watch.deltas == 1
    assert api.watches.reads == reads + 1
    assert watch.rows[0]["state_string"] == "state 19"
