r"""
Following a log: its whole lines as they are appended, each exactly once, until its end.

    {"cmd": "followLog", "logid": 60, "offset": 0, "_id": 1}
    {"cmd": "followLog", "path": "builds/10/steps/2/logs/stdio", "offset": -200, "_id": 2}

    {"msg": "OK", "code": 200, "_id": 1, "logid": 60}
    {"sub": 1, "logid": 60, "first": 0, "next": 184, "content": "whole lines\n"}
    {"sub": 1, "end": {"num_lines": 4711, "complete": true}}

A follower holds a cursor, the number of the next line, and reads from the database; the bus only
says "look again". So a slow follower costs no memory, and many small appends arrive as few frames.
"""

from __future__ import annotations

from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import Any, Protocol

from twisted.internet.defer import Deferred, succeed

from buildapi.data.api import ROUTER, DataAPI
from buildapi.data.gate import Identity
from buildapi.data.logchunks import Part, growth
from buildapi.data.logs import Log
from buildapi.data.router import Match
from buildapi.db.connect import Reader
from buildapi.db.engine import LOGS, TooLarge
from buildapi.errors import BadRequest, NoSuchResource
from buildapi.mq.bus import Bus
from buildapi.mq.event import Event
from buildapi.mq.listener import Listener

# What one frame carries at most, but for a single longer chunk.
FRAME_BYTES = 128 * 1024


class Sink(Protocol):
    """Where a follower's frames go."""

    def send(self, frame: dict[str, Any]) -> None:
        """Send one frame."""

    def turn(self) -> AbstractAsyncContextManager[None]:
        """Let one follower after the other read and send, when that doesn't pile up."""


@dataclass(frozen=True)
class Target:
    """The log to follow.  logid: None if its step has not made it yet.  step: of whom."""

    logid: int | None
    slug: str = ""
    step: dict[str, Any] | None = None


async def target(data: DataAPI, logid: int | None, path: str | None, identity: Identity) -> Target:
    """
    Find the log that a follower names, by id or by path.

    A log that does not exist yet is waited for, as long as its step runs.
    Raises BadRequest, NoSuchPath, NoSuchResource.
    """
    if logid is not None:
        found = await data.get(("logs", logid), identity=identity)
        return Target(found["logid"])
    path = (path or "").strip("/")
    match = ROUTER.find(path)
    if match.route.resource is not Log or match.route.kind != "one":
        raise BadRequest(f"{path} is no log; a log's path is like builds/10/steps/2/logs/stdio")
    try:
        found = await data.get(path, identity=identity)
    except NoSuchResource:
        return await _awaited(data, path, match, identity)
    return Target(found["logid"])


async def _awaited(data: DataAPI, path: str, match: Match, identity: Identity) -> Target:
    step_path, _, _ = path.rpartition("/logs/")
    if not step_path:
        raise NoSuchResource("there is no such log")
    step = await data.get(step_path, identity=identity)
    if step["complete"]:
        # Look again: it may have come, and the step ended, in between.
        return Target((await data.get(path, identity=identity))["logid"])
    return Target(None, str(match.bound["log_slug"]), step)


class Follower:
    """
    One stream of one log.

    offset: the first line wanted, from 0; negative: so many from the end at that moment.
    """

    kind = "follower"

    def __init__(
        self, data: DataAPI, bus: Bus, identity: Identity, sink: Sink, sub: int | str, offset: int
    ) -> None:
        self._data = data
        self._bus = bus
        self._identity = identity
        self._sink = sink
        self.sub = sub
        self._offset = offset
        self._listener: Listener | None = None
        self._stopped = False
        self._news: Deferred[None] | None = None
        self._looked = True

    def follow(self, found: Target) -> Deferred[None]:
        """
        Stream; fire at the end, or after ``stop``.

        Fails with NoSuchResource if the log has been deleted, or will never be there.
        """
        return Deferred.fromCoroutine(self._followed(found))

    def stop(self) -> None:
        """Send nothing more."""
        self._hear_no_more()
        self._wake()

    def _hear_no_more(self) -> None:
        self._stopped = True
        if self._listener is not None:
            self._listener.close()

    async def _followed(self, found: Target) -> None:
        try:
            logid = found.logid
            if logid is None:
                logid = await self._appeared(found)
            if logid is not None:
                await self._streamed(logid)
        finally:
            self._hear_no_more()

    async def _streamed(self, logid: int) -> None:
        # Subscribe before the first read: a line appended in between would never wake us.
        self._listen([f"build.*.step.*.log.{logid}.*"])
        cursor, at_tail = None, False
        while not self._stopped:
            async with self._sink.turn():
                self._looked = True
                lines, complete, part = await self._read(logid, cursor, small=at_tail)
                if self._stopped:
                    return
                cursor, at_tail = part.next, part.next >= lines
                if part.text:
                    self._send_lines(logid, part)
                elif not at_tail:
                    # House-keeping has taken these lines away; nobody will ever get them.
                    cursor, at_tail = lines, True
            if at_tail and complete:
                self._sink.send({"sub": self.sub, "end": {"num_lines": lines, "complete": True}})
                return
            if at_tail:
                await self._something_new()

    def _send_lines(self, logid: int, part: Part) -> None:
        self._sink.send(
            {
                "sub": self.sub,
                "logid": logid,
                "first": part.first,
                "next": part.next,
                "content": part.text.decode("utf-8", "replace"),
            }
        )

    def _read(
        self, logid: int, cursor: int | None, *, small: bool
    ) -> Deferred[tuple[int, bool, Part]]:
        offset = self._offset

        def read(reader: Reader) -> tuple[int, bool, Part]:
            return growth(reader, logid, cursor, offset, FRAME_BYTES)

        if small:
            # At the tail there is little to read: no need for a thread.
            try:
                return succeed(self._data.database.inline("log growth", read))
            except TooLarge:
                pass
        return self._data.database.read(read, LOGS)

    async def _appeared(self, found: Target) -> int | None:
        """Wait until the step makes the log; None if stopped."""
        step = found.step or {}
        place = f"build.{step['buildid']}.step.{step['number']}"
        self._listen([f"{place}.log.*.newlog", f"{place}.finished"])
        while not self._stopped:
            self._looked = True
            # The step first: a log that is missing after its end will always be.
            complete = (await self._get(("steps", step["stepid"])))["complete"]
            rows = await self._get(("steps", step["stepid"], "logs"), {"slug": found.slug})
            if rows:
                return int(rows[0]["logid"])
            if complete:
                raise NoSuchResource("the step has ended without such a log")
            await self._something_new()
        return None

    def _get(
        self, path: tuple[int | str, ...], filters: dict[str, Any] | None = None
    ) -> Deferred[Any]:
        return self._data.get(path, filters=filters, identity=self._identity)

    def _listen(self, patterns: list[str]) -> None:
        if self._listener is not None:
            self._listener.close()
        if not self._stopped:
            self._listener = self._bus.listen(patterns, self._heard)

    def _heard(self, _: Event) -> None:
        self._looked = False
        self._wake()

    def _wake(self) -> None:
        news, self._news = self._news, None
        if news is not None:
            news.callback(None)

    async def _something_new(self) -> None:
        # A flag instead of a queue: however much happens, one look is enough.
        if self._looked and not self._stopped:
            self._news = Deferred()
            await self._news
