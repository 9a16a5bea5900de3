"""Following a step, a build or a buildset: whatever its client does, and whatever happens."""

from __future__ import annotations

import re
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.internet.task import Clock

from buildapi.testing import (
    WebSocketClient,
    Wire,
    a_build,
    a_log,
    a_step,
    in_memory_api,
    result_of,
)
from test.www.follow.following import AT_ONCE

# Of each of these there are some; the number says which.
OBJECTS = st.integers(0, 3)

happenings = st.lists(
    st.one_of(
        st.tuples(st.sampled_from(["step", "finish_step", "log", "finish_log"]), OBJECTS),
        st.tuples(st.just("step_without_start"), OBJECTS),
        st.tuples(st.sampled_from(["late_log", "build", "finish_build", "compress"]), OBJECTS),
        st.tuples(st.sampled_from(["hang_up", "unsubscribe"]), st.none()),
        st.tuples(st.just("append"), st.integers(1, 60)),
        st.tuples(st.just("be_slow"), st.booleans()),
    ),
    # Hypothesis makes short lists, unless it is told not to: in five steps nothing goes wrong.
    min_size=12,
    max_size=40,
)


class Stream:
    """What one stream has told; it checks each frame."""

    def __init__(self, next_lines: dict[int, int], closed_steps: set[int]) -> None:
        self.end: Any = None
        self.begun: set[tuple[str, int]] = set()
        self.finished: set[tuple[str, int]] = set()
        # Of each log the next line, and the lines that have come.
        self.next = next_lines
        self.lines: dict[int, list[tuple[int, str]]] = {}
        self._closed_steps = closed_steps

    def hear(self, frame: Any) -> None:
        """Take a frame."""
        assert self.end is None, "nothing comes after the end"
        match frame:
            case {"begin": row}:
                self._begin(row)
            case {"finished": row}:
                self._finish(_name(row), row)
            case {"logid": logid, "stepid": stepid, "first": first, "next": following}:
                assert ("log", logid) in self.begun - self.finished
                assert ("step", stepid) in self.begun
                assert first == self.next.get(logid, 0)
                self.lines.setdefault(logid, []).extend(_lines(frame))
                self.next[logid] = following
            case {"end": end}:
                assert self.begun == self.finished
                kinds = [kind for kind, _ in self.begun]
                assert (end["steps"], end["logs"]) == (kinds.count("step"), kinds.count("log"))
                self.end = end
            case _:
                raise AssertionError(frame)

    def _begin(self, row: Any) -> None:
        name = _name(row)
        assert name not in self.begun, "each begins once"
        self.begun.add(name)
        if name[0] == "log":
            step = ("step", row["stepid"])
            assert step in self.begun
            assert step not in self.finished or row["stepid"] in self._closed_steps

    def _finish(self, name: tuple[str, int], row: Any) -> None:
        assert name in self.begun - self.finished
        self.finished.add(name)
        if name[0] == "log" and row["complete"]:
            assert self.next.get(name[1], 0) <= row["num_lines"]


def _name(row: Any) -> tuple[str, int]:
    return ("log", row["logid"]) if "logid" in row else ("step", row["stepid"])


def _lines(frame: Any) -> list[tuple[int, str]]:
    if "lines" in frame:
        found = [(number, text) for number, text in frame["lines"]]
        assert all(frame["first"] <= number < frame["next"] for number, _ in found)
        return found
    texts = frame["content"].split("\n")
    assert texts.pop() == "", "only whole lines"
    assert frame["next"] - frame["first"] == len(texts)
    return list(enumerate(texts, frame["first"]))


class Story:
    """A buildset of several builds, and a client that follows it, or a part of it."""

    def __init__(self, path: str, grep: str | None) -> None:
        self.api = in_memory_api(AT_ONCE)
        self._updates = self.api.data.updates
        self._path, self._grep = path, grep
        self._builds = [result_of(a_build(self.api))]
        self._request = result_of(self.api.data.get(("builds", 1)))
        self._steps: dict[int, int] = {}
        # Each log's step, and text.
        self._logs: dict[int, int] = {}
        self._texts: dict[int, str] = {}
        self._ended: set[tuple[str, int]] = set()
        # Of which a log can be told when they are over: it is made after them.
        self._closed_steps: set[int] = set()
        self._next: dict[int, int] = {}
        self._told: dict[int, list[tuple[int, str]]] = {}
        self._sub = 0
        self.step(0)
        self._connect()

    # What happens to the builds.

    def build(self, _: int) -> None:
        """Begin one more build, of the same request."""
        row = self._request
        if len(self._builds) < 3:
            made = self._updates.newBuild(row["builderid"], 1, row["workerid"])
            self._builds.append(result_of(made)[0])

    def step(self, which: int) -> None:
        """Begin a step."""
        if running := self._open("build", self._builds):
            buildid = running[which % len(running)]
            stepid = result_of(a_step(self.api, f"s{len(self._steps)}", buildid))
            self._steps[stepid] = buildid

    def step_without_start(self, which: int) -> None:
        """Make a step, and never say that it starts."""
        if running := self._open("build", self._builds):
            buildid = running[which % len(running)]
            made = self._updates.newStep(buildid, f"s{len(self._steps)}")
            self._steps[result_of(made)[0]] = buildid

    def log(self, which: int) -> None:
        """Make a log of a step that runs."""
        if running := self._open("step", self._steps):
            self._make_log(running[which % len(running)])

    def late_log(self, which: int) -> None:
        """Make a log of a step that has ended, in a build that has not."""
        over = [
            stepid
            for stepid, buildid in self._steps.items()
            if ("step", stepid) in self._ended and ("build", buildid) not in self._ended
        ]
        if over:
            stepid = over[which % len(over)]
            self._closed_steps.add(stepid)
            self._make_log(stepid)

    def append(self, count: int) -> None:
        """Append so many lines to a log."""
        if growing := self._open("log", self._logs):
            logid = growing[count % len(growing)]
            at = self._texts[logid].count("\n")
            text = "".join(f"{i} {'x' * (i * 37 % 3000)}\n" for i in range(at, at + count))
            self._texts[logid] += text
            result_of(self._updates.appendLog(logid, text))

    def compress(self, which: int) -> None:
        """Merge the chunks of a log."""
        if logs := list(self._logs):
            result_of(self._updates.compressLog(logs[which % len(logs)]))

    def finish_log(self, which: int) -> None:
        """End a log."""
        if growing := self._open("log", self._logs):
            self._end("log", growing[which % len(growing)])

    def finish_step(self, which: int) -> None:
        """End a step, though not always its logs."""
        if running := self._open("step", self._steps):
            self._end("step", running[which % len(running)])

    def finish_build(self, which: int) -> None:
        """End a build, but the first one: it shall be there to the end."""
        if running := self._open("build", self._builds[1:]):
            buildid = running[which % len(running)]
            for logid, stepid in self._logs.items():
                if self._steps[stepid] == buildid and ("log", logid) not in self._ended:
                    self._end("log", logid)
            self._end("build", buildid)

    # What the client does.

    def be_slow(self, slow: bool) -> None:
        """Read on, or not."""
        self._wire.slow = slow

    def hang_up(self, _: None) -> None:
        """Lose the connection, with what was not read; come back."""
        self.read()
        self._wire.hang_up()
        self._connect()

    def unsubscribe(self, _: None) -> None:
        """Leave the stream, and come back to it on the same connection."""
        self._wire.slow = False
        if self._stream.end is None and self._client.ask("unsubscribe", sub=self._sub):
            self.read()
            self._follow()

    def read(self) -> None:
        """Read what has come."""
        self._client.read()
        frames, self._client.frames = self._client.frames, []
        for frame in frames:
            if "_id" in frame:
                assert frame["code"] == 200
            else:
                assert frame["sub"] == self._sub
                self._stream.hear(frame)
        for logid, lines in self._stream.lines.items():
            self._told.setdefault(logid, []).extend(lines)
        self._stream.lines.clear()

    def end(self) -> None:
        """End everything; check what has been told, live and to who comes after the end."""
        for buildid in self._builds:
            self._end("build", buildid)
        result_of(self._updates.completeBuildRequests([1], 0))
        self._read_on()
        if self._path != "builds/1/steps/s0":
            self._check()
        # Also what the stream of a step could not tell, as it had ended.
        self._follow()
        self._read_on()
        self._check()
        assert self.api.web is not None
        assert self.api.web.hubs.followers == 0
        self._wire.hang_up()
        self.api.stopService()

    def _check(self) -> None:
        steps = [one for one in self._steps if self._is_followed(one)]
        logs = [one for one, stepid in self._logs.items() if stepid in steps]
        assert self._stream.end == {
            "steps": len(steps),
            "logs": len(logs),
            "num_lines": sum(self._texts[logid].count("\n") for logid in logs),
            "complete": True,
        }
        for logid in logs:
            contents = result_of(self.api.data.get(f"logs/{logid}/contents?limit=100000"))
            assert contents["content"] == self._texts[logid]
            lines = enumerate(contents["content"].split("\n")[:-1])
            wanted = [(n, text) for n, text in lines if re.search(self._grep or "", text)]
            assert self._told.get(logid, []) == wanted

    def _is_followed(self, stepid: int) -> bool:
        buildid = self._steps[stepid]
        return {
            "builds/1/steps/s0": stepid == 1,
            "builds/1": buildid == 1,
            "buildsets/1": True,
        }[self._path]

    def _read_on(self) -> None:
        clock = self.api.reactor
        assert isinstance(clock, Clock)
        self._wire.slow = False
        # Of much that has come a part is told in each turn of the reactor.
        while self._stream.end is None and clock.getDelayedCalls()[0].getTime() <= clock.seconds():
            self.read()
            clock.advance(0)
        self.read()
        assert self._stream.end is not None

    def _connect(self) -> None:
        self._wire = Wire(self.api)
        self._client = WebSocketClient(self._wire)
        self._follow()

    def _follow(self) -> None:
        self._sub += 1
        self._stream = Stream(self._next, self._closed_steps)
        command = {"cmd": "follow", "_id": self._sub, "path": self._path}
        if self._grep is not None:
            command["grep"] = self._grep
        offsets = {str(logid): line for logid, line in self._next.items()}
        self._client.send({**command, "offsets": offsets})

    def _open(self, kind: str, objects: Any) -> list[int]:
        return [one for one in objects if (kind, one) not in self._ended]

    def _make_log(self, stepid: int) -> None:
        logid = result_of(a_log(self.api, name=f"l{len(self._logs)}", stepid=stepid))
        self._logs[logid], self._texts[logid] = stepid, ""

    def _end(self, kind: str, ident: int) -> None:
        if (kind, ident) in self._ended:
            return
        self._ended.add((kind, ident))
        if kind == "log":
            result_of(self._updates.finishLog(ident))
        elif kind == "step":
            result_of(self._updates.finishStep(ident, 0, False))
        else:
            result_of(self._updates.finishBuild(ident, 0))


# Each takes long, as it has many steps.
@settings(max_examples=settings().max_examples // 2)
@given(
    happenings,
    st.sampled_from(["builds/1/steps/s0", "builds/1", "buildsets/1"]),
    st.sampled_from([None, "7 x"]),
)
def test_each_line_comes_once_and_markers_in_order(
    actions: list[tuple[str, Any]], path: str, grep: str | None
) -> None:
    """Whenever it is attached, dropped and resumed; at the end it has what the contents have."""
    story = Story(path, grep)
    for name, value in actions:
        getattr(story, name)(value)
        story.read()
    story.end()
