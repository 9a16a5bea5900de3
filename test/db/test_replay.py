"""What the event log tells those who come back, and what it tells nobody any more."""

from __future__ import annotations

import pytest
from twisted.internet.task import Clock

from buildapi.db.eventlog import Draft, replayed
from buildapi.db.transaction import Tx
from buildapi.mq.event import Event
from buildapi.mq.history import Replay
from buildapi.service import BuildAPI
from buildapi.settings import Events, Settings
from buildapi.testing import NOON, in_memory_api, result_of

pytestmark = pytest.mark.usefixtures("system")

TTL_S = 30.0


class Kit:
    """A log in memory where control messages expire after TTL_S, and its clock."""

    def __init__(self) -> None:
        self.clock = Clock()
        self.clock.advance(NOON)
        settings = Settings(events=Events(control_ttl_s=TTL_S))
        self.api: BuildAPI = in_memory_api(settings, master=None, clock=self.clock)

    def say(self, *topics: str) -> None:
        """Append events at this moment."""

        def body(tx: Tx) -> None:
            for topic in topics:
                tx.say(Draft(topic, (), b"{}"))

        result_of(self.api.database.write(body))

    def replay(self, after: int = 0, most: int = 100) -> Replay:
        """Return what somebody gets who comes back now."""
        ttl_s = self.api.settings.events.control_ttl_s
        now = self.clock.seconds()
        reading = self.api.database.read(lambda r: replayed(r, after, most, now, ttl_s))
        found: Replay = result_of(reading)
        return found


def topics(replay: Replay) -> list[str]:
    """Return what is told."""
    return [event.topic for event in replay.events]


def test_a_control_message_expires_and_what_happened_does_not() -> None:
    """After the time of the setting, to the second, by the clock of the service."""
    kit = Kit()
    kit.say("build.1.new", "control.worker.1.kill")
    kit.clock.advance(TTL_S)
    assert topics(kit.replay()) == ["build.1.new", "control.worker.1.kill"]

    kit.clock.advance(0.5)
    assert topics(kit.replay()) == ["build.1.new"]


def test_each_message_expires_by_its_own_age() -> None:
    """A new one is told while an old one isn't."""
    kit = Kit()
    kit.say("control.build.1.stop")
    kit.clock.advance(TTL_S + 1)
    kit.say("control.build.2.stop")

    assert topics(kit.replay()) == ["control.build.2.stop"]


def test_what_is_not_told_is_passed_all_the_same() -> None:
    """Who asked again from the last event that was told would never get further."""
    kit = Kit()
    kit.say("build.1.new", "control.build.1.stop", "control.build.1.stop", "build.1.finished")
    kit.clock.advance(TTL_S + 1)

    assert kit.replay(after=1, most=2) == Replay([], 2, 3)
    assert topics(kit.replay(after=3, most=2)) == ["build.1.finished"]
    assert kit.replay(after=4) == Replay([], None, 4)


@pytest.mark.parametrize("topic", ["controlled.1.new", "build.control.new", "control"])
def test_only_control_messages_expire(topic: str) -> None:
    """Others may have such a word in their topic."""
    assert Event(1, topic, NOON, (), b"{}").is_current(NOON + 10**6, TTL_S)


def test_a_message_of_a_clock_that_was_ahead_is_current() -> None:
    """It has not been waiting for long, whatever the clock said."""
    assert Event(1, "control.build.1.stop", NOON + 3600, (), b"{}").is_current(NOON, TTL_S)
