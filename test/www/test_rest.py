"""Answers to GET and HEAD: their form, their headers, their errors."""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable
from typing import Any

import brotli  # type: ignore[import-untyped]  # it has no stubs
import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.defer import Deferred
from twisted.logger import LogEvent

from buildapi.errors import Unavailable
from buildapi.service import BuildAPI
from buildapi.testing import WebClient, Wire, a_build, a_log, a_step, answered, result_of
from buildapi.www import envelope, replies, rest

JSON = {"Accept": "application/json"}


def builders(api: BuildAPI, number: int) -> None:
    """Make so many builders."""
    for i in range(number):
        result_of(api.data.updates.findBuilderId(f"builder-{i:04}"))


def laid_out(value: Any) -> list[str]:
    """Return what people may get: characters may be escaped."""
    separators = (", ", ": ")
    return [
        json.dumps(value, indent=2, separators=separators, ensure_ascii=e) for e in (True, False)
    ]


def test_a_program_gets_one_line(api: BuildAPI, web: WebClient) -> None:
    """Accept with application/json in it: compact, and called JSON."""
    builders(api, 1)

    answer = web.get("/api/v2/builders?field=name", JSON)

    assert answer.status == 200
    assert answer.headers["content-type"] == "application/json; charset=utf-8"
    assert answer.body == b'{"builders":[{"name":"builder-0000"}],"meta":{"total":1}}'


def test_a_person_gets_it_indented(api: BuildAPI, web: WebClient) -> None:
    """By two blanks, and with one behind every comma, as plain text."""
    builders(api, 2)

    answer = web.get("/api/v2/builders?field=name&field=tags")

    assert answer.headers["content-type"] == "text/plain; charset=utf-8"
    assert answer.body.decode() == json.dumps(answer.json(), indent=2, separators=(", ", ": "))


@pytest.mark.parametrize(
    ("accept", "compact"),
    [
        ("text/html,application/json;q=0.1", True),
        ("xapplication/jsonx", True),
        ("Application/JSON", False),
        ("*/*", False),
        ("", False),
    ],
)
def test_only_those_exact_bytes_ask_for_json(web: WebClient, accept: str, compact: bool) -> None:
    """Wherever they stand in the header, whatever q says."""
    body = web.get("/api/v2/builders", {"Accept": accept}).body

    assert (b"\n" not in body) is compact


@pytest.mark.parametrize(
    "path",
    [
        "builders",
        "builders?limit=0",
        "builders?limit=1&offset=1",
        "builders/1",
        "builds/1?property=*",
        "builds/1/properties",
        "builds/1/property_list",
        "builders/1/forceschedulers",
        "logs/1/contents",
        "steps/1/logs",
    ],
)
def test_people_and_programs_get_the_same_values(api: BuildAPI, web: WebClient, path: str) -> None:
    """Lists, single objects, objects that are no rows; empty ones too."""
    builders(api, 3)
    result_of(a_log(api, "a\n☃, \n[]\n"))
    value = {"deep": [1, {"x": []}, ",\n"], "none": None, "big": 10**30}
    result_of(api.data.updates.setBuildProperty(1, "odd", value, "test"))

    for_people = web.get(f"/api/v2/{path}")

    assert for_people.json() == web.get(f"/api/v2/{path}", JSON).json()
    assert for_people.body.decode() in laid_out(for_people.json())


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
)


@given(json_values)
def test_indenting_is_that_of_the_standard_library(value: Any) -> None:
    """For any value, however deep."""
    assert envelope.for_people(value).decode() in laid_out(value)


def test_head_is_get_without_the_body(api: BuildAPI, web: WebClient) -> None:
    """Status, type and length are the same."""
    builders(api, 3)

    got, head = web.get("/api/v2/builders"), web.request("HEAD", "/api/v2/builders")

    assert (head.status, head.body) == (200, b"")
    assert int(head.headers["content-length"]) == len(got.body)
    assert head.headers["content-type"] == got.headers["content-type"]


def test_head_of_an_error_has_no_body(web: WebClient) -> None:
    """Nor does it tell its length."""
    head = web.request("HEAD", "/api/v2/builders/7")

    assert (head.status, head.body) == (404, b"")
    assert head.headers["content-type"] == "text/plain; charset=utf-8"


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("builders/7", 404),
        ("nosuch", 404),
        ("builders?x=1", 400),
        ("", 404),
        ("builders/", 404),
        ("/builders", 404),
        ("logs/1/raw", 404),
        ("logchunks", 404),
    ],
)
def test_an_error_is_a_sentence_in_plain_text(web: WebClient, path: str, status: int) -> None:
    """Whatever Accept says."""
    answer = web.get(f"/api/v2/{path}", JSON)

    assert answer.status == status
    assert answer.headers["content-type"] == "text/plain; charset=utf-8"
    assert int(answer.headers["content-length"]) == len(answer.body)
    assert list(answer.json()) == ["error"]


@pytest.mark.parametrize("method", ["PUT", "DELETE", "PATCH", "TRACE", "get", "X" * 100])
def test_other_methods_are_refused(web: WebClient, method: str) -> None:
    """With 400, as Buildbot does."""
    answer = web.request(method, "/api/v2/builders")

    assert answer.status == 400
    assert answer.json() == {"error": "invalid HTTP method"}


def test_latest_is_another_name_of_v2(api: BuildAPI, web: WebClient) -> None:
    """For reading and for calls."""
    builders(api, 1)

    assert web.get("/api/latest/builders").body == web.get("/api/v2/builders").body
    assert web.call("/api/latest/builders/1", "x").status == 501


@pytest.mark.parametrize(
    "path", ["builders", "builders/1", "builders/9", "nosuch", "builders?x=1", "logs/1/raw"]
)
def test_every_answer_tells_its_position(api: BuildAPI, web: WebClient, path: str) -> None:
    """Errors and downloads too: whoever subscribes from there on misses nothing."""
    result_of(a_log(api, "a\n"))

    answer = web.get(f"/api/v2/{path}")

    assert answer.headers["x-seq"] == str(api.seq())
    assert answer.headers["x-event-log"] == api.database.identity


def test_calls_and_refused_methods_tell_their_position(api: BuildAPI, web: WebClient) -> None:
    """What a call has done is included."""
    result_of(a_build(api))

    answer = web.call("/api/v2/builds/1", "rebuild")

    assert answer.status == 200
    assert answer.headers["x-seq"] == str(api.seq())
    assert web.request("PUT", "/api/v2/builds").headers["x-seq"] == str(api.seq())


UNPACKED: dict[str, Callable[[bytes], bytes]] = {
    "br": brotli.decompress,
    "gzip": gzip.decompress,
    "zstd": lambda data: zstandard.ZstdDecompressor().decompressobj().decompress(data),
}


@pytest.mark.parametrize(
    ("accepted", "coding"),
    [
        ("gzip", "gzip"),
        ("gzip, br", "br"),
        ("zstd", "zstd"),
        ("deflate, gzip;q=0.5", "gzip"),
        ("deflate", None),
        ("br;q=0", None),
    ],
)
def test_a_body_is_compressed_as_the_client_likes(
    api: BuildAPI, web: WebClient, accepted: str, coding: str | None
) -> None:
    """The length is that of what is sent, for HEAD too."""
    builders(api, 50)
    headers = {"Accept-Encoding": accepted, **JSON}

    answer, head = (web.request(m, "/api/v2/builders", headers) for m in ("GET", "HEAD"))

    assert answer.headers["content-encoding"] == coding
    assert int(answer.headers["content-length"]) == len(answer.body)
    assert head.headers["content-length"] == answer.headers["content-length"]
    plain = UNPACKED[coding](answer.body) if coding else answer.body
    assert plain == web.get("/api/v2/builders", JSON).body


@pytest.mark.parametrize("headers", [{}, {"Accept-Encoding": "gzip"}])
def test_a_cache_is_told_what_an_answer_depends_on(web: WebClient, headers: dict[str, str]) -> None:
    """Also with an answer that is not compressed, and beside what an Origin needs."""
    headers = {**headers, "Origin": "http://127.0.0.1:8010"}

    found = web.get("/api/v2/builders", headers).headers.get_all("vary") or []

    named = {name.strip() for line in found for name in line.lower().split(",")}
    assert named >= {"accept", "accept-encoding", "origin"}


def test_a_large_answer_is_sent_in_chunks(
    api: BuildAPI, web: WebClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Above the limit it has no length; up to it, it has one."""
    builders(api, 3)
    whole = web.get("/api/v2/builders").body
    monkeypatch.setattr(replies, "LARGEST_WITH_LENGTH", len(whole) - 1)

    answer = web.get("/api/v2/builders")

    assert answer.headers["content-length"] is None
    assert answer.headers["transfer-encoding"] == "chunked"
    assert answer.body == whole
    monkeypatch.setattr(replies, "LARGEST_WITH_LENGTH", len(whole))
    assert web.get("/api/v2/builders").headers["content-length"] == str(len(whole))


def test_the_limit_is_eight_megabytes() -> None:
    """As Buildbot has it."""
    assert replies.LARGEST_WITH_LENGTH == 8 * 2**20


def test_a_large_body_is_compressed_all_the_same(
    api: BuildAPI, web: WebClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In the pool: what is sent is the same."""
    builders(api, 3)
    headers = {"Accept-Encoding": "gzip"}
    expected = web.get("/api/v2/builders", headers)
    monkeypatch.setattr(rest, "LARGEST_HANDLED_HERE", 10)

    # Another URL: the answer to the first is kept, compressed.
    answer = web.get("/api/v2/builders?order=builderid", headers)

    assert gzip.decompress(answer.body) == gzip.decompress(expected.body)
    assert answer.headers["content-encoding"] == "gzip"


def test_a_long_list_is_whole(api: BuildAPI, web: WebClient) -> None:
    """More rows than one portion: read in the pool, made portion by portion."""
    builders(api, 450)

    for headers in ({}, JSON):
        answer = web.get("/api/v2/builders?order=builderid", headers).json()

        assert [row["builderid"] for row in answer["builders"]] == list(range(1, 451))
        assert answer["meta"] == {"total": 450}


def test_our_own_fault_is_told_to_the_log_only(
    api: BuildAPI, web: WebClient, logged: list[LogEvent], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The client learns that it was none of its doing; no repr, no traceback."""

    def fail(*_: object) -> None:
        raise RuntimeError("secret")

    monkeypatch.setattr(api.data, "fetch", fail)

    answer = web.get("/api/v2/builders", JSON)

    assert answer.status == 500
    assert answer.json() == {"error": "an internal error; the server's log has it"}
    assert [str(event["log_failure"].value) for event in logged if "log_failure" in event] == [
        "secret"
    ]
    logged.clear()


def test_a_fault_in_the_pool_is_told_to_the_log_only(
    api: BuildAPI, logged: list[LogEvent], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also when it comes later."""
    later: Deferred[Any] = Deferred()
    monkeypatch.setattr(api.data, "fetch", lambda *_: later)
    wire = Wire(api)
    wire.send(b"GET /api/v2/builders HTTP/1.1\r\nHost: x\r\n\r\n")
    assert wire.take() == b""

    later.errback(RuntimeError("secret"))

    answer = answered(wire.take())
    assert answer.status == 500
    assert b"secret" not in answer.body
    logged.clear()


def test_a_database_that_is_busy_is_503(
    api: BuildAPI, web: WebClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its sentence says what to do."""

    def fail(*_: object) -> None:
        raise Unavailable("the database is busy; try again later")

    monkeypatch.setattr(api.data, "fetch", fail)

    answer = web.get("/api/v2/builders")

    assert answer.status == 503
    assert answer.json() == {"error": "the database is busy; try again later"}


def test_a_client_that_has_gone_stops_the_reading(
    api: BuildAPI, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody waits for the answer, so nobody should work on it."""
    cancelled: list[object] = []
    later: Deferred[Any] = Deferred(cancelled.append)
    monkeypatch.setattr(api.data, "fetch", lambda *_: later)
    wire = Wire(api)
    wire.send(b"GET /api/v2/builders HTTP/1.1\r\nHost: x\r\n\r\n")

    wire.hang_up()

    assert cancelled == [later]
    assert wire.take() == b""


def test_requests_on_one_connection_are_answered_in_turn(api: BuildAPI) -> None:
    """Also when they come all at once."""
    result_of(a_step(api))
    wire = Wire(api)

    wire.send(b"GET /api/v2/steps/1 HTTP/1.1\r\nHost: x\r\n\r\n" * 3)

    assert wire.take().count(b'"stepid": 1') == 3
    assert not wire.closed
