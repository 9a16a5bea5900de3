"""Which lines of a followed log come together, in a frame."""

from __future__ import annotations

import pytest

from buildapi.db.tables import logchunks
from buildapi.db.transaction import Tx
from buildapi.service import BuildAPI
from buildapi.settings import Limits, Settings
from buildapi.testing import WebSocketClient, Wire, a_log, in_memory_api, result_of
from test.www.follow.following import LINE, append, follow, of, text_of


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
