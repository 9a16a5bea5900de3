"""Following a step, a build or a buildset: what is made when its time is over."""

from __future__ import annotations

from typing import Any

import pytest
from twisted.internet.task import Clock

from buildapi.service import BuildAPI
from buildapi.testing import (
    WebSocketClient,
    Wire,
    a_build,
    a_log,
    a_step,
    result_of,
)


def follow(ws: WebSocketClient, path: str, **arguments: Any) -> None:
    """Begin to follow."""
    ws.send({"cmd": "follow", "_id": "s", "path": path, **arguments})


def told(ws: WebSocketClient) -> list[str]:
    """Return what a stream has told, in short."""
    found: list[str] = []
    for frame in ws.sync():
        match frame:
            case {"begin": row}:
                found.append(f"begin {row['name']}")
            case {"finished": row}:
                found.append(f"finished {row['name']}")
            case {"content": content, "name": name}:
                found += [f"{name}: {line[:9]}" for line in content.splitlines()]
            case {"end": end}:
                found.append(f"end {end['steps']} {end['logs']} {end['num_lines']}")
            case _:
                assert (frame["_id"], frame["code"]) == ("s", 200)
    return found


def a_finished_step(api: BuildAPI, name: str, buildid: int, logs: dict[str, str]) -> int:
    """Return a step that has ended, with logs that have."""
    stepid: int = result_of(a_step(api, name, buildid))
    for log, text in logs.items():
        result_of(a_log(api, text, stepid=stepid, name=log, finished=True))
    result_of(api.data.updates.finishStep(stepid, 0, False))
    return stepid


def finish(api: BuildAPI, buildid: int = 1) -> None:
    """End a build, and its request."""
    result_of(api.data.updates.finishBuild(buildid, 0))
    result_of(api.data.updates.completeBuildRequests([buildid], 0))


def read_on(api: BuildAPI, ws: WebSocketClient, wire: Wire) -> None:
    """Have a client that was slow read all that there is."""
    clock = api.reactor
    assert isinstance(clock, Clock)
    wire.slow = False
    for _ in range(3):
        # Of much that has come a part is told in each turn of the reactor.
        ws.sync()
        clock.advance(0)


@pytest.mark.parametrize("path", ["builds/1", "buildsets/1"])
def test_a_log_that_is_made_after_its_step_is_told(
    api: BuildAPI, ws: WebSocketClient, path: str
) -> None:
    """Behind the step's end, whether there is a step after it or not; and counted."""
    buildid = result_of(a_build(api))
    follow(ws, path)
    one = a_finished_step(api, "one", buildid, {"stdio": "a\n"})
    result_of(a_log(api, "b\n", stepid=one, name="late", finished=True))
    a_finished_step(api, "two", buildid, {})
    result_of(a_log(api, "c\n", stepid=one, name="later", finished=True))
    finish(api)

    assert told(ws) == [
        *("begin one", "begin stdio", "stdio: a", "finished stdio", "finished one"),
        *("begin late", "late: b", "finished late"),
        *("begin two", "finished two"),
        *("begin later", "later: c", "finished later"),
        "end 2 3 3",
    ]


def test_a_late_log_that_grows_is_told_beside_the_next_step(
    api: BuildAPI, ws: WebSocketClient
) -> None:
    """And one that nobody finishes ends with the build."""
    buildid = result_of(a_build(api))
    follow(ws, "builds/1")
    one = a_finished_step(api, "one", buildid, {})
    late = result_of(a_log(api, "b\n", stepid=one, name="late"))
    two = result_of(a_step(api, "two", buildid))
    result_of(api.data.updates.appendLog(late, "c\n"))
    result_of(api.data.updates.finishStep(two, 0, False))
    result_of(api.data.updates.appendLog(late, "d\n"))
    finish(api)

    assert told(ws) == [
        *("begin one", "finished one"),
        *("begin late", "late: b", "begin two", "late: c", "finished two", "late: d"),
        *("finished late", "end 2 1 3"),
    ]


def test_who_comes_later_is_told_of_a_late_log_within_its_step(
    api: BuildAPI, ws: WebSocketClient
) -> None:
    """It is there when the step is told."""
    buildid = result_of(a_build(api))
    one = a_finished_step(api, "one", buildid, {})
    result_of(a_log(api, "b\n", stepid=one, name="late", finished=True))
    finish(api)
    follow(ws, "builds/1")

    expected = ["begin one", "begin late", "late: b", "finished late", "finished one", "end 1 1 1"]
    assert told(ws) == expected


# More than the wire takes before it says stop, so that the stream is not at its end yet.
FILLING = "x" * 2000 + "\n"


def a_client_that_lags(api: BuildAPI, ws: WebSocketClient, wire: Wire, path: str) -> int:
    """Have a client who has not been told all of a step that has ended; return the build's id."""
    buildid: int = result_of(a_build(api))
    wire.slow = True
    follow(ws, path)
    a_finished_step(api, "one", buildid, {"stdio": FILLING * 200})
    return buildid


def test_a_step_is_not_at_its_end_before_its_client(
    api: BuildAPI, ws: WebSocketClient, wire: Wire
) -> None:
    """A log that is made while the client still reads is told."""
    buildid: int = result_of(a_build(api))
    stepid = result_of(a_step(api, "one", buildid))
    wire.slow = True
    follow(ws, "builds/1/steps/one")
    result_of(a_log(api, FILLING * 200, stepid=stepid, finished=True))
    result_of(api.data.updates.finishStep(stepid, 0, False))
    result_of(a_log(api, "b\n", stepid=stepid, name="late", finished=True))
    read_on(api, ws, wire)

    assert [line for line in told(ws) if "xx" not in line] == [
        *("begin one", "begin stdio", "finished stdio"),
        *("begin late", "late: b", "finished late", "finished one", "end 1 2 201"),
    ]


def test_a_build_is_not_at_its_end_before_its_client(
    api: BuildAPI, ws: WebSocketClient, wire: Wire
) -> None:
    """A step that is made after the build's end, while the client still reads, is told."""
    buildid = a_client_that_lags(api, ws, wire, "builds/1")
    finish(api)
    a_finished_step(api, "late", buildid, {"stdio": "b\n"})
    read_on(api, ws, wire)

    assert told(ws)[-6:] == [
        *("begin late", "begin stdio", "stdio: b", "finished stdio", "finished late"),
        "end 2 2 201",
    ]


def test_a_buildset_is_not_at_its_end_before_its_builds(api: BuildAPI, ws: WebSocketClient) -> None:
    """Its requests may be done with, and a build of it begin while another one still runs."""
    buildid = result_of(a_build(api))
    follow(ws, "buildsets/1")
    result_of(api.data.updates.completeBuildRequests([1], 6))
    row = result_of(api.data.get(("builds", buildid)))
    later, _ = result_of(api.data.updates.newBuild(row["builderid"], 1, row["workerid"]))
    a_finished_step(api, "two", later, {"stdio": "b\n"})

    assert told(ws) == ["begin two", "begin stdio", "stdio: b", "finished stdio", "finished two"]
    result_of(api.data.updates.finishBuild(later, 0))
    assert told(ws)[-1] == "finished two"
    result_of(api.data.updates.finishBuild(buildid, 0))
    assert told(ws)[-1] == "end 1 1 1"


def test_an_offset_is_that_of_the_logs_of_all_builds_that_are_there(
    api: BuildAPI, ws: WebSocketClient
) -> None:
    """Not only of those of the first build."""
    buildid = result_of(a_build(api))
    row = result_of(api.data.get(("builds", buildid)))
    later, _ = result_of(api.data.updates.newBuild(row["builderid"], 1, row["workerid"]))
    for each in (buildid, later):
        a_finished_step(api, "compile", each, {"stdio": f"no\n{each}\n"})
    follow(ws, "buildsets/1", offset=-1)

    assert [line for line in told(ws) if line.startswith("stdio")] == ["stdio: 1", "stdio: 2"]


def test_an_offset_is_not_that_of_a_log_that_comes_while_the_client_reads(
    api: BuildAPI, ws: WebSocketClient, wire: Wire
) -> None:
    """It is told whole, though it has not been looked for before."""
    buildid = result_of(a_build(api))
    a_finished_step(api, "one", buildid, {"stdio": FILLING * 200})
    two = result_of(a_step(api, "two", buildid))
    wire.slow = True
    follow(ws, "builds/1", offset=-100)
    result_of(a_log(api, "b\n" * 101, stepid=two, name="new"))
    read_on(api, ws, wire)

    assert told(ws).count("new: b") == 101
