"""Following a step, a build or a buildset: all logs in one ordered stream."""

from __future__ import annotations

from typing import Any

import pytest

from buildapi.data.gate import Gate, Restriction
from buildapi.service import BuildAPI
from buildapi.testing import (
    WebSocketClient,
    a_build,
    a_log,
    a_step,
    result_of,
)


def told(ws: WebSocketClient) -> list[str]:
    """Return what a stream has told, in short; check that each line is where it may be."""
    found: list[str] = []
    open_logs: set[int] = set()
    open_steps: set[int] = set()
    for frame in ws.sync():
        for word in ("begin", "finished"):
            row = frame.get(word)
            if row is None:
                continue
            its = row.get("logid"), row["stepid"]
            kind, now = ("log", open_logs) if its[0] is not None else ("step", open_steps)
            ident = its[0] if its[0] is not None else its[1]
            if kind == "log":
                assert its[1] in open_steps
            (now.add if word == "begin" else now.remove)(ident)
            found.append(f"{word} {kind} {row['name']}")
        if "content" in frame:
            assert frame["logid"] in open_logs
            assert frame["stepid"] in open_steps
            found += frame["content"].splitlines()
        if "end" in frame:
            found.append(f"end {frame['end']['num_lines']}")
        if "error" in frame:
            found.append(f"error {frame['code']}")
    return found


def begin(ws: WebSocketClient, path: str, **arguments: Any) -> Any:
    """Begin to follow; return the reply."""
    ws.send({"cmd": "follow", "_id": "s", "path": path, **arguments})
    (reply,) = (frame for frame in ws.sync() if frame.get("_id") == "s")
    ws.frames.remove(reply)
    return reply


def end_step(api: BuildAPI, stepid: int) -> None:
    """End a step."""
    result_of(api.data.updates.finishStep(stepid, 0, False))


BUILD = [
    "begin step compile",
    "begin log stdio",
    "a",
    "finished log stdio",
    "finished step compile",
    "begin step test",
    "begin log stdio",
    "b",
    "c",
    "finished log stdio",
    "finished step test",
    "end 3",
]


@pytest.mark.parametrize("moment", range(5))
@pytest.mark.parametrize("path", ["builds/1", "buildsets/1"])
def test_a_build_is_told_in_one_order_whenever_it_is_followed(
    api: BuildAPI, ws: WebSocketClient, moment: int, path: str
) -> None:
    """From before its first step to after its end."""
    buildid = result_of(a_build(api))
    updates = api.data.updates

    def first() -> None:
        stepid = result_of(a_step(api, buildid=buildid))
        result_of(a_log(api, "a\n", stepid=stepid, finished=True))

    def second() -> None:
        end_step(api, 1)
        result_of(a_step(api, "test", buildid))

    def third() -> None:
        result_of(a_log(api, "b\n", stepid=2))
        result_of(updates.appendLog(2, "c\n"))

    def fourth() -> None:
        result_of(updates.finishLog(2))
        end_step(api, 2)
        result_of(updates.finishBuild(buildid, 0))
        result_of(updates.completeBuildRequests([1], 0))

    for number, happen in enumerate((first, second, third, fourth)):
        if number == moment:
            assert begin(ws, path)["code"] == 200
        happen()
    if moment == 4:
        assert begin(ws, path)["code"] == 200

    assert told(ws) == BUILD


def test_a_step_is_told_alone(api: BuildAPI, ws: WebSocketClient) -> None:
    """Its end is the end, though the build goes on."""
    buildid = result_of(a_build(api))
    for name in ("one", "two"):
        stepid = result_of(a_step(api, name, buildid))
        result_of(a_log(api, f"{name}\n", stepid=stepid, finished=True))
    begin(ws, "builds/1/steps/two")
    end_step(api, 2)

    assert told(ws) == [
        "begin step two",
        "begin log stdio",
        "two",
        "finished log stdio",
        "finished step two",
        "end 1",
    ]


def test_a_step_that_was_not_started_begins_with_its_first_log(
    api: BuildAPI, ws: WebSocketClient
) -> None:
    """Its master never says when; a step without logs has not begun before its end."""
    buildid = result_of(a_build(api))
    for name in ("one", "two", "three"):
        result_of(api.data.updates.newStep(buildid, name))
    result_of(a_log(api, "a\n", stepid=1))
    begin(ws, "builds/1")
    result_of(a_log(api, "b\n", stepid=2, finished=True))

    begun = ["begin step one", "begin log stdio", "a"]
    assert told(ws) == [*begun, "begin step two", "begin log stdio", "b", "finished log stdio"]


def test_what_was_never_finished_ends_with_its_build(api: BuildAPI, ws: WebSocketClient) -> None:
    """Its master was killed, perhaps."""
    result_of(a_log(api, "a\n"))
    begin(ws, "builds/1")

    result_of(api.data.updates.finishBuild(1, 5))

    frames = ws.sync()
    assert told(ws)[-3:] == ["finished log stdio", "finished step compile", "end 1"]
    assert [f["finished"]["complete"] for f in frames if "finished" in f] == [False, False]


def test_who_resumes_gets_the_rest(api: BuildAPI, ws: WebSocketClient) -> None:
    """By the position in each log; markers come again."""
    result_of(a_log(api, "a\nb\nc\n", finished=True))
    end_step(api, 1)
    result_of(api.data.updates.finishBuild(1, 0))

    begin(ws, "builds/1", offsets={"1": 2})

    assert told(ws)[2:4] == ["c", "finished log stdio"]


def test_an_offset_is_that_of_logs_that_are_there(api: BuildAPI, ws: WebSocketClient) -> None:
    """Those that come later are told whole."""
    stepid = result_of(a_step(api))
    result_of(a_log(api, "a\nb\n", stepid=stepid, finished=True))
    begin(ws, "builds/1", offset=-1)
    result_of(a_log(api, "c\nd\n", stepid=stepid, name="late", finished=True))

    assert [line for line in told(ws) if len(line) == 1] == ["b", "c", "d"]


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        ({"path": "logs/1"}, 400),
        ({"path": "builds"}, 400),
        ({"path": 5}, 400),
        ({"path": "builds/9"}, 404),
        ({"path": "nosuch"}, 404),
        ({"path": "builds/1", "offsets": []}, 400),
        ({"path": "builds/1", "offsets": {"x": 1}}, 400),
        ({"path": "builds/1", "offsets": {"1": -1}}, 400),
        ({"path": "builds/1", "grep": "("}, 400),
    ],
)
def test_what_cannot_be_followed_is_refused(
    api: BuildAPI, ws: WebSocketClient, arguments: dict[str, Any], code: int
) -> None:
    """And the name of the stream is free."""
    result_of(a_log(api))

    assert begin(ws, **arguments)["code"] == code
    assert begin(ws, "builds/1")["code"] == 200


def test_nothing_is_left_of_a_stream_that_is_stopped(api: BuildAPI, ws: WebSocketClient) -> None:
    """Nor does anything come of it."""
    logid = result_of(a_log(api, "a\n"))
    before = api.mq.listeners
    begin(ws, "buildsets/1")
    assert api.mq.listeners > before

    assert ws.ask("unsubscribe", sub="s")["code"] == 200
    result_of(api.data.updates.appendLog(logid, "b\n"))

    assert api.mq.listeners == before
    assert "b" not in told(ws)
    assert api.web is not None
    assert api.web.hubs.followers == 0


def test_rights_that_vanish_end_a_stream(
    api: BuildAPI, ws: WebSocketClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With an error, and no more lines."""
    logid = result_of(a_log(api, "a\n"))
    begin(ws, "builds/1")
    monkeypatch.setattr(Gate, "restriction", lambda *_: Restriction(frozenset({1})))

    result_of(api.data.updates.appendLog(logid, "secret\n"))

    assert told(ws)[-1] == "error 403"
    assert "secret" not in told(ws)
