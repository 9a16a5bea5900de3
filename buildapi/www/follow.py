r"""
Following a log: its whole lines as they are appended, each exactly once, until its end.

    {"cmd": "followLog", "logid": 60, "offset": 0, "_id": 1}
    {"cmd": "followLog", "path": "builds/10/steps/2/logs/stdio", "offset": -200, "_id": 2}
    {"cmd": "followLog", "logid": 60, "grep": "error|warning", "context": 2, "_id": 3}

    {"msg": "OK", "code": 200, "_id": 1, "logid": 60}
    {"sub": 1, "logid": 60, "first": 0, "next": 184, "content": "whole lines\n"}
    {"sub": 1, "end": {"num_lines": 4711, "complete": true}}

    {"sub": 3, "logid": 60, "first": 0, "next": 98, "lines": [[96, "e1 error"], [97, "oso it is"]]}

``offset`` counts lines from 0; negative, from the end at that moment. To resume, pass the last
``next`` as the offset, with the same other arguments: no line comes twice, none is lost.
``grep`` is an RE2 pattern and is matched with each line, without the letter of its stream; with
``context`` so many lines around each match come too. ``streams`` are letters, of o, e and h: in a
log of type s only lines of these come, and only they are searched. A frame tells of all lines from
``first`` up to ``next``: those that it does not have are not wanted. It may have none at all.

A path may lead to a log that is to come, of a step that is to come, in a build that runs: the
reply's ``logid`` is null then.

A stream that can't go on, since the log has been deleted or may not be read any more, ends with
``{"sub": 1, "error": sentence, "code": 404}``. So it does, with code 413, at a line that is longer
than ``limits.follow_line_bytes``, when all before it have been told: the sentence names it, and the
offset behind it. The download, which follows too, has such a line whole.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager, suppress
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

from twisted.internet.defer import Deferred
from twisted.python.failure import Failure

from buildapi.data.api import ROUTER, DataAPI
from buildapi.data.gate import Action, Identity, Scope
from buildapi.data.loglines import EVERY_LINE, Growth, Lines, Place, Selection
from buildapi.data.logs import Log
from buildapi.data.longlines import LongLine
from buildapi.data.router import Match
from buildapi.db.engine import LOGS
from buildapi.errors import BadRequest, Forbidden, LineTooLong, NoSuchResource
from buildapi.mq.event import Event
from buildapi.mq.listener import Listener
from buildapi.www.hub import Hub, Hubs, ready

T = TypeVar("T")


class Road(Protocol):
    """Where a follower's lines go, in whatever form."""

    def keeps_up(self) -> bool:
        """Say whether what is sent now leaves at once."""

    def room(self) -> Deferred[None]:
        """Fire when the client keeps up."""

    def turn(self) -> AbstractAsyncContextManager[None]:
        """Let one follower after the other read and send, when that doesn't pile up."""

    def begin(self, logid: int) -> Deferred[None]:
        """Get ready: the log is there.  What fails here ends the stream."""

    def idle(self) -> None:
        """Take note that all lines that there are have been sent."""

    def lines(self, lines: Lines) -> None:
        """Send lines."""

    def piece(self, text: bytes | None) -> bool:
        """
        Send a piece of a line that is too long for ``lines``; None: one begins.

        False if this road does not do that: then the stream ends with an error.
        """

    def end(self, num_lines: int) -> None:
        """Say that these are all."""


@dataclass(frozen=True)
class Target:
    """
    The log to follow.

    logid: None if its step has not made it yet.  step: the path of that step, which may be to come
    itself, in the build ``buildid``.
    """

    logid: int | None
    slug: str = ""
    step: str = ""
    buildid: int = 0


async def target(data: DataAPI, logid: int | None, path: str | None, identity: Identity) -> Target:
    """
    Find the log that a follower names, by id or by path.

    A log that does not exist yet is waited for, as long as its step runs; so is a step, as long as
    its build runs.
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
    slug = str(match.bound["log_slug"])
    try:
        step = await data.get(step_path, identity=identity)
    except NoSuchResource:
        return await _awaited_step(data, step_path, slug, identity)
    if step["complete"]:
        # Look again: it may have come, and the step ended, in between.
        return Target((await data.get(path, identity=identity))["logid"])
    return Target(None, slug, step_path, step["buildid"])


async def _awaited_step(data: DataAPI, path: str, slug: str, identity: Identity) -> Target:
    build_path, _, _ = path.rpartition("/steps/")
    if not build_path:
        raise NoSuchResource("there is no such step")
    build = await data.get(build_path, identity=identity)
    if build["complete"]:
        await data.get(path, identity=identity)  # it may have come, and the build ended
    return Target(None, slug, path, build["buildid"])


class Follower:
    """
    Follows one log.  It holds a place, never lines: a slow one costs no memory.

    offset: the first line wanted, from 0; negative: so many from the end at that moment.
    ``logid``: None until the log is there.  ``complete``: whether it was at the end of the stream.
    """

    kind = "follower"

    def __init__(
        self,
        hubs: Hubs,
        identity: Identity,
        road: Road,
        offset: int,
        wanted: Selection = EVERY_LINE,
    ) -> None:
        self.place: Place | None = None
        self.logid: int | None = None
        self.complete = False
        self._hubs = hubs
        self._data = hubs.data
        self._identity = identity
        self._road = road
        self._offset = offset
        self._wanted = wanted
        self._scope: Scope | None = None
        self._hub: Hub | None = None
        self._listener: Listener | None = None
        self._stopped = False
        self._looked = True
        self._ends_here = False
        self._waiting: Deferred[None] | None = None
        self._most_at_once = 2 * hubs.limits.follow_frame_bytes
        hubs.admit(self.stop)

    def follow(self, found: Target) -> Deferred[None]:
        """
        Stream; fire at the end, or after ``stop``.

        Fails with NoSuchResource if the log has been deleted, or will never be there; with
        Forbidden if it may not be read any more.
        """
        return Deferred.fromCoroutine(self._followed(found))

    def stop(self) -> None:
        """Send nothing more."""
        self._hear_no_more()
        self.release(None)

    def end_here(self) -> None:
        """End with the lines that there are now, though the log was never finished."""
        self._ends_here = True
        if self._hub is not None:
            self._hub.forget(self)
        self.release(None)

    def _hear_no_more(self) -> None:
        self._stopped = True
        self._hubs.dismiss(self.stop)
        if self._listener is not None:
            self._listener.close()
        hub, self._hub = self._hub, None
        if hub is not None:
            hub.forget(self)
            self._hubs.leave(hub)

    async def _followed(self, found: Target) -> None:
        try:
            self.logid = found.logid
            if self.logid is None and not self._stopped:
                self.logid = await self._appeared(found)
            if self.logid is not None and not self._stopped:
                await self._streamed(self.logid)
        finally:
            self._hear_no_more()

    async def _streamed(self, logid: int) -> None:
        # The hub hears before the first read: a line appended in between would never wake us.
        self._hub = hub = self._hubs.enter(logid, self._wanted)
        self._scope = await hub.belongs_to()
        self._check_rights()
        await self._road.begin(logid)
        while not self._stopped:
            async with self._road.turn():
                if self._stopped:
                    return
                heard = hub.heard
                try:
                    found = await ready(hub.read(self.place, self._offset, small=False))
                except LineTooLong as error:
                    await self._send_long(error)
                    continue
                await self._send(found)
            if self._stopped or self._ended(found):
                return
            if found.at_end:
                self._road.idle()
                await self._more(hub, found, heard)

    async def _more(self, hub: Hub, found: Growth, heard: int) -> None:
        """Wait at the hub, which goes on for us, until we have to look for ourselves."""
        if not self._stopped:
            # Before anything: the hub may find something at once.
            waiting = self._waiting = Deferred()
            if hub.wait(self, found, heard):
                # Where a line is too long we look for ourselves, and decide.
                with suppress(LineTooLong):
                    await waiting

    async def _send(self, found: Growth) -> None:
        if self._stopped:
            return
        self._check_rights()
        self.place = found.place
        if found.lines is None:
            return
        for lines in found.lines.split(self._hubs.limits.follow_frame_bytes):
            self._road.lines(lines)
            await self._road.room()
            if self._stopped:
                return

    async def _send_long(self, error: LineTooLong) -> None:
        """Send a line piece by piece, where that is possible; else raise the error."""
        if not (self._wanted.is_all and self._road.piece(None)):
            raise error
        line = LongLine(error.logid, error.line)
        database = self._data.database
        while piece := await database.read(line.following, LOGS):
            if self._stopped:
                return
            self._check_rights()
            self._road.piece(piece)
            await self._road.room()
        self.place = Place(error.line + 1, error.line + 1)

    def take(self, found: Growth) -> bool:
        """Take what the hub has found; say whether to wait on there."""
        assert self.place is not None  # noqa: S101  who waits has read
        try:
            self._check_rights()
        except Forbidden:
            self.release(Failure())
            return False
        lines = found.lines
        if lines is not None and lines.next > self.place.told:
            if not self._road.keeps_up() or len(lines.text) > self._most_at_once:
                # Read it again by oneself, as soon as there is room.
                self.release(None)
                return False
            self._road.lines(lines.since(self.place.told))
        self.place = _later(self.place, found.place)
        if self._ended(found):
            self._stopped = True
            self.release(None)
            return False
        return True

    def release(self, result: Failure | None) -> None:
        """Wait no more."""
        waiting, self._waiting = self._waiting, None
        if waiting is not None:
            waiting.callback(result)  # a Failure makes it an errback

    def _ended(self, found: Growth) -> bool:
        """Say that it is the end, if it is."""
        if not (found.at_end and (found.complete or self._ends_here)):
            return False
        self.complete = found.complete
        self._road.end(found.total)
        return True

    def _check_rights(self) -> None:
        assert self._scope is not None  # noqa: S101  it is the first that is read
        refusal = self._data.gate.refusal(self._identity, Action.READ, self._scope)
        if refusal is not None:
            raise Forbidden(refusal)

    async def _appeared(self, found: Target) -> int | None:
        """Wait until the step makes the log; None if stopped."""
        step = await self._begun(found)
        if step is None:
            return None
        place = f"build.{step['buildid']}.step.{step['number']}"

        async def look() -> int | None:
            # The step first: a log that is missing after its end will always be.
            complete = (await self._get(("steps", step["stepid"])))["complete"]
            rows = await self._get(("steps", step["stepid"], "logs"), {"slug": found.slug})
            if not rows and complete:
                raise NoSuchResource("the step has ended without such a log")
            return int(rows[0]["logid"]) if rows else None

        return await self._come([f"{place}.log.*.newlog", f"{place}.finished"], look)

    async def _begun(self, found: Target) -> dict[str, Any] | None:
        """Wait until the build begins the step; None if stopped."""

        async def look() -> dict[str, Any] | None:
            complete = (await self._get(("builds", found.buildid)))["complete"]
            try:
                step: dict[str, Any] = await self._get(found.step)
            except NoSuchResource:
                if complete:
                    raise NoSuchResource("the build has ended without such a step") from None
                return None
            return step

        build = f"build.{found.buildid}"
        return await self._come([f"{build}.step.*.new", f"{build}.finished"], look)

    async def _come(self, patterns: list[str], look: Callable[[], Awaitable[T | None]]) -> T | None:
        """Look again at each of these events until something is there; None if stopped."""
        # Hear before the first look: what comes in between would never wake us.
        self._listener = self._hubs.bus.listen(patterns, self._heard)
        while not self._stopped:
            self._looked = True
            thing = await look()
            if thing is not None:
                self._listener.close()
                return thing
            if self._looked and not self._stopped:
                self._waiting = Deferred()
                await self._waiting
        return None

    def _get(
        self, path: tuple[int | str, ...] | str, filters: dict[str, Any] | None = None
    ) -> Deferred[Any]:
        return self._data.get(path, filters=filters, identity=self._identity)

    def _heard(self, _: Event) -> None:
        self._looked = False
        self.release(None)


def _later(one: Place, other: Place) -> Place:
    if other.told >= one.told and other.seen >= one.seen and other.until >= one.until:
        # Nearly always: then all who wait share it.
        return other
    return Place(max(one.told, other.told), max(one.seen, other.seen), max(one.until, other.until))
