"""Following logs over the WebSocket: each line exactly once, until the end."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import count
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.defer import Deferred
from twisted.logger import LogEvent

from buildapi.data.gate import Gate, Identity, Restriction
from buildapi.data.loglines import Growth, Lines
from buildapi.db.eventlog import Draft
from buildapi.db.tables import logchunks, logs
from buildapi.db.transaction import Tx
from buildapi.service import BuildAPI
from buildapi.settings import Limits, Settings
from buildapi.testing import WebSocketClient, Wire, a_build, a_log, a_step, in_memory_api, result_of
from buildapi.www import hub
from buildapi.www.connection import Sockets
from buildapi.www.follow import Follower
from buildapi.www.hub import Hub, ready

LINE = "x" * 1023 + "\n"


# The clock of a service in memory stands still: nothing is ever gathered to its end.
AT_ONCE = Settings(limits=Limits(follow_gather_ms=0))


@pytest.fixture
def api(system: str) -> Iterator[BuildAPI]:  # noqa: ARG001  where the service has its database
    """Return a service that gathers no lines."""
    api = in_memory_api(AT_ONCE)
    yield api
    api.stopService()


@pytest.fixture
def wire(api: BuildAPI) -> Wire:
    """Return a connection."""
    return Wire(api)


@pytest.fixture
def ws(wire: Wire) -> WebSocketClient:
    """Return a WebSocket on it."""
    return WebSocketClient(wire)


def append(api: BuildAPI, logid: int, text: str) -> None:
    """Append to a log."""
    result_of(api.data.updates.appendLog(logid, text))


def of(ws: WebSocketClient, sub: int | str) -> list[Any]:
    """Return what came of one stream."""
    return [frame for frame in ws.sync() if frame.get("sub") == sub]


def text_of(ws: WebSocketClient, sub: int | str, first: int = 0) -> str:
    """Return the lines that came, having checked that none is missing or there twice."""
    lines = [frame for frame in of(ws, sub) if "content" in frame]
    for frame in lines:
        assert frame["first"] == first
        assert frame["content"].endswith("\n")
        first += frame["content"].count("\n")
        assert frame["next"] == first
    return "".join(frame["content"] for frame in lines)


def follow(ws: WebSocketClient, sub: int | str, **arguments: Any) -> Any:
    """Begin to follow; return the reply."""
    ws.send({"cmd": "followLog", "_id": sub, **arguments})
    (reply,) = (frame for frame in ws.sync() if frame.get("_id") == sub)
    ws.frames.remove(reply)
    return reply


def test_what_is_there_comes_and_then_what_is_appended(api: BuildAPI, ws: WebSocketClient) -> None:
    """The reply first, whole lines, and at last the end."""
    logid = result_of(a_log(api, "a\n"))
    assert follow(ws, "s", logid=logid) == {"msg": "OK", "code": 200, "_id": "s", "logid": logid}

    append(api, logid, "b\nc\n")
    append(api, logid, "d\n")
    result_of(api.data.updates.finishLog(logid))

    assert of(ws, "s") == [
        {"sub": "s", "logid": logid, "first": 0, "next": 1, "content": "a\n"},
        {"sub": "s", "logid": logid, "first": 1, "next": 3, "content": "b\nc\n"},
        {"sub": "s", "logid": logid, "first": 3, "next": 4, "content": "d\n"},
        {"sub": "s", "end": {"num_lines": 4, "complete": True}},
    ]


def test_the_reply_comes_before_the_first_line(api: BuildAPI, ws: WebSocketClient) -> None:
    """Or a client would not know what the stream is called."""
    logid = result_of(a_log(api, "a\n"))

    ws.send({"cmd": "followLog", "_id": "s", "logid": logid})

    assert "code" in ws.sync()[0]


def test_lines_of_streams_keep_their_letter(api: BuildAPI, ws: WebSocketClient) -> None:
    """As in /contents."""
    logid = result_of(a_log(api, "oout\neerr\n", kind="s"))
    follow(ws, "s", logid=logid)

    assert text_of(ws, "s") == "oout\neerr\n"


@pytest.mark.parametrize(
    "path",
    [
        "logs/1",
        "/logs/1/",
        "steps/1/logs/stdio",
        "builds/1/steps/0/logs/stdio",
        "builds/1/steps/compile/logs/stdio",
        "builders/1/builds/1/steps/0/logs/stdio",
        "builders/1/builds/1/steps/compile/logs/stdio",
    ],
)
def test_a_log_is_found_by_any_path(api: BuildAPI, ws: WebSocketClient, path: str) -> None:
    """The reply tells its id."""
    result_of(a_log(api, "a\n", finished=True))

    assert follow(ws, "s", path=path)["logid"] == 1
    assert text_of(ws, "s") == "a\n"


@pytest.mark.parametrize(
    ("offset", "first", "text"),
    [
        (0, 0, "0\n1\n2\n3\n"),
        (1, 1, "1\n2\n3\n"),
        (3, 3, "3\n"),
        (-1, 3, "3\n"),
        (-3, 1, "1\n2\n3\n"),
        (-4, 0, "0\n1\n2\n3\n"),
        (-99, 0, "0\n1\n2\n3\n"),
        (-(2**62), 0, "0\n1\n2\n3\n"),
    ],
)
def test_an_offset_says_where_to_begin(
    api: BuildAPI, ws: WebSocketClient, offset: int, first: int, text: str
) -> None:
    """Lines from the beginning; negative, from the end at that moment."""
    logid = result_of(a_log(api, "0\n1\n2\n3\n"))
    follow(ws, "s", logid=logid, offset=offset)

    append(api, logid, "4\n")

    assert text_of(ws, "s", first) == f"{text}4\n"


@pytest.mark.parametrize("offset", [4, 6])
def test_an_offset_beyond_the_end_waits_for_that_line(
    api: BuildAPI, ws: WebSocketClient, offset: int
) -> None:
    """A client that resumes at the end has everything."""
    logid = result_of(a_log(api, "0\n1\n2\n3\n"))
    follow(ws, "s", logid=logid, offset=offset)
    assert text_of(ws, "s") == ""

    for line in "4567":
        append(api, logid, f"{line}\n")

    assert text_of(ws, "s", offset) == "".join(f"{i}\n" for i in range(offset, 8))


@pytest.mark.parametrize("offset", [3, 1_000_000, 2**63, 2**64 - 1])
def test_an_offset_beyond_the_end_of_a_finished_log_ends_at_once(
    api: BuildAPI, ws: WebSocketClient, offset: int
) -> None:
    """With the number of lines."""
    logid = result_of(a_log(api, "0\n1\n", finished=True))

    follow(ws, "s", logid=logid, offset=offset)

    assert of(ws, "s") == [{"sub": "s", "end": {"num_lines": 2, "complete": True}}]


def test_an_empty_log_only_ends(api: BuildAPI, ws: WebSocketClient) -> None:
    """When it does."""
    logid = result_of(a_log(api))
    follow(ws, "s", logid=logid)
    assert of(ws, "s") == []

    result_of(api.data.updates.finishLog(logid))

    assert of(ws, "s") == [{"sub": "s", "end": {"num_lines": 0, "complete": True}}]


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        ({"logid": 99}, 404),
        ({"logid": -1}, 404),
        ({"logid": 2**63}, 404),
        ({"path": "logs/99"}, 404),
        ({"path": "builds/99/steps/0/logs/stdio"}, 404),
        ({"path": "nosuch"}, 404),
        ({"path": ""}, 404),
        ({"path": "builds/1"}, 400),
        ({"path": "steps/1/logs"}, 400),
        ({"path": "logs/1/raw"}, 400),
        ({"path": "logs/1/contents"}, 400),
        ({"path": "%ff"}, 404),
        ({"path": "a" * 9_000}, 404),
    ],
)
def test_what_is_no_log_is_refused(
    api: BuildAPI, ws: WebSocketClient, arguments: dict[str, Any], code: int
) -> None:
    """And the name of the stream is free again."""
    result_of(a_log(api, "a\n", finished=True))

    assert follow(ws, "s", **arguments)["code"] == code
    assert follow(ws, "s", logid=1)["code"] == 200


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


def test_a_name_is_of_one_stream_at_a_time(api: BuildAPI, ws: WebSocketClient) -> None:
    """A second one of the name is refused; the first goes on."""
    logid = result_of(a_log(api, "a\n"))
    follow(ws, "s", logid=logid)

    assert follow(ws, "s", logid=logid)["code"] == 409
    append(api, logid, "b\n")
    assert text_of(ws, "s") == "a\nb\n"

    result_of(api.data.updates.finishLog(logid))
    assert follow(ws, "s", logid=logid)["code"] == 200


def test_numbers_and_texts_are_different_names(api: BuildAPI, ws: WebSocketClient) -> None:
    """1 is not "1"."""
    logid = result_of(a_log(api, "a\n"))

    assert follow(ws, 1, logid=logid)["code"] == 200
    assert follow(ws, "1", logid=logid)["code"] == 200


def test_nothing_more_comes_after_unsubscribe(api: BuildAPI, ws: WebSocketClient) -> None:
    """After its reply; the other streams go on, and the name is free."""
    logid = result_of(a_log(api, "a\n"))
    for sub in ("s", "t"):
        follow(ws, sub, logid=logid)
    before = api.mq.listeners

    assert ws.ask("unsubscribe", sub="s")["code"] == 200
    append(api, logid, "b\n")

    assert text_of(ws, "s") == "a\n"
    assert text_of(ws, "t") == "a\nb\n"
    assert ws.ask("unsubscribe", sub="t")["code"] == 200
    # Both shared one.
    assert api.mq.listeners == before - 1
    assert ws.ask("unsubscribe", sub="s")["code"] == 400
    assert follow(ws, "s", logid=logid)["code"] == 200


def test_a_stream_that_is_stopped_while_its_log_is_looked_up_never_begins(
    api: BuildAPI, ws: WebSocketClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nor does it take the name from the next one."""
    logid = result_of(a_log(api, "a\n"))
    before = api.mq.listeners
    looking: Deferred[Any] = Deferred()
    with monkeypatch.context() as patched:
        patched.setattr(api.data, "get", lambda *_, **__: looking)
        ws.send({"cmd": "followLog", "_id": "s", "logid": logid})
    assert ws.ask("unsubscribe", sub="s")["code"] == 200
    assert follow(ws, "s", logid=logid)["code"] == 200

    looking.callback({"logid": logid})

    assert text_of(ws, "s") == "a\n"
    assert api.mq.listeners == before + 1
    append(api, logid, "b\n")
    assert text_of(ws, "s") == "a\nb\n"


def test_a_client_that_goes_while_its_log_is_looked_up_leaves_nothing(
    api: BuildAPI, ws: WebSocketClient, wire: Wire, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No listener that nobody would ever close."""
    logid = result_of(a_log(api, "a\n"))
    before = api.mq.listeners
    looking: Deferred[Any] = Deferred()
    with monkeypatch.context() as patched:
        patched.setattr(api.data, "get", lambda *_, **__: looking)
        ws.send({"cmd": "followLog", "_id": "s", "logid": logid})

    wire.hang_up()
    looking.callback({"logid": logid})

    assert api.mq.listeners == before


def test_a_client_that_goes_away_ends_its_streams(
    api: BuildAPI, ws: WebSocketClient, wire: Wire
) -> None:
    """Those that wait for lines, and one that waits for its log."""
    stepid = result_of(a_step(api))
    logid = result_of(a_log(api, "a\n", stepid=stepid))
    before = api.mq.listeners
    follow(ws, "s", logid=logid)
    follow(ws, "t", path="steps/1/logs/late")
    assert api.mq.listeners == before + 2

    wire.hang_up()

    assert api.mq.listeners == before


def test_merged_chunks_are_the_same_lines(api: BuildAPI, ws: WebSocketClient) -> None:
    """Compressing a log changes nothing that a follower sees."""
    logid = result_of(a_log(api))
    follow(ws, "s", logid=logid)
    for i in range(50):
        append(api, logid, f"{i}\n")
        if i % 7 == 0:
            result_of(api.data.updates.compressLog(logid))

    assert text_of(ws, "s") == "".join(f"{i}\n" for i in range(50))
    follow(ws, "t", logid=logid, offset=25)
    assert text_of(ws, "t", 25) == "".join(f"{i}\n" for i in range(25, 50))


def test_many_appends_in_one_transaction_are_one_frame(api: BuildAPI, ws: WebSocketClient) -> None:
    """Who hears late reads once."""
    logid = result_of(a_log(api))
    follow(ws, "s", logid=logid)

    def append_all(tx: Tx) -> None:
        for i in range(20):
            api.data.updates.appendLog.within(tx, logid, f"{i}\n")

    result_of(api.data.transaction(append_all))

    assert len(of(ws, "s")) == 1
    assert text_of(ws, "s") == "".join(f"{i}\n" for i in range(20))


def test_a_long_log_comes_in_parts(api: BuildAPI, ws: WebSocketClient) -> None:
    """None much longer than 128 kB."""
    logid = result_of(a_log(api, LINE * 2_000, finished=True))
    follow(ws, "s", logid=logid)

    assert text_of(ws, "s") == LINE * 2_000
    assert 2_048_000 // 200_000 < len(of(ws, "s")) < 40


def test_a_line_of_any_length_comes_whole(api: BuildAPI, ws: WebSocketClient) -> None:
    """And any character in it."""
    line = "☃" * 100_000 + "\x00\x1b\u2028\n"
    logid = result_of(a_log(api, line + "b\n", finished=True))
    stored = result_of(api.data.get(("logs", logid, "contents")))["content"]
    follow(ws, "s", logid=logid)

    assert text_of(ws, "s") == stored


@pytest.mark.parametrize("kept", [0, 1_000])
@pytest.mark.parametrize("finished", [True, False])
def test_lines_that_house_keeping_took_are_passed_over(
    api: BuildAPI, ws: WebSocketClient, kept: int, finished: bool
) -> None:
    """The number of lines stays; nobody asks for the missing ones for ever."""
    logid = result_of(a_log(api, LINE * 2_000, finished=finished))

    def delete(tx: Tx) -> None:
        gone = logchunks.delete().where(logchunks.c.first_line >= kept)
        tx.connection.execute(str(gone.compile(compile_kwargs={"literal_binds": True})))

    result_of(api.data.transaction(delete))
    follow(ws, "s", logid=logid)

    assert text_of(ws, "s").count("\n") >= kept
    if not finished:
        append(api, logid, "after\n")
        result_of(api.data.updates.finishLog(logid))
        assert of(ws, "s")[-2]["content"] == "after\n"
    assert of(ws, "s")[-1]["end"]["complete"] is True


def test_many_follow_one_log(api: BuildAPI) -> None:
    """On one socket and on many, each has every line."""
    logid = result_of(a_log(api, "a\n"))
    clients = [WebSocketClient(Wire(api)) for _ in range(20)]
    for client in clients:
        for sub in range(5):
            follow(client, sub, logid=logid)

    for i in range(20):
        append(api, logid, f"{i}\n")
    result_of(api.data.updates.finishLog(logid))

    expected = "a\n" + "".join(f"{i}\n" for i in range(20))
    for client in clients:
        for sub in range(5):
            assert text_of(client, sub) == expected
            assert of(client, sub)[-1]["end"]["num_lines"] == 21


def test_a_slow_follower_makes_nothing_pile_up(
    api: BuildAPI, ws: WebSocketClient, wire: Wire
) -> None:
    """It gets everything, whenever it reads on."""
    logid = result_of(a_log(api))
    wire.slow = True
    ws.send({"cmd": "followLog", "_id": "s", "logid": logid})
    for _ in range(20):
        append(api, logid, LINE * 1_000)
    result_of(api.data.updates.finishLog(logid))
    for _ in range(200):
        api.reactor.advance(0)
    assert wire.waiting < 400_000

    wire.slow = False

    assert text_of(ws, "s") == LINE * 20_000
    assert of(ws, "s")[-1]["end"]["num_lines"] == 20_000


def test_many_slow_followers_of_one_socket_take_turns(
    api: BuildAPI, ws: WebSocketClient, wire: Wire
) -> None:
    """Not each of them may fill the buffer, or the socket would be closed."""
    logid = result_of(a_log(api, LINE * 1_000, finished=True))
    wire.slow = True
    for sub in range(100):
        ws.send({"cmd": "followLog", "_id": sub, "logid": logid})

    most = 0
    while wire.waiting:
        most = max(most, wire.waiting)
        ws._received += wire.sip()
    wire.slow = False
    ws._shake_hands()
    ws._read_frames()

    assert most < 600_000
    assert ws.ended is None
    for sub in range(100):
        assert text_of(ws, sub) == LINE * 1_000


def test_a_slow_follower_does_not_keep_events_back(
    api: BuildAPI, ws: WebSocketClient, wire: Wire
) -> None:
    """They stand in the buffer, in order, behind what was sent."""
    logid = result_of(a_log(api, LINE * 1_000))
    ws.ask("startConsuming", path="builds/*/new")
    wire.slow = True
    ws.send({"cmd": "followLog", "_id": "s", "logid": logid})
    result_of(a_step(api))

    wire.slow = False

    keys = [frame.get("k") for frame in ws.sync()]
    assert 0 < keys.index("builds/2/new") < len(keys) - 1


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


def test_lines_of_a_busy_log_are_gathered(system: str) -> None:  # noqa: ARG001  see api
    """The first one after a pause comes at once; those that come soon after it, in one frame."""
    api = in_memory_api(Settings(limits=Limits(follow_gather_ms=20)))
    ws = WebSocketClient(Wire(api))
    logid = result_of(a_log(api))
    follow(ws, "s", logid=logid)

    for i in range(100):
        append(api, logid, f"{i}\n")
        api.reactor.advance(0.002)

    frames = of(ws, "s")
    assert frames[0]["content"] == "0\n"
    assert 100 * 0.002 / 0.02 - 1 <= len(frames) <= 100 * 0.002 / 0.02 + 2
    api.reactor.advance(1)
    assert text_of(ws, "s") == "".join(f"{i}\n" for i in range(100))
    api.reactor.advance(1)
    append(api, logid, "later\n")
    assert of(ws, "s")[-1]["content"] == "later\n"
    append(api, logid, "last\n")
    result_of(api.data.updates.finishLog(logid))
    assert of(ws, "s")[-1] == {"sub": "s", "end": {"num_lines": 102, "complete": True}}


def test_a_clock_that_is_set_back_delays_no_line(system: str) -> None:  # noqa: ARG001  see api
    """What comes next is told, with what was being gathered."""
    api = in_memory_api(Settings(limits=Limits(follow_gather_ms=20)))
    ws = WebSocketClient(Wire(api))
    logid = result_of(a_log(api))
    follow(ws, "s", logid=logid)
    append(api, logid, "a\n")
    append(api, logid, "b\n")

    api.reactor.rightNow -= 3600
    append(api, logid, "c\n")

    assert text_of(ws, "s") == "a\nb\nc\n"


def test_followers_at_the_end_share_what_is_read_and_made(
    api: BuildAPI, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One read for all of them, and one text made."""
    logid = result_of(a_log(api, "a\n"))
    clients = [WebSocketClient(Wire(api)) for _ in range(10)]
    for client in clients:
        for sub in range(5):
            follow(client, sub, logid=logid)
    reads: list[Any] = []
    made: list[Any] = []
    monkeypatch.setattr(Hub, "read", _counted(Hub.read, reads))
    fget = vars(Lines)["content"].fget
    monkeypatch.setattr(Lines, "content", property(_counted(fget, made)))

    append(api, logid, "b\n")

    assert len(reads) == 1
    assert len(made) == 1
    assert all(text_of(client, sub) == "a\nb\n" for client in clients for sub in range(5))


def test_who_calls_a_stream_alike_gets_the_same_frame(
    api: BuildAPI, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is made once for all sockets."""
    logid = result_of(a_log(api))
    clients = [WebSocketClient(Wire(api)) for _ in range(10)]
    for client in clients:
        follow(client, "s", logid=logid)
    made: list[Any] = []
    monkeypatch.setattr(Sockets, "prepareMessage", _counted(Sockets.prepareMessage, made))

    append(api, logid, "a\n")

    assert len(made) == 1
    assert all(text_of(client, "s") == "a\n" for client in clients)


def _held(patched: pytest.MonkeyPatch) -> list[tuple[Deferred[Growth], Growth]]:
    """Let hubs read, but tell nobody what they found; return that, and who is to be told."""
    held: list[tuple[Deferred[Growth], Growth]] = []
    read = Hub.read

    def reading(*arguments: Any, **options: Any) -> Deferred[Growth]:
        waiting: Deferred[Growth] = Deferred()
        held.append((waiting, result_of(ready(read(*arguments, **options)))))
        return waiting

    patched.setattr(Hub, "read", reading)
    return held


@pytest.mark.parametrize(("offset", "stays"), [(0, True), (0, False), (2, True), (2, False)])
def test_what_is_read_for_those_further_on_is_not_for_who_comes_meanwhile(
    api: BuildAPI, monkeypatch: pytest.MonkeyPatch, offset: int, *, stays: bool
) -> None:
    """It would lack the lines before; on a slow database, a read takes its time."""
    logid = result_of(a_log(api))
    late, ahead = WebSocketClient(Wire(api)), Wire(api)
    with monkeypatch.context() as patched:
        of_nothing = _held(patched)
        follow(late, "s", logid=logid)
    follow(WebSocketClient(ahead), "s", logid=logid, offset=offset)
    append(api, logid, "0\n1\n")
    with monkeypatch.context() as patched:
        further_on = _held(patched)
        append(api, logid, "2\n")
    if not stays:
        ahead.hang_up()

    for waiting, found in of_nothing + further_on:
        waiting.callback(found)

    assert text_of(late, "s") == "0\n1\n2\n"


@pytest.fixture
def crowd(api: BuildAPI, monkeypatch: pytest.MonkeyPatch) -> list[WebSocketClient]:
    """Return followers of log 1, of whom two are told in one turn of the reactor."""
    monkeypatch.setattr(hub, "TOLD_AT_ONCE", 2)
    logid = result_of(a_log(api))
    clients = [WebSocketClient(Wire(api)) for _ in range(5)]
    for client in clients:
        follow(client, "s", logid=logid)
    return clients


def test_a_crowd_is_told_in_slices(api: BuildAPI, crowd: list[WebSocketClient]) -> None:
    """Other work comes in between; each has every line once, also those that come meanwhile."""
    append(api, 1, "a\n")
    assert [len(of(client, "s")) for client in crowd] == [1, 1, 0, 0, 0]

    append(api, 1, "b\n")
    result_of(api.data.updates.finishLog(1))
    for _ in range(10):
        api.reactor.advance(0)

    assert all(text_of(client, "s") == "a\nb\n" for client in crowd)
    assert all("end" in client.frames[-1] for client in crowd)


def test_who_leaves_before_his_turn_is_not_told(
    api: BuildAPI, crowd: list[WebSocketClient]
) -> None:
    """The others are, and nothing is left to be done when all have gone."""
    append(api, 1, "a\n")
    crowd[2].ask("unsubscribe", sub="s")
    api.reactor.advance(0)
    assert [len(of(client, "s")) for client in crowd] == [1, 1, 0, 1, 1]

    append(api, 1, "b\n")
    for client in (*crowd[:2], *crowd[3:]):
        client.ask("unsubscribe", sub="s")
    api.reactor.advance(0)

    assert [len(of(client, "s")) for client in crowd] == [2, 2, 0, 1, 1]


def test_a_fault_in_a_later_slice_ends_the_streams_of_all_who_wait(
    api: BuildAPI,
    crowd: list[WebSocketClient],
    monkeypatch: pytest.MonkeyPatch,
    logged: list[LogEvent],
) -> None:
    """None of them waits for lines that will never come."""
    append(api, 1, "a\n")

    def fail(*_: object) -> None:
        raise RuntimeError("secret")

    monkeypatch.setattr(Follower, "take", fail)
    api.reactor.advance(0)

    assert [of(client, "s")[-1].get("code") for client in crowd] == [500] * 5
    logged.clear()


def _counted(function: Any, calls: list[Any]) -> Any:
    def counted(*arguments: Any, **named: Any) -> Any:
        calls.append(arguments)
        return function(*arguments, **named)

    return counted


def test_lines_that_match_come_with_their_numbers(api: BuildAPI, ws: WebSocketClient) -> None:
    """And with the lines around them, each once."""
    logid = result_of(a_log(api, "o1\neBAD 2\no3\n", kind="s"))
    follow(ws, "s", logid=logid, grep="^BAD", context=1)

    append(api, logid, "o4\no5\neBAD 6\n")
    append(api, logid, "o7\no8\n")
    result_of(api.data.updates.finishLog(logid))

    frames = of(ws, "s")
    assert frames.pop() == {"sub": "s", "end": {"num_lines": 8, "complete": True}}
    assert [line for frame in frames for line in frame["lines"]] == [
        [0, "o1"],
        [1, "eBAD 2"],
        [2, "o3"],
        [4, "o5"],
        [5, "eBAD 6"],
        [6, "o7"],
    ]
    assert all("content" not in frame for frame in frames)
    assert [frame["first"] for frame in frames[1:]] == [frame["next"] for frame in frames[:-1]]


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


def test_a_server_has_so_many_followers(system: str) -> None:  # noqa: ARG001  see api
    """One more is refused; who goes makes room."""
    api = in_memory_api(Settings(limits=Limits(followers=2)))
    ws = WebSocketClient(Wire(api))
    logid = result_of(a_log(api, "a\n"))
    for sub in range(2):
        follow(ws, sub, logid=logid)

    assert follow(ws, "s", logid=logid)["code"] == 503
    assert ws.ask("unsubscribe", sub=1)["code"] == 200
    assert follow(ws, "s", logid=logid)["code"] == 200


happenings = st.lists(
    st.one_of(
        st.tuples(st.just("append"), st.integers(1, 40)),
        st.tuples(st.just("follow"), st.integers(-5, 30)),
        st.tuples(st.just("compress"), st.none()),
        st.tuples(st.just("slow"), st.booleans()),
        st.tuples(st.just("drop"), st.none()),
    ),
    max_size=30,
)


@given(happenings)
def test_each_line_comes_exactly_once_whatever_happens(actions: list[tuple[str, Any]]) -> None:
    """Appends, slowness, merged chunks, followers that come and go: text_of checks each frame."""
    api = in_memory_api(AT_ONCE)
    logid, total = result_of(a_log(api)), 0
    wire = Wire(api)
    ws = WebSocketClient(wire)
    # Where each stream began.
    streams: dict[int, int] = {}
    names = count()
    for action, value in actions:
        match action:
            case "append":
                text = "".join(f"{total + i} {'x' * (total % 3000)}\n" for i in range(value))
                append(api, logid, text)
                total += value
            case "follow":
                sub = next(names)
                ws.send({"cmd": "followLog", "_id": sub, "logid": logid, "offset": value})
                streams[sub] = max(0, total + value) if value < 0 else value
            case "compress":
                result_of(api.data.updates.compressLog(logid))
            case "slow":
                wire.slow = value
            case "drop" if streams:
                sub, _ = streams.popitem()
                ws.send({"cmd": "unsubscribe", "_id": "drop", "sub": sub})
    result_of(api.data.updates.finishLog(logid))
    wire.slow = False
    ws.sync()

    whole = result_of(api.data.get(f"logs/{logid}/contents?limit=100000"))["content"]
    lines = whole.splitlines(keepends=True)
    assert len(lines) == total
    for sub, first in streams.items():
        assert text_of(ws, sub, first) == "".join(lines[first:])
        assert of(ws, sub)[-1] == {"sub": sub, "end": {"num_lines": total, "complete": True}}
