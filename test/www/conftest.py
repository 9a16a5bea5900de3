"""What the tests of the web share: a service in memory, and an eye on its log."""

from __future__ import annotations

from collections.abc import Iterator
from typing import cast

import pytest
from twisted.logger import ILogObserver, LogEvent, globalLogPublisher

from buildapi.service import BuildAPI
from buildapi.testing import WebClient, in_memory_api


@pytest.fixture(autouse=True)
def logged() -> Iterator[list[LogEvent]]:
    """Collect what is logged; a failure that the test did not expect, and clear, fails it."""
    events: list[LogEvent] = []
    observe = cast("ILogObserver", events.append)
    globalLogPublisher.addObserver(observe)
    yield events
    globalLogPublisher.removeObserver(observe)
    assert [event["log_failure"] for event in events if "log_failure" in event] == []


@pytest.fixture
def api(system: str) -> Iterator[BuildAPI]:  # noqa: ARG001  where the service has its database
    """Return a service without threads; on each database system."""
    api = in_memory_api()
    yield api
    api.stopService()


@pytest.fixture
def web(api: BuildAPI) -> WebClient:
    """Return a client of it."""
    return WebClient(api)
