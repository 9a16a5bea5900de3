"""A service whose logs are followed, and a client."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from buildapi.service import BuildAPI
from buildapi.testing import WebSocketClient, Wire, in_memory_api
from test.www.follow.following import AT_ONCE


@pytest.fixture
def api(system: str) -> Iterator[BuildAPI]:  # noqa: ARG001  where the service has its database
    """Return a service that gathers no lines."""
    api = in_memory_api(AT_ONCE)
    yield api
    api.stopService()


@pytest.fixture
def wire(api: BuildAPI) -> Wire:
    """Return a connection."""
    return Wire(api)


@pytest.fixture
def ws(wire: Wire) -> WebSocketClient:
    """Return a WebSocket on it."""
    return WebSocketClient(wire)
