"""A client of server-sent events, as a browser's EventSource is one."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, NamedTuple

from buildapi.testing.wire import Connection, head


class Block(NamedTuple):
    """One event as it was sent; a comment has no kind and no data."""

    kind: str
    data: Any


class EventSource:
    """
    A client of one stream.

    ``status``, ``head``: of the answer, the header lines in small letters; until they have come,
    None and "".  ``blocks``: what has come; who has read them takes them away.
    ``last_event_id``: what to come back with, for who has read all blocks.
    """

    def __init__(
        self, connection: Connection, path: str, headers: Mapping[str, str] | None = None
    ) -> None:
        self.connection = connection
        self.status: int | None = None
        self.head = ""
        self.blocks: list[Block] = []
        self.last_event_id = ""
        self._received = b""
        given = {"Host": "127.0.0.1:8010", "Accept": "text/event-stream", **(headers or {})}
        # The older HTTP, so that the answer does not come in chunks.
        connection.send(head(f"GET {path} HTTP/1.0", given))
        self.read()

    def read(self) -> list[Block]:
        """Read what has come; return the blocks."""
        while taken := self.connection.take():
            self._received += taken
        if self.status is None:
            self._read_head()
        if self.status is not None:
            *whole, self._received = self._received.split(b"\n\n")
            self.blocks += [self._block(block.decode()) for block in whole]
        return self.blocks

    def taken(self) -> list[Block]:
        """Read what has come, and take it away."""
        blocks, self.blocks = self.read(), []
        return blocks

    def _read_head(self) -> None:
        top, end, rest = self._received.partition(b"\r\n\r\n")
        if end:
            self.status = int(top.split()[1])
            self.head = top.decode().lower()
            self._received = rest

    def _block(self, text: str) -> Block:
        fields = dict(line.split(": ", 1) for line in text.splitlines() if line[:1] != ":")
        self.last_event_id = fields.get("id", self.last_event_id)
        return Block(fields.get("event", ""), json.loads(fields.get("data", "null")))
