"""One event: what happened, in which order, and under which names."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import orjson


@dataclass(frozen=True)
class Event:
    """
    One committed event.

    seq: position in the log, from 1, without gaps; 0 for one that was never stored.
    topic: dotted name, ``build.10.finished``.  keys: Buildbot's slash keys, maybe none.
    at: seconds since the epoch.  body: the message as JSON text, made once for all subscribers.
    builderid, projectid: the scope by which rights are decided, where there is one.
    """

    seq: int
    topic: str
    at: float
    keys: tuple[str, ...]
    body: bytes
    builderid: int | None = None
    projectid: int | None = None

    @cached_property
    def message(self) -> dict[str, Any]:
        """The body as a dictionary; subscribers share it and must not change it."""
        message: dict[str, Any] = orjson.loads(self.body)
        return message
