"""Following a log over a WebSocket: what is there, and what comes."""

from __future__ import annotations

from itertools import count
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from buildapi.service import BuildAPI
from buildapi.testing import WebSocketClient, Wire, a_log, in_memory_api, result_of
from test.www.follow.following import AT_ONCE, append, follow, of, text_of


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


happenings = st.lists(
    st.one_of(
        st.tuples(st.just("append"), st.integers(1, 40)),
        st.tuples(st.just("follow"), st.integers(-5, 30)),
        st.tuples(st.just("compress"), st.none()),
        st.tuples(st.just("slow"), st.booleans()),
        st.tuples(st.just("drop"), st.none()),
    ),
    min_size=8,
    max_size=30,
)


# Each takes long, as it has many steps.
@settings(max_examples=settings().max_examples // 2)
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
