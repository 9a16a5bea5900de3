"""Watches of clients that are slow, or go."""

from __future__ import annotations

import pytest

from buildapi.service import BuildAPI
from buildapi.testing import (
    WebSocketClient,
    Wire,
    a_build,
    result_of,
)
from test.www.watch.watching import Mirror, get


@pytest.mark.parametrize("slow", [None, "resume", "latest"])
def test_a_slow_client_gets_one_difference_when_it_reads_again(
    api: BuildAPI, slow: str | None
) -> None:
    """Nothing waits for it in the server meanwhile."""
    buildid = result_of(a_build(api))
    wire = Wire(api)
    ws = WebSocketClient(wire)
    more = {} if slow is None else {"slow": slow}
    watch = Mirror(ws, "builds", **more)
    wire.slow = True
    for number in range(300):
        state = f"{number} " + "x" * 1000
        result_of(api.data.updates.setBuildStateString(buildid, state))
    waiting = wire.waiting
    wire.slow = False
    watch.catch_up()

    assert waiting < Wire.FULL + 2_000
    assert watch.deltas < 100
    assert watch.rows == get(api, "builds")[0]
    assert ws.ended is None


def test_a_slow_client_that_wants_it_is_closed(small: BuildAPI) -> None:
    """As soon as more waits for it than may."""
    wire = Wire(small)
    ws = WebSocketClient(wire)
    Mirror(ws, "builds/1", slow="close")
    wire.slow = True
    for number in range(200):
        state = f"{number} " + "x" * 1000
        result_of(small.data.updates.setBuildStateString(1, state))
    wire.slow = False
    ws.read()

    assert ws.ended is not None
    assert ws.ended[0] == 4008
    assert len(small.watches) == 0


def test_who_goes_away_leaves_nothing_behind(api: BuildAPI) -> None:
    """Neither watches nor timers."""
    wire = Wire(api)
    ws = WebSocketClient(wire)
    timers = len(api.reactor.getDelayedCalls())
    for number, path in enumerate(["builds", "builds/1/steps", "masters"]):
        Mirror(ws, path, sub=number)
    wire.hang_up()
    reads = api.watches.reads
    result_of(a_build(api))

    assert len(api.watches) == 0
    assert api.watches.reads == reads
    assert len(api.reactor.getDelayedCalls()) < timers
