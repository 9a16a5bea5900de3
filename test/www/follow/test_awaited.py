"""Following a log that is to come, of a step that may be to come."""

from __future__ import annotations

from typing import Any

import pytest
from twisted.internet.defer import Deferred

from buildapi.service import BuildAPI
from buildapi.testing import WebSocketClient, a_build, a_log, a_step, result_of
from test.www.follow.following import append, follow, of, text_of


def test_a_log_that_is_not_there_yet_is_waited_for(api: BuildAPI, ws: WebSocketClient) -> None:
    """As long as its step runs; other logs of the step are none of its business."""
    stepid = result_of(a_step(api))
    reply = follow(ws, "s", path="builds/1/steps/compile/logs/late")
    assert (reply["code"], reply["logid"]) == (200, None)

    result_of(a_log(api, "x\n", name="other", stepid=stepid))
    assert of(ws, "s") == []
    logid = result_of(a_log(api, "a\n", name="late", stepid=stepid))
    append(api, logid, "b\n")
    result_of(api.data.updates.finishLog(logid))

    assert text_of(ws, "s") == "a\nb\n"
    assert of(ws, "s")[-1] == {"sub": "s", "end": {"num_lines": 2, "complete": True}}


def test_a_step_that_ends_without_the_log_ends_the_stream(
    api: BuildAPI, ws: WebSocketClient
) -> None:
    """With an error, since it will never be there; the name is free again."""
    stepid = result_of(a_step(api))
    follow(ws, "s", path="builds/1/steps/compile/logs/late")

    result_of(api.data.updates.finishStep(stepid, 0, False))

    (frame,) = of(ws, "s")
    assert (frame["code"], frame["sub"]) == (404, "s")
    assert follow(ws, "s", path="builds/1/steps/compile/logs/late")["code"] == 404


def test_a_log_of_a_step_to_come_is_waited_for(api: BuildAPI, ws: WebSocketClient) -> None:
    """As long as its build runs; other steps are none of its business."""
    buildid = result_of(a_build(api))
    reply = follow(ws, "s", path=f"builds/{buildid}/steps/1/logs/stdio")
    assert (reply["code"], reply["logid"]) == (200, None)

    result_of(a_log(api, "x\n", stepid=result_of(a_step(api, "configure", buildid))))
    stepid = result_of(a_step(api, "compile", buildid))
    assert of(ws, "s") == []
    logid = result_of(a_log(api, "a\n", stepid=stepid))
    append(api, logid, "b\n")
    result_of(api.data.updates.finishLog(logid))

    assert text_of(ws, "s") == "a\nb\n"
    assert of(ws, "s")[-1] == {"sub": "s", "end": {"num_lines": 2, "complete": True}}


def test_a_build_that_ends_without_the_step_ends_the_stream(
    api: BuildAPI, ws: WebSocketClient
) -> None:
    """With an error; who asks afterwards, or for a build that nobody knows, is told at once."""
    buildid = result_of(a_build(api))
    path = f"builds/{buildid}/steps/compile/logs/stdio"
    follow(ws, "s", path=path)

    result_of(api.data.updates.finishBuild(buildid, 0))

    (frame,) = of(ws, "s")
    assert (frame["code"], frame["error"]) == (404, "the build has ended without such a step")
    assert follow(ws, "s", path=path)["code"] == 404
    assert follow(ws, "s", path="builds/99/steps/0/logs/stdio")["code"] == 404
    assert follow(ws, "s", path="steps/99/logs/stdio")["code"] == 404


def test_a_step_that_comes_while_we_look_is_found(
    api: BuildAPI, ws: WebSocketClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Begun, and its build ended, between two looks: it is there all the same."""
    buildid = result_of(a_build(api))
    get = api.data.get

    def getting(path: Any, **arguments: Any) -> Deferred[Any]:
        found = get(path, **arguments)
        if path == f"builds/{buildid}/steps/0":
            monkeypatch.undo()
            stepid = result_of(a_step(api, "compile", buildid))
            result_of(a_log(api, "a\n", stepid=stepid, finished=True))
            result_of(api.data.updates.finishStep(stepid, 0, False))
            result_of(api.data.updates.finishBuild(buildid, 0))
        return found

    monkeypatch.setattr(api.data, "get", getting)

    assert follow(ws, "s", path=f"builds/{buildid}/steps/0/logs/stdio")["code"] == 200
    assert text_of(ws, "s") == "a\n"


def test_a_log_that_comes_while_we_look_is_found(
    api: BuildAPI, ws: WebSocketClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Made, and its step ended, between two looks: it is there all the same."""
    stepid = result_of(a_step(api))
    get = api.data.get

    def getting(path: Any, **arguments: Any) -> Deferred[Any]:
        found = get(path, **arguments)
        if path == "steps/1/logs/late":
            monkeypatch.undo()
            result_of(a_log(api, "a\n", name="late", stepid=stepid, finished=True))
            result_of(api.data.updates.finishStep(stepid, 0, False))
        return found

    monkeypatch.setattr(api.data, "get", getting)

    assert follow(ws, "s", path="steps/1/logs/late")["logid"] == 1
    assert text_of(ws, "s") == "a\n"
