"""Raw downloads of logs: their headers, their bytes, their pace."""

from __future__ import annotations

from collections.abc import Callable
from http.client import IncompleteRead
from typing import Any

import pytest
from twisted.internet.defer import Deferred
from twisted.logger import LogEvent

from buildapi.db.tables import logchunks
from buildapi.db.transaction import Tx
from buildapi.errors import Unavailable
from buildapi.service import BuildAPI
from buildapi.testing import WebClient, Wire, a_log, a_step, answered, result_of

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

    def delete(tx: Tx) -> None:
        where = (logchunks.c.logid == 1) & (logchunks.c.first_line >= line)
        statement = logchunks.delete().where(where)
        text = str(statement.compile(compile_kwargs={"literal_binds": True}))
        tx.connection.execute(text)

    result_of(api.data.transaction(delete))


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


@pytest.mark.parametrize("kind", ["s", "t", "h"])
def test_an_empty_log_is_empty(api: BuildAPI, web: WebClient, kind: str) -> None:
    """Without a heading, too."""
    result_of(a_log(api, kind=kind))

    assert web.get("/api/v2/logs/1/raw").body == b""


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


def counted_reads(api: BuildAPI, monkeypatch: pytest.MonkeyPatch) -> list[object]:
    """Return a list that grows with every read in the pool."""
    read = api.database.read
    reads: list[object] = []

    def counting(work: Callable[..., Any]) -> Deferred[Any]:
        reads.append(work)
        return read(work)

    monkeypatch.setattr(api.database, "read", counting)
    return reads


def test_a_log_that_is_deleted_meanwhile_breaks_the_connection(api: BuildAPI) -> None:
    """Half a log must not look like a whole one."""
    a_long_log(api, 8)
    wire = Wire(api)
    wire.slow = True
    wire.send(GET)
    received = wire.sip()
    delete_from(api, 0)

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

    def failing(work: Callable[..., Any]) -> Deferred[Any]:
        done.append(work)
        if len(done) > reads:
            raise error
        return read(work)

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


def test_an_error_before_the_first_line_has_no_leftovers(
    api: BuildAPI, web: WebClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The headers of the download are gone when an error is told instead."""
    result_of(a_log(api, "a\n"))
    failing_after(api, monkeypatch, 1, Unavailable("the disk is busy"))

    answer = web.get("/api/v2/logs/1/raw")

    assert answer.status == 503
    assert answer.headers["content-disposition"] is None
    assert answer.headers["content-type"] == "text/plain; charset=utf-8"
