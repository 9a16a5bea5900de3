"""What ends the stream of a followed log before its end: rights, faults, a deletion."""

from __future__ import annotations

from typing import Any

import pytest
from twisted.internet.defer import Deferred
from twisted.logger import LogEvent

from buildapi.data.gate import Gate, Identity, Restriction
from buildapi.db.eventlog import Draft
from buildapi.db.tables import logchunks, logs
from buildapi.db.transaction import Tx
from buildapi.service import BuildAPI
from buildapi.testing import WebSocketClient, a_log, a_step, result_of
from test.www.follow.following import append, follow, of, text_of


def test_the_gate_is_asked_for_whom_a_log_is_read(
    api: BuildAPI, ws: WebSocketClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With the identity of the client, also while a log is waited for."""
    stepid = result_of(a_step(api))
    asked: list[Identity] = []
    get = api.data.get

    def getting(path: Any, **arguments: Any) -> Deferred[Any]:
        asked.append(arguments["identity"])
        return get(path, **arguments)

    monkeypatch.setattr(api.data, "get", getting)
    follow(ws, "s", path="steps/1/logs/late")
    monkeypatch.undo()

    result_of(a_log(api, "a\n", name="late", stepid=stepid))
    assert text_of(ws, "s") == "a\n"
    assert {identity.name for identity in asked} == {"anonymous"}


def test_a_fault_of_ours_ends_the_stream_only(
    api: BuildAPI,
    ws: WebSocketClient,
    monkeypatch: pytest.MonkeyPatch,
    logged: list[LogEvent],
) -> None:
    """With an error; the socket lives, and the name is free."""
    logid = result_of(a_log(api, "a\n"))
    follow(ws, "s", logid=logid)

    def fail(*_: object) -> None:
        raise RuntimeError("secret")

    with monkeypatch.context() as patched:
        patched.setattr(api.database, "inline", fail)
        append(api, logid, "b\n")

    assert of(ws, "s")[-1] == {
        "sub": "s",
        "error": "an internal error; the server's log has it",
        "code": 500,
    }
    assert "secret" in str(logged[-1]["log_failure"])
    logged.clear()
    assert follow(ws, "s", logid=logid, offset=1)["code"] == 200


def test_rights_that_vanish_end_a_stream(
    api: BuildAPI, ws: WebSocketClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With an error, and without the lines that came then."""
    logid = result_of(a_log(api, "a\n"))
    follow(ws, "s", logid=logid)
    hidden = Restriction(frozenset({1}))
    monkeypatch.setattr(Gate, "restriction", lambda *_: hidden)

    append(api, logid, "secret\n")
    monkeypatch.undo()
    append(api, logid, "later\n")

    assert text_of(ws, "s") == "a\n"
    assert of(ws, "s")[-1]["code"] == 403


def test_a_log_that_is_deleted_ends_a_stream(api: BuildAPI, ws: WebSocketClient) -> None:
    """With an error, as soon as something makes us look."""
    logid = result_of(a_log(api, "a\n"))
    follow(ws, "s", logid=logid)

    def delete(tx: Tx) -> None:
        for table, key in ((logchunks, logchunks.c.logid), (logs, logs.c.id)):
            gone = table.delete().where(key == logid)
            tx.connection.execute(str(gone.compile(compile_kwargs={"literal_binds": True})))
        tx.say(Draft(f"build.1.step.0.log.{logid}.complete", (), b"{}", None, None))

    result_of(api.data.transaction(delete))

    assert of(ws, "s")[-1]["code"] == 404
