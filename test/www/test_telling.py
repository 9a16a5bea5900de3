"""Consumers without a position: a crowd of them is told in turns."""

from __future__ import annotations

from typing import Any

import pytest
from twisted.internet.task import Clock

from buildapi.mq.bus import Bus
from buildapi.mq.event import Event
from buildapi.mq.rest import MANY, TURN_S
from buildapi.service import BuildAPI
from buildapi.testing import WebClient, WebSocketClient, Wire, a_build, result_of
from buildapi.testing.wire import head
from buildapi.www.telling import Telling

KEY = "builds/1/new"


def an_event(seq: int) -> Event:
    """Return an event."""
    return Event(seq, "build.1.new", 0.0, (KEY,), b"{}")


class Connection:
    """What is told on it takes so long that a turn is over when MANY have been told once."""

    def __init__(self, bus: Bus, clock: Clock, most: int = 100) -> None:
        self.told: list[tuple[str, int]] = []
        self._clock = clock
        self.telling = Telling(bus, self._tell, most)
        bus.listen_keys("builds/*/new", self.telling.hear)

    def _tell(self, key: str, event: Event) -> None:
        self._clock.rightNow += TURN_S / MANY + 0.0001
        self.told.append((key, event.seq))


@pytest.fixture
def clock() -> Clock:
    """Return a clock that stands still, save when something is told."""
    return Clock()


@pytest.fixture
def bus(clock: Clock) -> Bus:
    """Return a bus that has its eye on it."""
    return Bus(clock=clock)


def test_a_crowd_is_told_in_turns_and_in_order(bus: Bus, clock: Clock) -> None:
    """Whatever comes between two turns."""
    crowd = [Connection(bus, clock) for _ in range(2 * MANY)]

    bus.publish([an_event(1)])
    assert [len(one.told) for one in crowd] == [1] * MANY + [0] * MANY
    bus.publish([an_event(2)])
    clock.advance(0)

    assert [one.told for one in crowd] == [[(KEY, 1), (KEY, 2)]] * (2 * MANY)


def test_what_waits_is_bounded(bus: Bus, clock: Clock) -> None:
    """Whoever waits for much is told out of turn."""
    crowd = [Connection(bus, clock, most=3) for _ in range(MANY + 1)]
    bus.publish([an_event(1)])

    bus.publish([an_event(2)])
    assert crowd[-1].told == []
    bus.publish([an_event(3)])

    assert crowd[-1].told == [(KEY, 1), (KEY, 2), (KEY, 3)]


def test_who_has_gone_is_told_nothing(bus: Bus, clock: Clock) -> None:
    """Not even what happened before."""
    crowd = [Connection(bus, clock) for _ in range(MANY + 1)]
    bus.publish([an_event(1)])

    crowd[-1].telling.forget()
    clock.advance(0)

    assert crowd[-1].told == []


@pytest.fixture
def busy(api: BuildAPI) -> BuildAPI:
    """Return a service in which others are told first, who take a whole turn."""
    clock: Any = api.reactor

    def take() -> None:
        clock.rightNow += TURN_S / MANY + 0.0001

    for _ in range(MANY):
        stream = api.mq.subscribe("#")
        stream.ready = take
    return api


def test_nothing_comes_after_the_reply_of_who_stops(busy: BuildAPI) -> None:
    """What was heard before comes before it."""
    ws = WebSocketClient(Wire(busy))
    ws.ask("startConsuming", path="builds/*/new")
    result_of(a_build(busy))
    assert ws.frames == []

    ws.send({"cmd": "stopConsuming", "path": "builds/*/new", "_id": 5})
    busy.reactor.advance(0)

    assert [frame.get("k", frame.get("msg")) for frame in ws.sync()] == [KEY, "OK"]


def test_a_stream_of_events_has_what_came_before_a_path_was_removed(
    busy: BuildAPI, web: WebClient
) -> None:
    """And nothing after."""
    wire = Wire(busy)
    wire.send(head(f"GET /sse/listen/{KEY} HTTP/1.0", {"Host": "127.0.0.1:8010"}))
    _, _, uuid = wire.take().decode().rpartition("data: ")
    result_of(a_build(busy))
    assert wire.take() == b""

    assert web.get(f"/sse/remove/{uuid.strip()}/{KEY}").body == b"ok"

    assert wire.take().count(b'"key":["builds","1","new"]') == 1
