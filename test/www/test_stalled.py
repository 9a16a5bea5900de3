"""What clients cost that do not read: measured by what Python allocates for them."""

from __future__ import annotations

import gc
import tracemalloc
from collections.abc import Callable
from typing import Any

import pytest

from buildapi.service import BuildAPI
from buildapi.settings import Limits, Settings
from buildapi.testing import WebSocketClient, Wire, a_build, a_log, in_memory_api, result_of
from buildapi.testing.wire import head

CLIENTS = 5
ROOM = 200_000
# For the objects of a connection; what is in the transport counts as what waits.
BESIDE = 65_536


def socket(command: dict[str, Any]) -> Callable[[BuildAPI], Wire]:
    """Return what connects a WebSocket that sends a command, and then reads nothing more."""

    def connect(api: BuildAPI) -> Wire:
        ws = WebSocketClient(Wire(api))
        ws.send({"_id": 1, **command})
        ws.sync()
        return ws.connection  # type: ignore[return-value]  # it is the one above

    return connect


def answer(path: str) -> Callable[[BuildAPI], Wire]:
    """Return what gets an endless answer, and reads nothing of it."""

    def connect(api: BuildAPI) -> Wire:
        wire = Wire(api)
        wire.send(head(f"GET {path} HTTP/1.1", {"Host": "x", "Accept": "text/event-stream"}))
        wire.take()
        return wire

    return connect


ROADS = {
    "consumer": socket({"cmd": "startConsuming", "path": "build.#"}),
    "subscription": socket({"cmd": "subscribe", "topic": "build.#"}),
    "latest": socket({"cmd": "subscribe", "topic": "build.#", "slow": "latest"}),
    "from the log": socket({"cmd": "subscribe", "topic": "build.#", "since": 0}),
    "watch": socket({"cmd": "watch", "path": "builds?property=*"}),
    "follower": socket({"cmd": "followLog", "logid": 1}),
    "event stream": answer("/api/v2/events?topic=build.%23"),
    "listener": answer("/sse/listen/builds/*/*"),
    "followed events": answer("/api/v2/logs/1/contents?follow=1"),
    "followed download": answer("/api/v2/logs/1/raw?follow=1"),
}


@pytest.mark.parametrize("size", [10, 20_000])
@pytest.mark.parametrize("road", ROADS)
def test_a_stalled_client_costs_no_more_than_it_may(road: str, size: int) -> None:
    """However small the messages are, whose objects take memory too; what waits is counted."""
    limits = Limits(subscription_bytes=ROOM, follow_gather_ms=0)
    api = in_memory_api(Settings(limits=limits))
    logid = result_of(a_log(api))
    result_of(a_build(api, "another"))

    def happen(number: int) -> None:
        text = f"{number} {'x' * size}"
        result_of(api.data.updates.setBuildProperty(1, "p", text, "test"))
        result_of(api.data.updates.setBuildStateString(1, f"{number}"))
        result_of(api.data.updates.appendLog(logid, f"o{text}\n" * 3))

    times = 300 if size < ROOM // 100 else 50
    alone = peak(happen, times)
    wires = [ROADS[road](api) for _ in range(CLIENTS)]
    for number in range(20):
        happen(number)
    for wire in wires:
        wire.take()
        wire.slow = True
    stalled = peak(happen, times)

    assert all(wire.waiting or wire.closed for wire in wires)
    assert stalled - alone < CLIENTS * (ROOM + BESIDE)
    api.stopService()


def peak(happen: Callable[[int], None], times: int) -> int:
    """Return the bytes that Python has allocated at most while things happen."""
    gc.collect()
    tracemalloc.start()
    try:
        for number in range(times):
            happen(number)
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
