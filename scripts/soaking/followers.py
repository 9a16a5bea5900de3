"""
Followers of logs, by four roads: of one log after the other, each until its end.

Each keeps the text that it was sent, and goes on after the last whole line of it.
"""

from __future__ import annotations

import json
from abc import abstractmethod
from http.client import HTTPResponse
from threading import Event as Flag
from typing import Any, ClassVar

from soaking.visitor import Visitor, Wrong

AHEAD = 0.3


class Follower(Visitor):
    """
    One follower.

    ``texts``: what it has of each log.  ``ended``: the logs whose end it was told of, with the
    number of their lines.  ``enough``: set when it shall follow no further log.
    """

    # Whether the road can wait for a log that is not there yet.
    by_path: ClassVar[bool] = False

    def __init__(self, port: int, seed: int) -> None:
        super().__init__(port, seed)
        self.texts: dict[int, bytes] = {}
        self.ended: dict[int, int] = {}
        self.enough = Flag()
        self.resumed = 0
        self._logid: int | None = None
        self._path: str | None = None

    @property
    def done(self) -> bool:
        """Whether it has followed its last log to the end."""
        return self.enough.is_set() and self._logid is None

    @property
    def received(self) -> int:
        """How many lines it has."""
        return sum(text.count(b"\n") for text in self.texts.values())

    def session(self) -> None:
        """Choose a log, unless there is one already; follow it for a while."""
        if self._logid is None and self._path is None:
            self._choose()
        if self._logid is not None:
            self.resumed += bool(self.texts.get(self._logid))
            self.follow(f"logs/{self._logid}", self._lines())
        elif self._path is not None:
            self.follow(self._path, 0)

    @abstractmethod
    def follow(self, path: str, offset: int) -> None:
        """Follow a log from a line on, as long as it pleases."""

    def take(self, logid: int, first: int, content: bytes) -> None:
        """Take whole lines."""
        if self._logid is None:
            # By its path a log may turn out to be one that was followed before.
            self.texts.pop(logid, None)
            self.ended.pop(logid, None)
            self._logid, self._path = logid, None
        if (logid, first) != (self._logid, self._lines()):
            raise Wrong(f"line {first} of log {logid} came, not {self._lines()} of {self._logid}")
        if content and not content.endswith(b"\n"):
            raise Wrong(f"log {logid} came without its last newline")
        self.texts[logid] = self.texts.get(logid, b"") + content

    def end(self, number: int | None = None) -> None:
        """The log is followed to its end; it has so many lines, if that was told."""
        if self._logid is not None:
            self.ended[self._logid] = self._lines() if number is None else number
        self._logid = self._path = None

    def _lines(self) -> int:
        return self.texts.get(self._logid or 0, b"").count(b"\n")

    def _choose(self) -> None:
        # A log of one of the youngest builds, or the one that a build to come will have.
        with self.connected() as connection:
            self.ask(connection, "builds?order=-buildid&limit=10")
            builds = [build["buildid"] for build in self.answer(connection)["builds"]]
            if self.by_path and not self.enough.is_set() and self.random.random() < AHEAD:
                build = max(builds, default=0) + self.random.randint(0, 3)
                self._path = f"builds/{build}/steps/0/logs/stdio"
            elif builds:
                step = f"builds/{self.random.choice(builds)}/steps/{self.random.randint(0, 2)}"
                self.ask(connection, f"{step}/logs")
                logs = [log["logid"] for log in self.answer(connection)["logs"]]
                self._logid = next((logid for logid in logs if logid not in self.ended), None)


class SocketFollower(Follower):
    """``followLog`` on ``/ws``."""

    road = "followLog"
    by_path = True

    def follow(self, path: str, offset: int) -> None:
        """Read frames."""
        command = {"cmd": "followLog", "path": path, "offset": offset, "_id": 1}
        for frame in self.frames(command):
            if frame.get("code") == 404 and self._path is not None:  # noqa: PLR2004
                self.end()
            elif "error" in frame:
                raise Wrong(str(frame))
            else:
                self._heard(frame)
            if self._logid is None and self._path is None:
                return

    def _heard(self, frame: Any) -> None:
        if frame.get("logid") is not None and self._logid is None:
            self.take(frame["logid"], 0, b"")
        if "end" in frame:
            self.end(frame["end"]["num_lines"])
        elif "content" in frame:
            content = frame["content"].encode()
            self.take(frame["logid"], frame["first"], content)
            if frame["next"] != self._lines():
                raise Wrong(f"next is {frame['next']} after {self._lines()} lines")


class EventSourceFollower(Follower):
    """``contents?follow=1`` as server-sent events."""

    road = "follow/sse"

    def follow(self, path: str, offset: int) -> None:
        """Read blocks, from the Last-Event-ID on."""
        for fields in self.blocks(f"{path}/contents?follow=1&offset=0", str(offset)):
            frame = json.loads(fields.get("data", "{}"))
            if fields.get("event") == "lines":
                self.take(frame["logid"], frame["first"], frame["content"].encode())
                if int(fields["id"]) != self._lines():
                    raise Wrong(f"the id is {fields['id']} after {self._lines()} lines")
            elif fields.get("event") == "end":
                self.end(frame["end"]["num_lines"])
                return


class RawFollower(Follower):
    """``raw?follow=1``: text in chunks, cut anywhere."""

    road = "raw"

    def follow(self, path: str, offset: int) -> None:
        """Read pieces; what is no whole line when the connection is lost will come again."""
        with self.connected() as connection:
            self.ask(connection, f"{path}/raw?follow=1&offset={offset}")
            self._read(self.response(connection))

    def _read(self, response: HTTPResponse) -> None:
        assert self._logid is not None
        rest = b""
        for _ in self.moments():
            piece = response.read1(self.random.choice((1, 7, 65536)))
            whole, newline, rest = (rest + piece).rpartition(b"\n")
            self.take(self._logid, self._lines(), whole + newline)
            if not piece:
                if rest:
                    raise Wrong(f"log {self._logid} ended with {rest!r}")
                self.end()
                return


class LongPollFollower(Follower):
    """``contents?wait=…``, one connection for many answers."""

    road = "follow/poll"

    def follow(self, path: str, offset: int) -> None:
        """Ask for what follows; if nothing does, ask whether there is an end."""
        with self.connected() as connection:
            for _ in self.moments():
                self.ask(connection, f"{path}/contents?offset={offset}&wait=1")
                (chunk,) = self.answer(connection)["logchunks"]
                self.take(chunk["logid"], chunk["firstline"], chunk["content"].encode())
                if not chunk["content"]:
                    self.ask(connection, path)
                    (log,) = self.answer(connection)["logs"]
                    if log["complete"] and log["num_lines"] == offset:
                        self.end(offset)
                        return
                offset = self._lines()


FOLLOWERS: tuple[type[Follower], ...] = (
    SocketFollower,
    EventSourceFollower,
    RawFollower,
    LongPollFollower,
)
