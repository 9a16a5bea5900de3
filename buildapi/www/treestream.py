r"""
Following all logs of a step, a build or a buildset, as one stream: the command ``follow``.

    {"cmd": "follow", "path": "builds/10", "_id": 1}

    {"msg": "OK", "code": 200, "_id": 1}
    {"sub": 1, "begin": {"stepid": 55, "number": 0, "name": "compile", …}}
    {"sub": 1, "begin": {"logid": 60, "stepid": 55, "name": "stdio", …}}
    {"sub": 1, "stepid": 55, "name": "stdio", "logid": 60, "first": 0, "next": 9, "content": "…"}
    {"sub": 1, "finished": {"logid": 60, "num_lines": 9, "complete": true, …}}
    {"sub": 1, "finished": {"stepid": 55, "results": 0, …}}
    {"sub": 1, "end": {"steps": 1, "logs": 1, "num_lines": 9, "complete": true}}

``offset``, ``grep``, ``context`` and ``streams`` mean for each log what they mean for a followed
one; a log that begins later is told from its first line. Steps come in order as they begin: when
they are started, or else with their first log. A line comes after the ``begin`` of its log and
before its ``finished``, and that before its step's. Logs of one step, and the builds of a buildset,
are told side by side. A log that was never finished is told up to the end of its build; its
``finished`` has ``"complete": false`` then.

A log may be made when its step has ended. Whoever follows the build or the buildset is told of it
like of any other, between its ``begin`` and its ``finished``, but behind the ``finished`` of its
step, if that was told already. The end of what is followed is the end of the stream: what is made
later still (a step of a build that is complete, a build of a buildset) is told to those who come
later, and to those who have not been told all by then.

To resume, pass ``offsets``: for each log of which there were lines its last ``next``, as in
``{"60": 9}``. No line comes twice then; ``begin`` and ``finished`` do, and are known by their ids.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

from twisted.internet.defer import Deferred, DeferredList
from twisted.python.failure import Failure

from buildapi.data.api import ROUTER
from buildapi.data.builds import Build
from buildapi.data.buildsets import Buildset
from buildapi.data.gate import Identity
from buildapi.data.steps import Step
from buildapi.errors import BadRequest
from buildapi.mq.event import Event
from buildapi.www.bell import Bell
from buildapi.www.follow import Follower, Target
from buildapi.www.hub import Hubs
from buildapi.www.logstream import Frames, Sink, integer, wanted_lines

Row = dict[str, Any]


@dataclass
class _Told:
    """
    A step that has begun.

    offset: of its logs that were there when the stream began.  logs: those that have begun, each
    with what fires at its end.  ended: whether there is nothing more to be told of it.
    """

    offset: int
    logs: dict[int, Deferred[None]] = field(default_factory=dict)
    followers: dict[int, Follower] = field(default_factory=dict)
    finished: bool = False
    ended: bool = False


class _TreeFrames(Frames):
    """The road of one log: its end is a marker."""

    num_lines = 0

    def end(self, num_lines: int) -> None:
        """Remember how many lines there are."""
        self.num_lines = num_lines


class TreeStream:
    """
    The stream of a ``follow``.

    Raises BadRequest if an argument is wrong.
    """

    kind = "follower"

    def __init__(
        self, hubs: Hubs, identity: Identity, sink: Sink, sub: int | str, frame: Row
    ) -> None:
        self.sub = sub
        self._hubs = hubs
        self._identity = identity
        self._sink = sink
        path = frame.get("path")
        if not isinstance(path, str):
            raise BadRequest("Invalid method argument 'path': a step, a build or a buildset")
        self._path = path.strip("/")
        self._offset = integer(frame, "offset")
        self._offsets = _offsets(frame.get("offsets", {}))
        self._wanted = wanted_lines(frame, hubs.limits)
        self._run: Callable[[], Any] = lambda: None
        self._bells: set[Bell] = set()
        self._steps: dict[int, _Told] = {}
        self._num_lines = 0
        self._stopped = False
        self._failure: Failure | None = None
        # Logs that began after the stream.
        self._new: set[int] = set()

    async def found(self) -> Row:
        """Find what is to be followed; return what the reply has besides."""
        match = ROUTER.find(self._path)
        resource = match.route.resource
        if match.route.kind != "one" or resource not in (Step, Build, Buildset):
            raise BadRequest(f"{self._path} is no step, build or buildset")
        row = await self._get(self._path)
        if resource is Buildset:
            self._run = lambda: self._buildset(row["bsid"])
        elif resource is Build:
            self._run = lambda: self._build(row["buildid"])
        else:
            self._run = lambda: self._build(row["buildid"], row["number"])
        return {}

    def begin(self) -> Deferred[None]:
        """Stream; fire at the end."""
        return Deferred.fromCoroutine(self._streamed())

    def stop(self) -> None:
        """Send nothing more."""
        self._stopped = True
        for told in list(self._steps.values()):
            for follower in list(told.followers.values()):
                follower.stop()
        for bell in list(self._bells):
            bell.ring()

    async def _streamed(self) -> None:
        try:
            await self._run()
        finally:
            stopped, self._stopped = self._stopped, True
            self.stop()
        if self._failure is not None:
            self._failure.raiseException()
        if not stopped:
            end = {
                "steps": len(self._steps),
                "logs": sum(len(told.logs) for told in self._steps.values()),
                "num_lines": self._num_lines,
                "complete": True,
            }
            self._send({"end": end})

    async def _buildset(self, bsid: int) -> None:
        requests: set[int] = set()
        bell = self._bell(
            ["build.*.new", "build.*.created", f"buildset.{bsid}.complete"],
            lambda event: event.message.get("buildrequestid", None) in {None, *requests},
        )
        running: dict[int, Deferred[None]] = {}
        at_start = True
        try:
            while not self._stopped:
                bell.rung = False
                complete = (await self._get(("buildsets", bsid)))["complete"]
                asked = await self._get("buildrequests", {"buildsetid": bsid})
                requests |= {row["buildrequestid"] for row in asked}
                for row in await self._get("builds", {"buildrequestid": sorted(requests)}):
                    if row["buildid"] not in running:
                        building = self._build(row["buildid"], at_start=at_start)
                        ending = Deferred.fromCoroutine(building).addErrback(self._failed)
                        running[row["buildid"]] = ending.addCallback(lambda _: bell.ring())
                at_start = False
                if complete and not bell.rung and all(it.called for it in running.values()):
                    return
                await bell.wait()
        finally:
            self._forget(bell)

    async def _build(self, buildid: int, only: int | None = None, *, at_start: bool = True) -> None:
        """
        Tell of a build, or of only one step of it.

        at_start: whether it was there when the stream began.
        """
        step = "*" if only is None else only
        logs = f"build.{buildid}.step.{step}.log.*"
        # The steps, by number, of which there are logs that were not told.
        late: set[int] = set()

        def heard(event: Event) -> bool:
            if event.topic.endswith(".newlog"):
                late.add(int(event.topic.split(".")[3]))
                self._new.add(event.message["logid"])
            return True

        bell = self._bell(
            [
                f"build.{buildid}.finished",
                f"build.{buildid}.step.{step}.*",
                f"{logs}.newlog",
                f"{logs}.complete",
            ],
            heard,
        )
        first = 0
        try:
            while not self._stopped:
                bell.rung = False
                complete = (await self._get(("builds", buildid)))["complete"]
                since = {"number__ge": min({first, *late})}
                numbers = since if only is None else {"number": only}
                steps = await self._get(("builds", buildid, "steps"), numbers, order="number")
                ended = [await self._step(row, complete, late, at_start) for row in steps]
                # A client may have taken its time, in which there was more.
                if not bell.rung and all(ended) and (complete or only is not None):
                    return
                if steps:
                    following = steps[-1]["number"] + 1
                    going_on = (
                        row["number"] for row, it in zip(steps, ended, strict=True) if not it
                    )
                    first = next(going_on, following)
                await bell.wait()
        finally:
            self._forget(bell)

    async def _step(self, row: Row, build_complete: bool, late: set[int], at_start: bool) -> bool:
        """Tell of a step as far as it has come; say whether it has ended."""
        number = row["number"]
        over = row["complete"] or build_complete
        told = self._steps.get(row["stepid"])
        if told is None:
            # Not every master says when a step starts; what writes a log has.
            begun = over or row["started_at"] is not None or await self._logs(row)
            if not begun or self._stopped:
                return False
            told = self._steps[row["stepid"]] = _Told(self._offset if at_start else 0)
            self._send({"begin": row})
        while not self._stopped and (not told.ended or number in late):
            late.discard(number)
            logs = await self._logs(row)
            self._begin_logs(told, logs, build_complete)
            told.ended = over and (build_complete or all(log["complete"] for log in logs))
            if not told.ended:
                return False
            await DeferredList(list(told.logs.values()))
        if not told.finished:
            told.finished = True
            self._send({"finished": row})
        return True

    def _logs(self, step: Row) -> Deferred[list[Row]]:
        return self._get(("steps", step["stepid"], "logs"))

    def _begin_logs(self, told: _Told, logs: list[Row], build_complete: bool) -> None:
        for log in logs:
            logid = log["logid"]
            if logid not in told.logs and not self._stopped:
                following = Deferred.fromCoroutine(self._log(log, told))
                told.logs[logid] = following.addErrback(self._failed)
            # What its master left unfinished will get no more lines once the build has ended.
            if build_complete and not log["complete"] and logid in told.followers:
                told.followers[logid].end_here()

    async def _log(self, log: Row, told: _Told) -> None:
        logid = log["logid"]
        self._send({"begin": log})
        members = {"sub": self.sub, "stepid": log["stepid"], "name": log["name"]}
        road = _TreeFrames(self._sink, members)
        offset = self._offsets.get(logid, 0 if logid in self._new else told.offset)
        follower = Follower(self._hubs, self._identity, road, offset, self._wanted)
        told.followers[logid] = follower
        try:
            await follower.follow(Target(logid))
        finally:
            del told.followers[logid]
        if not self._stopped:
            self._num_lines += road.num_lines
            row = {**log, "num_lines": road.num_lines, "complete": follower.complete}
            self._send({"finished": row})

    def _failed(self, failure: Failure) -> None:
        self._failure = self._failure or failure
        self.stop()

    def _bell(
        self, patterns: Iterable[str], matters: Callable[[Event], bool] = lambda _: True
    ) -> Bell:
        # It hears before the first look: nothing that happens in between is missed.
        bell = Bell(self._hubs.bus, patterns, matters)
        self._bells.add(bell)
        return bell

    def _forget(self, bell: Bell) -> None:
        self._bells.discard(bell)
        bell.close()

    def _send(self, members: Row) -> None:
        if not self._stopped or "end" in members:
            self._sink.send({"sub": self.sub, **members})

    def _get(
        self,
        path: str | tuple[int | str, ...],
        filters: Row | None = None,
        order: str | None = None,
    ) -> Deferred[Any]:
        return self._hubs.data.get(path, filters=filters, order=order, identity=self._identity)


def _offsets(given: Any) -> dict[int, int]:
    """Return from which line each log goes on; BadRequest."""
    if isinstance(given, dict) and all(
        name.isascii() and name.isdigit() and type(line) is int and line >= 0
        for name, line in given.items()
    ):
        return {int(name): line for name, line in given.items()}
    raise BadRequest("Invalid method argument 'offsets': an object of log ids and lines is wanted")
