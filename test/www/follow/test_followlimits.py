"""What following a log may cost: each limit, at it and above it."""

from __future__ import annotations

from typing import Any

import pytest

from buildapi.settings import Limits, Settings
from buildapi.testing import WebSocketClient, Wire, a_log, in_memory_api, result_of

LIMITS = Limits(follow_gather_ms=0, follow_frame_bytes=1_000, grep_characters=5, context_lines=2)


@pytest.fixture
def ws(system: str) -> WebSocketClient:  # noqa: ARG001  where the service has its database
    """Return a client of a service with a log of a hundred lines."""
    api = in_memory_api(Settings(limits=LIMITS))
    logid = result_of(a_log(api))
    result_of(api.data.updates.appendLog(logid, f"o{'x' * 98}\n" * 100))
    result_of(api.data.updates.finishLog(logid))
    return WebSocketClient(Wire(api))


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        ({"grep": "x" * 5}, 200),
        ({"grep": "x" * 6}, 400),
        ({"grep": "x", "context": 2}, 200),
        ({"grep": "x", "context": 3}, 400),
        ({"grep": "x", "context": -1}, 400),
    ],
)
def test_a_search_has_its_limits(ws: WebSocketClient, arguments: dict[str, Any], code: int) -> None:
    """What is too much is refused in a sentence that names it."""
    reply = ws.ask("followLog", logid=1, **arguments)

    assert reply["code"] == code
    if code != 200:
        assert list(arguments)[-1] in reply["error"]


def test_a_frame_has_as_many_lines_as_it_may_have(ws: WebSocketClient) -> None:
    """Ten lines of a hundred bytes are a thousand; together the frames are the log."""
    ws.ask("followLog", logid=1)
    contents = [frame["content"] for frame in ws.sync() if "content" in frame]

    assert {len(content) for content in contents} == {1_000}
    assert "".join(contents) == f"o{'x' * 98}\n" * 100


def test_much_that_comes_at_once_comes_in_many_frames(system: str) -> None:  # noqa: ARG001  see ws
    """However many: those who wait are told one part after the other."""
    api = in_memory_api(Settings(limits=Limits(follow_gather_ms=20, follow_frame_bytes=1_000)))
    logid = result_of(a_log(api))
    ws = WebSocketClient(Wire(api))
    ws.ask("followLog", logid=logid)
    line = f"o{'x' * 998}\n"

    for _ in range(500):
        result_of(api.data.updates.appendLog(logid, line))
    for _ in range(600):
        api.reactor.advance(0.02)

    assert "".join(f["content"] for f in ws.sync() if "content" in f) == line * 500
