"""What tests of watches share: a client that has what it was told, and what a GET answers."""

from __future__ import annotations

from typing import Any

from buildapi.data.watches import TICKS_PER_BOOKMARK
from buildapi.service import BuildAPI
from buildapi.settings import Limits
from buildapi.testing import (
    WebClient,
    WebSocketClient,
    result_of,
)

TICK_S = Limits().bookmark_s / TICKS_PER_BOOKMARK


class Mirror:
    """
    What a client has that was written from the protocol's page alone.

    ``seq``: the position of what it has.  ``deltas``: how many it got.
    """

    def __init__(self, ws: WebSocketClient, path: str, sub: int | str = 1, **more: Any) -> None:
        self.path = path
        self.sub = sub
        self.deltas = 0
        self._ws = ws
        ws.send({"cmd": "watch", "path": path, "_id": sub, **more})
        ws.sync()
        (self.reply,) = [frame for frame in ws.frames if frame.get("_id") == sub]
        assert self.reply["code"] == 200, self.reply
        ws.frames.remove(self.reply)
        self.seq = self.reply["seq"]
        self.meta = self.reply["meta"]
        self._rows = dict(zip(self.reply["ids"], self.reply["rows"], strict=True))

    @property
    def rows(self) -> list[Any]:
        """Return the rows, in order."""
        return list(self._rows.values())

    @property
    def ids(self) -> list[Any]:
        """Return the ids of the rows, in order."""
        return list(self._rows)

    def catch_up(self) -> None:
        """Apply what has come."""
        for frame in self._ws.sync():
            if frame.get("sub") == self.sub:
                self._apply(frame)
        self._ws.frames[:] = [one for one in self._ws.frames if one.get("sub") != self.sub]

    def _apply(self, frame: dict[str, Any]) -> None:
        if "bookmark" in frame:
            assert frame["bookmark"] >= self.seq
            self.seq = frame["bookmark"]
            return
        assert frame["seq"] >= self.seq
        self.deltas += 1
        self.seq, self.meta = frame["seq"], frame.get("meta", self.meta)
        for ident in frame["leave"]:
            del self._rows[ident]
        for ident, row in frame["update"]:
            assert ident in self._rows
            self._rows[ident] = row
        for ident, row in frame["enter"]:
            assert ident not in self._rows
            self._rows[ident] = row
        if "order" in frame:
            assert set(frame["order"]) == set(self._rows)
            self._rows = {ident: self._rows[ident] for ident in frame["order"]}


def get(api: BuildAPI, path: str) -> tuple[list[Any], dict[str, Any], int]:
    """Return rows, meta and position of a GET; no rows where there is no such object."""
    answer = WebClient(api).get(f"/api/v2/{path}", {"Accept": "application/json"})
    body, seq = answer.json(), int(answer.headers["X-Seq"])
    if answer.status == 404:
        return [], {}, seq
    assert answer.status == 200, body
    meta = body.pop("meta")
    (rows,) = body.values()
    return rows, meta, seq


def refused(ws: WebSocketClient, **frame: Any) -> tuple[int, str]:
    """Return code and sentence with which a watch is refused."""
    reply = ws.ask("watch", **frame)
    return reply["code"], reply["error"]


def builderid_of(api: BuildAPI, name: str) -> int:
    """Return the id of a builder."""
    found: int = result_of(api.data.updates.findBuilderId(name))
    return found
