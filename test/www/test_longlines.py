"""Lines of logs that are longer than what a frame may have: on each road, byte for byte or told."""

from __future__ import annotations

import tracemalloc
from functools import partial

import pytest
import sqlalchemy as sa
from hypothesis import given
from hypothesis import strategies as st

from buildapi.data import logtext, longlines
from buildapi.data.loglines import Growth, Place, growth
from buildapi.db.tables import logchunks
from buildapi.errors import LineTooLong
from buildapi.service import BuildAPI
from buildapi.settings import Limits, Settings
from buildapi.testing import (
    EventSource,
    WebClient,
    WebSocketClient,
    Wire,
    a_log,
    in_memory_api,
    result_of,
)
from buildapi.testing.wire import head

MB = 2**20
LONGEST = 100_000
LONG = f"o{'long ' * 500_000}\n"
TEXT = f"oa\neb\n{LONG}oc\ned\n"
LIMITS = Limits(follow_gather_ms=0, follow_line_bytes=LONGEST)


@pytest.fixture
def api(system: str) -> BuildAPI:  # noqa: ARG001  where the service has its database
    """Return a service with a log whose line 2 is too long for a frame."""
    api = in_memory_api(Settings(limits=LIMITS))
    result_of(a_log(api, TEXT, finished=True))
    return api


def test_a_socket_is_told_of_the_lines_before_it_and_of_the_error(api: BuildAPI) -> None:
    """Which names the line, and how to go on."""
    ws = WebSocketClient(Wire(api))
    ws.send({"cmd": "followLog", "logid": 1, "_id": 1})
    _, lines, error = ws.sync()
    ws.frames.clear()
    ws.send({"cmd": "followLog", "logid": 1, "offset": 3, "_id": 2})

    assert (lines["content"], lines["next"]) == ("oa\neb\n", 2)
    assert (error["sub"], error["code"]) == (1, 413)
    assert "line 2 of log 1 is longer than 100000 bytes" in error["error"]
    assert "offset 3" in error["error"]
    _, rest, end = ws.sync()
    assert rest["content"] == "oc\ned\n"
    assert end["end"]["num_lines"] == 5


def test_a_search_comes_to_it_and_goes_on_behind_it(api: BuildAPI) -> None:
    """With a context, too, that would have it."""
    ws = WebSocketClient(Wire(api))
    ws.send({"cmd": "followLog", "logid": 1, "grep": "b", "context": 1, "_id": 1})
    ws.send({"cmd": "followLog", "logid": 1, "grep": "d", "context": 2, "offset": 3, "_id": 2})
    frames = ws.sync()

    lines = {one["sub"]: one["lines"] for one in frames if "lines" in one}
    assert lines == {1: [[0, "oa"], [1, "eb"]], 2: [[3, "oc"], [4, "ed"]]}
    assert [one["code"] for one in frames if "error" in one] == [413]


def test_a_follower_that_waits_is_told(api: BuildAPI) -> None:
    """When the line comes at last; who follows the download has all of it."""
    logid = result_of(a_log(api, "oa\n", name="live", kind="s"))
    ws, download = WebSocketClient(Wire(api)), a_download(api, logid)
    ws.send({"cmd": "followLog", "logid": logid, "_id": 1})
    ws.sync()
    ws.frames.clear()
    result_of(api.data.updates.appendLog(logid, LONG + "ob\n"))
    result_of(api.data.updates.finishLog(logid))

    assert [frame["code"] for frame in ws.sync()] == [413]
    assert chunked(download.take()).endswith(b"a\n" + LONG[1:].encode() + b"b\n")


def test_an_event_source_is_told_and_does_not_come_back_at_once(api: BuildAPI) -> None:
    """It would come to the same line."""
    source = EventSource(Wire(api), "/api/v2/logs/1/contents?follow=1")
    blocks = [block for block in source.taken() if block.kind]

    assert [block.kind for block in blocks] == ["lines", "error"]
    assert blocks[1].data["code"] == 413


def test_an_answer_is_refused(api: BuildAPI) -> None:
    """If it would have to begin with that line."""
    web = WebClient(api)
    before = web.get("/api/v2/logs/1/contents?wait=0")
    at_it = web.get("/api/v2/logs/1/contents?wait=0&offset=2")

    assert before.json()["logchunks"][0]["content"] == "oa\neb\n"
    assert at_it.status == 413
    assert "line 2" in at_it.json()["error"]


@pytest.mark.parametrize("kind", ["s", "t"])
@pytest.mark.parametrize("method", ["gz", "bz2", "lz4", "zstd", "br"])
def test_downloads_have_it_byte_for_byte(method: str, kind: str) -> None:
    """The one that follows is the one that doesn't, however the line is stored."""
    api = in_memory_api(Settings(limits=LIMITS))
    api.data.updates.log_compression = method
    logid = result_of(a_log(api, TEXT, kind=kind, finished=True))

    plain = WebClient(api).get(f"/api/v2/logs/{logid}/raw").body
    followed = chunked(a_download(api, logid).take())

    lines = TEXT.encode().splitlines(keepends=True)
    shown = b"".join(line[1:] if kind == "s" else line for line in lines)
    assert plain.endswith(shown)
    assert followed == plain


def test_a_huge_line_costs_little_memory() -> None:
    """Forty megabytes, of which few are there at a time, however slow the client is."""
    api = in_memory_api(Settings(limits=LIMITS))
    logid = result_of(a_log(api, f"o{'~' * 40 * MB}\n", finished=True))
    received = {}
    for follow in ("", "?follow=1"):
        tracemalloc.start()
        wire = a_download(api, logid, follow, slow=True)
        size = 0
        while taken := wire.sip():
            size += taken.count(b"~")
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        received[follow] = size
        assert peak < 12 * MB

    assert set(received.values()) == {40 * MB}


def test_contents_of_a_huge_line_cost_little_memory() -> None:
    """They are one JSON text, made and sent piece by piece."""
    api = in_memory_api()
    logid = result_of(a_log(api, f"o{'~' * 40 * MB}\n", finished=True))
    tracemalloc.start()
    wire = a_request_for(api, f"logs/{logid}/contents", slow=True)
    size = 0
    while taken := wire.sip():
        size += taken.count(b"~")
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()

    assert size == 40 * MB
    assert peak < 12 * MB


@pytest.mark.parametrize("piece", [1, 2, 3, 4, 5, 7, 11, 100])
def test_contents_are_the_same_however_they_are_cut(
    monkeypatch: pytest.MonkeyPatch, piece: int
) -> None:
    """Within a character, before a newline, in a line that is too long to be taken at once."""
    api = in_memory_api()
    text = 'o\noünï€𝄞\no"\\\t\no€€€€€€€€€€€€€€€€\n\n\noend\n'
    logid = result_of(a_log(api, text, finished=True))
    damaged = sa.update(logchunks).values(content=text.encode()[:-1] + "€".encode()[:2])
    result_of(api.data.transaction(lambda tx: tx.run(damaged)))
    whole = result_of(api.data.get(f"logs/{logid}/contents?offset=1"))
    monkeypatch.setattr(longlines, "PIECE_BYTES", piece)
    monkeypatch.setattr(logtext, "PIECE_BYTES", piece)

    answer = WebClient(api).get(f"/api/v2/logs/{logid}/contents?offset=1")

    assert answer.json()["logchunks"] == [whole]
    assert whole["content"] == text[2:-1] + "\N{REPLACEMENT CHARACTER}\n"


@given(
    st.lists(st.integers(0, 60), min_size=1, max_size=30),
    st.integers(1, 50),
    st.integers(1, 40),
    st.integers(0, 10),
)
def test_every_line_is_read_or_named(
    lengths: list[int], longest: int, piece: int, first: int
) -> None:
    """Of a chunk of any lines, read in pieces of any size, from any of them on."""
    lines = [b"o" + bytes([97 + n % 26]) * length for n, length in enumerate(lengths)]
    api = in_memory_api()
    text = "".join(line.decode() + "\n" for line in lines)
    logid = result_of(a_log(api, text, finished=True))
    before, longlines.PIECE_BYTES = longlines.PIECE_BYTES, piece
    try:
        got = dict(read(api, logid, min(first, len(lines)), longest))
    finally:
        longlines.PIECE_BYTES = before
        api.stopService()

    expected = {n: line + b"\n" for n, line in enumerate(lines) if n >= first}
    assert got == expected


def read(api: BuildAPI, logid: int, first: int, longest: int) -> list[tuple[int, bytes]]:
    """Read a log to its end, line by line; those that are too long in pieces."""
    found: list[tuple[int, bytes]] = []
    place = Place(first, first)
    while True:
        try:
            some = next_lines(api, logid, place, longest)
        except LineTooLong as error:
            line = whole_line(api, logid, error.line)
            assert len(line) > longest + 1
            found.append((error.line, line))
            place = Place(error.line + 1, error.line + 1)
            continue
        if some.lines is not None:
            texts = some.lines.text.split(b"\n")[:-1]
            assert all(len(text) <= longest for text in texts)
            found += [(some.lines.first + n, text + b"\n") for n, text in enumerate(texts)]
        place = some.place
        if some.at_end:
            return found


def next_lines(api: BuildAPI, logid: int, place: Place, longest: int) -> Growth:
    """Read as a follower does."""
    reading = partial(growth, logid=logid, place=place, offset=0, most_bytes=64, longest=longest)
    found: Growth = result_of(api.database.read(reading))
    return found


def whole_line(api: BuildAPI, logid: int, number: int) -> bytes:
    """Read a line as a download does."""
    line = longlines.LongLine(logid, number)
    pieces = []
    while piece := result_of(api.database.read(line.following)):
        pieces.append(piece)
    return b"".join(pieces)


def a_download(api: BuildAPI, logid: int, follow: str = "?follow=1", *, slow: bool = False) -> Wire:
    """Begin a download."""
    return a_request_for(api, f"logs/{logid}/raw{follow}", slow=slow)


def a_request_for(api: BuildAPI, path: str, *, slow: bool) -> Wire:
    """Send a request; slow: the answer is taken by ``sip`` only."""
    wire = Wire(api)
    wire.slow = slow
    wire.send(head(f"GET /api/v2/{path} HTTP/1.1", {"Host": "x"}))
    return wire


def chunked(answer: bytes) -> bytes:
    """Return the body of an answer in chunks."""
    _, _, rest = answer.partition(b"\r\n\r\n")
    body = b""
    while rest:
        size, _, rest = rest.partition(b"\r\n")
        length = int(size, 16)
        body, rest = body + rest[:length], rest[length + 2 :]
    return body
