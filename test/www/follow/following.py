"""What tests of followed logs share: a client that checks what it is told."""

from __future__ import annotations

from typing import Any

from buildapi.service import BuildAPI
from buildapi.settings import Limits, Settings
from buildapi.testing import WebSocketClient, result_of

LINE = "x" * 1023 + "\n"


# The clock of a service in memory stands still: nothing is ever gathered to its end.
AT_ONCE = Settings(limits=Limits(follow_gather_ms=0))


def append(api: BuildAPI, logid: int, text: str) -> None:
    """Append to a log."""
    result_of(api.data.updates.appendLog(logid, text))


def of(ws: WebSocketClient, sub: int | str) -> list[Any]:
    """Return what came of one stream."""
    return [frame for frame in ws.sync() if frame.get("sub") == sub]


def text_of(ws: WebSocketClient, sub: int | str, first: int = 0) -> str:
    """Return the lines that came, having checked that none is missing or there twice."""
    lines = [frame for frame in of(ws, sub) if "content" in frame]
    for frame in lines:
        assert frame["first"] == first
        assert frame["content"].endswith("\n")
        first += frame["content"].count("\n")
        assert frame["next"] == first
    return "".join(frame["content"] for frame in lines)


def follow(ws: WebSocketClient, sub: int | str, **arguments: Any) -> Any:
    """Begin to follow; return the reply."""
    ws.send({"cmd": "followLog", "_id": sub, **arguments})
    (reply,) = (frame for frame in ws.sync() if frame.get("_id") == sub)
    ws.frames.remove(reply)
    return reply
