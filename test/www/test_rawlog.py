"""Raw downloads of logs: their headers, their bytes, their pace."""

from __future__ import annotations

import gzip
from collections.abc import Callable
from http.client import IncompleteRead
from typing import Any

import brotli  # type: ignore[import-untyped]  # it has no stubs
import pytest
import zstandard
from twisted.internet.defer import Deferred
from twisted.logger import LogEvent

from buildapi.data.logchunks import PART_BYTES
from buildapi.db.chunks import MOST_BYTES
from buildapi.db.tables import builds, logchunks, logs
from buildapi.db.transaction import Tx
from buildapi.errors import Unavailable
from buildapi.service import BuildAPI
from buildapi.testing import WebClient, Wire, a_log, a_step, answered, result_of
from buildapi.www.encoding import CODINGS, Coding

# What a client does with a body of a coding.
READERS: dict[Coding, Callable[[bytes], bytes]] = {
    "br": brotli.decompress,
    "zstd": lambda body: zstandard.ZstdDecompressor().decompressobj().decompress(body),
    "gzip": gzip.decompress,
}
GET = b"GET /api/v2/logs/1/raw HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"


def a_long_log(api: BuildAPI, parts: int = 20) -> bytes:
    """Make a log of so many MB, and return its text."""
    line = "x" * 1023 + "\n"
    logid = result_of(a_log(api))
    for _ in range(parts):
        result_of(api.data.updates.appendLog(logid, line * 1024))
    return line.encode() * 1024 * parts


def delete_from(api: BuildAPI, line: int) -> None:
    """Delete the chunks of log 1 from a line on, as house-keeping does."""
    where = (logchunks.c.logid == 1) & (logchunks.c.first_line >= line)
    result_of(api.data.transaction(lambda tx: tx.run(logchunks.delete().where(where))))


def a_stored_log(api: BuildAPI, *chunks: tuple[int, int, bytes, int], kind: str = "t") -> None:
    """Make log 1 of chunks as another program may have left them, the last of them with its end."""
    logid = result_of(a_log(api, kind=kind))

    def store(tx: Tx) -> None:
        for first, last, content, method in chunks:
            tx.insert(
                logchunks,
                logid=logid,
                first_line=first,
                last_line=last,
                content=content,
                compressed=method,
            )
        tx.change(logs, logid, num_lines=chunks[-1][1] + 1)

    result_of(api.data.transaction(store))


def test_a_text_is_sent_as_it_was_written(api: BuildAPI, web: WebClient) -> None:
    """As an attachment, whose name tells where it is from."""
    result_of(a_log(api, "a\n☃\n", kind="t"))

    answer = web.get("/api/v2/logs/1/raw")

    assert answer.body.decode() == "a\n☃\n"
    assert answer.headers["content-type"] == "text/plain; charset=utf-8"
    name = "runtests_build_1_step_compile_log_stdio"
    assert answer.headers["content-disposition"] == f"attachment; filename={name}"


def test_inline_it_is_no_attachment(api: BuildAPI, web: WebClient) -> None:
    """The same bytes, for a browser to show."""
    result_of(a_log(api, "a\n"))

    answer = web.get("/api/v2/logs/1/raw_inline")

    assert answer.body == b"a\n"
    assert answer.headers["content-disposition"] is None


def test_a_log_of_streams_has_a_heading_and_no_letters(api: BuildAPI, web: WebClient) -> None:
    """Which build it was, then the lines."""
    result_of(a_log(api, "oout\neerr\nh\n", kind="s"))

    assert web.get("/api/v2/logs/1/raw").body == (
        b"Builder: runtests\nBuild number: 1\nWorker name: linux\nout\nerr\n\n"
    )


def test_html_cannot_act_as_our_page(api: BuildAPI, web: WebClient) -> None:
    """A browser shows it in a sandbox, and guesses no other type."""
    result_of(a_log(api, "<script>alert(1)</script>\n", kind="h"))

    headers = web.get("/api/v2/logs/1/raw_inline").headers

    assert headers["content-type"] == "text/html; charset=utf-8"
    assert headers["content-security-policy"] == "sandbox"
    assert headers["x-content-type-options"] == "nosniff"


@pytest.mark.parametrize("kind", ["t", "h"])
def test_an_empty_log_is_empty(api: BuildAPI, web: WebClient, kind: str) -> None:
    """There is nothing to send."""
    result_of(a_log(api, kind=kind))

    assert web.get("/api/v2/logs/1/raw").body == b""


def test_an_empty_log_of_streams_is_its_heading(api: BuildAPI, web: WebClient) -> None:
    """Also while nothing was written yet."""
    result_of(a_log(api, kind="s"))

    assert web.get("/api/v2/logs/1/raw").body == (
        b"Builder: runtests\nBuild number: 1\nWorker name: linux\n"
    )


def test_the_heading_leaves_out_a_worker_that_is_gone(api: BuildAPI, web: WebClient) -> None:
    """A build forgets the worker that is deleted."""
    result_of(a_log(api, "oout\n", kind="s"))
    result_of(api.data.transaction(lambda tx: tx.change(builds, 1, workerid=None)))

    assert web.get("/api/v2/logs/1/raw").body == b"Builder: runtests\nBuild number: 1\nout\n"


def test_limit_and_offset_have_no_effect(api: BuildAPI, web: WebClient) -> None:
    """But they are checked."""
    result_of(a_log(api, "a\nb\n"))

    assert web.get("/api/v2/logs/1/raw?offset=1&limit=1").body == b"a\nb\n"
    assert web.get("/api/v2/logs/1/raw?limit=x").status == 400


@pytest.mark.parametrize(
    "path",
    [
        "logs/1",
        "steps/1/logs/stdio",
        "builds/1/steps/0/logs/stdio",
        "builds/1/steps/compile/logs/stdio",
        "builders/1/builds/1/steps/0/logs/stdio",
        "builders/1/builds/1/steps/compile/logs/stdio",
    ],
)
def test_every_path_of_a_log_leads_to_it(api: BuildAPI, web: WebClient, path: str) -> None:
    """By ids, numbers and names."""
    result_of(a_log(api, "a\n"))

    assert web.get(f"/api/v2/{path}/raw").body == b"a\n"
    assert web.get(f"/api/v2/{path}/raw_inline").body == b"a\n"


def test_head_has_the_headers_only(api: BuildAPI, web: WebClient) -> None:
    """No length: it would have to be read for that."""
    result_of(a_log(api, "a\n"))

    head = web.request("HEAD", "/api/v2/logs/1/raw")

    assert (head.status, head.body) == (200, b"")
    assert head.headers["content-type"] == "text/plain; charset=utf-8"
    assert head.headers["content-length"] is None


def test_a_name_cannot_make_a_header(api: BuildAPI, web: WebClient) -> None:
    """A step may have any name; a line break ends no header."""
    step = result_of(a_step(api, "a\r\nSet-Cookie: x=y\n\nü"))
    result_of(a_log(api, "a\n", stepid=step))

    headers = web.get("/api/v2/logs/1/raw").headers

    assert headers["set-cookie"] is None
    assert "Set-Cookie" in headers["content-disposition"]


def test_a_fast_reader_gets_a_long_log_whole(api: BuildAPI, web: WebClient) -> None:
    """Byte for byte, in chunks."""
    text = a_long_log(api, 3)

    answer = web.get("/api/v2/logs/1/raw")

    assert answer.headers["transfer-encoding"] == "chunked"
    assert answer.body == text


def test_a_slow_reader_makes_nothing_pile_up(api: BuildAPI) -> None:
    """The server reads on when the client does; in the end everything is there."""
    text = a_long_log(api, 8)
    wire = Wire(api)
    wire.slow = True

    wire.send(GET)

    received, most = b"", wire.waiting
    while not wire.closed:
        received += wire.sip()
        most = max(most, wire.waiting)
    assert answered(received + wire.sip()).body == text
    assert most < 1_200_000


def test_a_slow_reader_holds_two_pieces(api: BuildAPI, monkeypatch: pytest.MonkeyPatch) -> None:
    """The one that it is given, and the one after; no third is read before it takes more."""
    a_long_log(api, 8)
    reads = counted_reads(api, monkeypatch)
    wire = Wire(api)
    wire.slow = True

    wire.send(GET)

    assert len(reads) == 2
    assert PART_BYTES <= wire.waiting < PART_BYTES + 2 * MOST_BYTES


def test_a_client_that_goes_away_ends_the_work(
    api: BuildAPI, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing more is read for it."""
    a_long_log(api, 8)
    reads = counted_reads(api, monkeypatch)
    wire = Wire(api)
    wire.slow = True
    wire.send(GET)
    before = len(reads)

    wire.hang_up()

    assert before > 0
    assert len(reads) == before


@pytest.mark.parametrize("reads", [0, 1])
def test_a_client_that_goes_away_interrupts_a_read(
    api: BuildAPI, monkeypatch: pytest.MonkeyPatch, reads: int
) -> None:
    """Whether its first piece or a later one is being read."""
    a_long_log(api, 2)
    read, done = api.database.read, []
    interrupted: list[object] = []

    def stuck(work: Callable[..., Any], lane: str) -> Deferred[Any]:
        done.append(work)
        return read(work, lane) if len(done) <= reads else Deferred(interrupted.append)

    monkeypatch.setattr(api.database, "read", stuck)
    wire = Wire(api)
    wire.send(GET)

    wire.hang_up()

    assert len(interrupted) == 1
    assert len(done) == reads + 1


def counted_reads(api: BuildAPI, monkeypatch: pytest.MonkeyPatch) -> list[object]:
    """Return a list that grows with every read in the pool."""
    read = api.database.read
    reads: list[object] = []

    def counting(work: Callable[..., Any], lane: str) -> Deferred[Any]:
        reads.append(work)
        return read(work, lane)

    monkeypatch.setattr(api.database, "read", counting)
    return reads


def test_a_log_that_is_deleted_meanwhile_breaks_the_connection(api: BuildAPI) -> None:
    """Half a log must not look like a whole one."""
    a_long_log(api, 8)
    wire = Wire(api)
    wire.slow = True
    wire.send(GET)
    delete_from(api, 0)

    received = b""
    while not wire.closed:
        received += wire.sip()

    assert wire.cut
    with pytest.raises(IncompleteRead):
        answered(received)


def test_a_log_that_was_emptied_long_ago_is_sent_as_it_is(api: BuildAPI, web: WebClient) -> None:
    """House-keeping leaves the number of lines, but no line."""
    result_of(a_log(api, "a\nb\n", finished=True))
    delete_from(api, 0)

    answer = web.get("/api/v2/logs/1/raw")

    assert (answer.status, answer.body) == (200, b"")


def failing_after(
    api: BuildAPI, monkeypatch: pytest.MonkeyPatch, reads: int, error: Exception
) -> None:
    """Let the pool fail after so many reads."""
    read, done = api.database.read, []

    def failing(work: Callable[..., Any], lane: str) -> Deferred[Any]:
        done.append(work)
        if len(done) > reads:
            raise error
        return read(work, lane)

    monkeypatch.setattr(api.database, "read", failing)


def test_an_error_before_the_first_byte_is_an_answer(
    api: BuildAPI, web: WebClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Like any other."""
    result_of(a_log(api, "a\n"))
    failing_after(api, monkeypatch, 0, Unavailable("the disk is busy"))

    answer = web.get("/api/v2/logs/1/raw")

    assert answer.status == 503
    assert answer.json() == {"error": "the disk is busy"}
    assert answer.headers["content-disposition"] is None
    assert answer.headers["content-type"] == "text/plain; charset=utf-8"


def test_an_error_in_the_middle_breaks_the_connection(
    api: BuildAPI, monkeypatch: pytest.MonkeyPatch, logged: list[LogEvent]
) -> None:
    """And is told to the log, unless it is one that we know."""
    a_long_log(api, 8)
    for error in (RuntimeError("a bug"), Unavailable("busy")):
        wire = Wire(api)
        with monkeypatch.context() as patched:
            failing_after(api, patched, 3, error)
            wire.send(GET)
        assert wire.cut

    failures = [event["log_failure"].value for event in logged if "log_failure" in event]
    assert [str(failure) for failure in failures] == ["a bug"]
    logged.clear()


@pytest.mark.parametrize("coding", CODINGS)
@pytest.mark.parametrize("kind", ["s", "t"])
def test_it_is_compressed_for_who_wants_it(
    api: BuildAPI, web: WebClient, coding: Coding, kind: str
) -> None:
    """In pieces, and whole; a cache must not give it to others."""
    text = "".join(f"oline {number} of a log\n" for number in range(30_000))
    result_of(a_log(api, text, kind=kind))
    plain = web.get("/api/v2/logs/1/raw")

    answer = web.get("/api/v2/logs/1/raw", {"Accept-Encoding": coding})

    assert answer.headers["content-encoding"] == coding
    assert answer.headers["transfer-encoding"] == "chunked"
    assert answer.headers["content-length"] is None
    assert len(answer.body) * 4 < len(plain.body)
    assert READERS[coding](answer.body) == plain.body
    for headers in (answer.headers, plain.headers):
        assert "accept-encoding" in headers.get_all("vary", [])


def test_brotli_is_preferred(api: BuildAPI, web: WebClient) -> None:
    """As for JSON."""
    result_of(a_log(api, "a\n"))

    for accepted, coding in (("gzip, deflate, br, zstd", "br"), ("deflate", None)):
        answer = web.get("/api/v2/logs/1/raw_inline", {"Accept-Encoding": accepted})
        assert answer.headers["content-encoding"] == coding


@pytest.mark.parametrize("coding", CODINGS)
def test_nothing_can_be_compressed_too(api: BuildAPI, web: WebClient, coding: Coding) -> None:
    """An empty log is a stream with an end."""
    result_of(a_log(api))

    answer = web.get("/api/v2/logs/1/raw", {"Accept-Encoding": coding})

    assert answer.headers["content-encoding"] == coding
    assert READERS[coding](answer.body) == b""


def test_head_tells_of_the_coding(api: BuildAPI, web: WebClient) -> None:
    """Every header of the GET, save how its body is sent."""
    result_of(a_log(api, "a\n", kind="h"))
    accepting = {"Accept-Encoding": "gzip"}
    get = web.get("/api/v2/logs/1/raw", accepting)

    head = web.request("HEAD", "/api/v2/logs/1/raw", accepting)

    assert head.body == b""
    ours = [{*answer.headers.items()} for answer in (head, get)]
    assert ours[1] - ours[0] == {("Transfer-Encoding", "chunked")}
    assert ours[0] <= ours[1]


def test_a_compressed_log_that_breaks_is_no_whole_stream(
    api: BuildAPI, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The connection is cut before the stream has its end."""
    a_long_log(api, 2)
    wire = Wire(api)
    failing_after(api, monkeypatch, 4, Unavailable("busy"))

    wire.send(GET.replace(b"Connection:", b"Accept-Encoding: gzip\r\nConnection:"))

    assert wire.cut


def test_an_error_is_not_compressed(api: BuildAPI, web: WebClient) -> None:
    """It is JSON, whatever was accepted."""
    a_stored_log(api, (0, 0, b"no zlib", 1))

    answer = web.get("/api/v2/logs/1/raw", {"Accept-Encoding": "gzip"})

    assert answer.status == 409
    assert "damaged" in answer.json()["error"]
    for header in ("content-encoding", "content-disposition"):
        assert answer.headers[header] is None


def test_damage_further_on_breaks_the_connection(api: BuildAPI) -> None:
    """It was found too late to be told."""
    long = b"x" * PART_BYTES
    a_stored_log(api, (0, 0, long, 0), (1, 1, long, 0), (2, 2, b"no zlib", 1))
    wire = Wire(api)

    wire.send(GET)

    assert wire.cut


@pytest.mark.parametrize(
    "chunks",
    [
        [(1, 1, b"b", 0)],
        [(0, 0, b"a", 0), (2, 2, b"c", 0)],
    ],
    ids=["beginning", "middle"],
)
def test_a_log_that_lacks_lines_is_refused(
    api: BuildAPI, web: WebClient, chunks: list[tuple[int, int, bytes, int]]
) -> None:
    """A part of it must not look like all of it."""
    a_stored_log(api, *chunks)

    answer = web.get("/api/v2/logs/1/raw")

    assert answer.status == 409
    assert answer.json() == {"error": "lines of log 1 are missing"}


def test_a_log_without_its_end_is_refused(api: BuildAPI, web: WebClient) -> None:
    """Before the first byte, where it is short."""
    a_stored_log(api, (0, 0, b"a", 0), (1, 5, b"b\n\n\n\n", 0))
    delete_from(api, 1)

    assert web.get("/api/v2/logs/1/raw").status == 409


def test_a_log_that_house_keeping_deleted_is_empty(api: BuildAPI, web: WebClient) -> None:
    """Its row stays, with the number of its lines; it is a text without any."""
    a_stored_log(api, (0, 3, b"\n\n\n", 0), kind="d")
    delete_from(api, 0)

    for path in ("raw", "raw_inline"):
        answer = web.get(f"/api/v2/logs/1/{path}")
        assert (answer.status, answer.body) == (200, b"")
        assert answer.headers["content-type"] == "text/plain; charset=utf-8"


def test_a_line_may_be_longer_than_a_piece(api: BuildAPI, web: WebClient) -> None:
    """Lines are not cut."""
    line = b"o" + b"x" * (3 * PART_BYTES)
    a_stored_log(api, (0, 0, line, 0), (1, 1, b"eb", 0), kind="s")

    body = web.get("/api/v2/logs/1/raw").body

    assert body.endswith(b"Worker name: linux\n" + line[1:] + b"\nb\n")
