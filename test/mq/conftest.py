"""What the tests of the bus share."""

from collections.abc import Iterator
from typing import cast

import pytest
from twisted.logger import ILogObserver, LogEvent, globalLogPublisher


@pytest.fixture(autouse=True)
def logged() -> Iterator[list[LogEvent]]:
    """Collect what is logged; a failure that the test did not expect, and clear, fails it."""
    events: list[LogEvent] = []
    observe = cast("ILogObserver", events.append)
    globalLogPublisher.addObserver(observe)
    yield events
    globalLogPublisher.removeObserver(observe)
    assert [event["log_failure"] for event in events if "log_failure" in event] == []
