"""One event: what happened, in which order, and under which names."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import orjson

CONTROL = "control"
"""The first word of the topics of control messages."""


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

    def is_current(self, now: float, control_ttl_s: float) -> bool:
        """
        Say whether it may still be told at ``now``, by whoever reads it from the event log.

        What has happened stays true; a control message expires after ``control_ttl_s`` seconds
        (the setting events.control_ttl_s): nobody is told to kill a worker an hour late.
        """
        return now - self.at <= control_ttl_s or not self.topic.startswith(f"{CONTROL}.")

    @cached_property
    def told(self) -> bytes:
        """
        The event as all roads tell it: ``{"seq": …, "topic": …, "at": …, "m": {…}}``, with ``keys``
        if it has any; made once for all subscribers.
        """
        keys = b',"keys":%b' % orjson.dumps(self.keys) if self.keys else b""
        head = (self.seq, orjson.dumps(self.topic), orjson.dumps(self.at))
        return b'{"seq":%d,"topic":%b,"at":%b%b,"m":%b}' % (*head, keys, self.body)

    @cached_property
    def frames(self) -> dict[int | str | tuple[int | str, int], bytes]:
        """What was made of it for sockets, by the name of their stream and its compression."""
        return {}

    @cached_property
    def message(self) -> dict[str, Any]:
        """The body as a dictionary; subscribers share it and must not change it."""
        message: dict[str, Any] = orjson.loads(self.body)
        return message

    def forget(self) -> None:
        """Forget what was made of it for those who tell it; it is made again when it is wanted."""
        for name in ("told", "frames", "message"):
            self.__dict__.pop(name, None)
