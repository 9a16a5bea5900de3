"""A client, and a service that allows little."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from buildapi.service import BuildAPI
from buildapi.settings import Limits, Settings
from buildapi.testing import (
    WebSocketClient,
    Wire,
    a_build,
    in_memory_api,
    result_of,
)


@pytest.fixture
def ws(api: BuildAPI) -> WebSocketClient:
    """Return a client that is connected."""
    return WebSocketClient(Wire(api))


@pytest.fixture
def small() -> Iterator[BuildAPI]:
    """Return a service with small limits, and three builds."""
    limits = Limits(watches=2, watch_rows=2, watch_bytes=3_000, subscription_bytes=10_000)
    api = in_memory_api(Settings(limits=limits))
    for _ in range(3):
        result_of(a_build(api))
    yield api
    api.stopService()
