"""Requests that nobody means well with: never a 5xx, never a hang, never without an end."""

from __future__ import annotations

import json
from typing import Any
from urllib.parse import quote

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from buildapi.errors import BadQuery
from buildapi.service import BuildAPI
from buildapi.settings import Limits, Settings
from buildapi.testing import (
    WebClient,
    Wire,
    a_build,
    a_log,
    answered,
    in_memory_api,
    result_of,
)


def test_a_path_that_is_no_utf8_is_missing(web: WebClient) -> None:
    """Escaped; for every method that looks at it."""
    for path in ("/api/v2/%ff", "/api/v2/builders/%c3%28/builds", "/api/latest/%80"):
        assert web.get(path).status == 404
        assert web.request("HEAD", path).status == 404
        assert web.call(path, "stop").status == 404


def test_bytes_that_are_no_address_are_refused(api: BuildAPI) -> None:
    """A request line is ASCII."""
    wire = Wire(api)

    wire.send(b"GET /api/v2/\xff\xfe HTTP/1.1\r\nHost: x\r\n\r\n")

    assert answered(wire.take()).status == 400


@pytest.mark.parametrize(
    ("query", "status"),
    [
        ("name=%ff", 200),
        ("name__lt=%ff", 200),
        ("name=%ed%a0%80", 200),
        ("%ff=1", 400),
        ("field=%ff", 400),
        ("name=%00", 200),
        ("%00=1", 400),
        ("limit=%00", 400),
        ("builderid=%00", 400),
        ("builderid=" + "9" * 5_000, 400),
        ("builderid=" + "9" * 4_000, 200),
        ("limit=" + "9" * 4_000, 200),
        ("order=" + "-" * 9_000 + "name", 400),
        ("&" * 9_000, 200),
        ("=" * 9_000, 400),
        ("&".join(["name=a"] * 2_000), 200),
        ("&".join(f"name={i}" for i in range(1_500)), 200),
        ("&".join(f"x{i}=1" for i in range(2_000)), 400),
        ("&".join(["field=name"] * 1_400), 200),
        ("&".join(["order=name", "order=-name"] * 600), 200),
    ],
)
def test_a_strange_query_is_answered(
    api: BuildAPI, web: WebClient, query: str, status: int
) -> None:
    """As a filter that finds nothing, or with the reason why not."""
    result_of(api.data.updates.findBuilderId("runtests"))

    assert web.get(f"/api/v2/builders?{query}").status == status


@pytest.mark.parametrize(
    "path",
    [
        "builders/%00",
        "builds/" + "9" * 5_000,
        "builds/%F0%9F%92%A9/properties",
        "builders/" + "a" * 8_000 + "/nosuch",
        "/" * 8_000,
        "a/" * 5_000,
        "%2e%2e/%2e%2e/etc/passwd",
        "builds/1%2F..%2F",
        "builds/٣",
        "builds/+1",
        "builds/-1",
        "builders/%",
        "builders/%zz",
    ],
)
def test_a_strange_path_is_missing(web: WebClient, path: str) -> None:
    """With a sentence that is not longer than it need be."""
    answer = web.get("/api/v2/" + quote(path, safe="/%+"))

    assert answer.status == 404
    assert len(answer.json()["error"]) < 1_000


def test_a_hundred_thousand_arguments_are_refused(api: BuildAPI) -> None:
    """No URL of that length comes through, but a call in process does."""
    query = "&".join(f"name={i}" for i in range(100_000))

    with pytest.raises(BadQuery, match="name"):
        result_of(api.data.get(f"builders?{query}"))


def test_an_address_of_more_than_16_kb_is_refused(web: WebClient) -> None:
    """With an answer, and then the connection is closed."""
    answer = web.get("/api/v2/builders?" + "a" * 17_000)

    assert answer.status == 414
    assert "16 kB" in answer.json()["error"]


def test_an_endless_line_is_refused_at_once(api: BuildAPI) -> None:
    """Nobody waits for its end."""
    wire = Wire(api)

    for _ in range(20):
        wire.send(b"a" * 1_000)

    assert wire.closed
    assert answered(wire.take()).status == 414


def test_too_many_headers_are_refused(api: BuildAPI) -> None:
    """Their number and their size are bounded."""
    for header in (b"a: b\r\n" * 1_000, b"a: %b\r\n" % (b"b" * 9_000) * 2):
        wire = Wire(api)
        wire.send(b"GET /api/v2/builders HTTP/1.1\r\nHost: x\r\n" + header + b"\r\n")

        assert wire.closed
        assert answered(wire.take()).status == 400


@pytest.mark.parametrize("chunked", [True, False])
def test_a_body_that_is_too_long_is_refused(chunked: bool) -> None:
    """And not kept: what is beyond the limit is dropped as it comes."""
    api = in_memory_api(Settings(limits=Limits(request_bytes=1_000)))
    wire = Wire(api)
    length = b"Transfer-Encoding: chunked" if chunked else b"Content-Length: 3000000"
    wire.send(
        b"POST /api/v2/builds/1 HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
        b"%b\r\n\r\n" % length
    )
    piece = b" " * 30_000
    for _ in range(99):
        wire.send(b"%x\r\n%b\r\n" % (len(piece), piece) if chunked else piece)
    assert wire.protocol.requests[0].content.tell() == len(piece)
    wire.send(b"0\r\n\r\n" if chunked else piece)

    answer = answered(wire.take())
    assert answer.status == 400
    assert answer.json()["error"]["code"] == -32600
    assert "1000 bytes" in answer.json()["error"]["message"]


def test_a_body_of_the_limit_is_read() -> None:
    """To the byte."""
    api = in_memory_api(Settings(limits=Limits(request_bytes=1_000)))
    call = {"jsonrpc": "2.0", "id": 1, "method": "stop", "params": {}}
    headers = {"Content-Type": "application/json"}
    body = json.dumps(call).encode().ljust(1_000)

    web = WebClient(api)
    assert web.request("POST", "/api/v2/builds/1", headers, body).status == 404
    assert web.request("POST", "/api/v2/builds/1", headers, body + b" ").status == 400


@pytest.mark.parametrize(
    "content_type", ["multipart/form-data", "multipart/form-data; boundary=x", "x-www-form/url"]
)
def test_a_form_is_no_call(web: WebClient, content_type: str) -> None:
    """A page of another origin could send one without asking."""
    answer = web.request(
        "POST", "/api/v2/builds/1", {"Content-Type": content_type}, b"--x\r\n\r\n{}"
    )

    assert answer.status == 400


def test_a_connection_that_breaks_amid_a_body_leaves_nothing(api: BuildAPI) -> None:
    """No request, no answer."""
    wire = Wire(api)
    wire.send(b"POST /api/v2/builds/1 HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n{")

    wire.hang_up()

    assert wire.take() == b""


anything: Any = st.text(st.characters(codec="utf-8"), max_size=30)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(elements=st.lists(anything, max_size=6), query=st.lists(st.tuples(anything, anything)))
def test_no_address_makes_the_server_fail(
    web: WebClient, elements: list[str], query: list[tuple[str, str]]
) -> None:
    """Whatever somebody types."""
    path = "/".join(quote(element, safe="") for element in elements)
    text = "&".join(f"{quote(name, safe='')}={quote(value, safe='')}" for name, value in query)

    assert web.get(f"/api/v2/{path}?{text}").status in (200, 400, 404)


FIELDS = ("builderid", "name", "tags", "description", "masterids", "complete", "results", "number")
OPERATIONS = ("", "__eq", "__ne", "__lt", "__ge", "__contains", "__in", "__notin", "__x")
VALUES = ("1", "-1", "true", "", "a", "null", "9" * 30, "\x00", "☃", "1.5", "1_0", " 1 ")


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    path=st.sampled_from(("builders", "builds", "builds/1", "steps/1/logs", "logs/1/contents")),
    arguments=st.lists(
        st.tuples(
            st.builds("{}{}".format, st.sampled_from(FIELDS), st.sampled_from(OPERATIONS))
            | st.sampled_from(("field", "order", "limit", "offset", "property")),
            st.sampled_from((*VALUES, *FIELDS)),
        ),
        max_size=5,
    ),
)
def test_no_query_makes_the_server_fail(
    web: WebClient, path: str, arguments: list[tuple[str, str]]
) -> None:
    """Names that mean something, in ways that do not."""
    text = "&".join(f"{name}={quote(value)}" for name, value in arguments)

    assert web.get(f"/api/v2/{path}?{text}").status in (200, 400, 404)


def test_strange_names_in_the_database_are_shown(api: BuildAPI, web: WebClient) -> None:
    """Control characters, quotes and markup are only text."""
    nul = "\0" if api.database.connector.STORES_NUL else ""
    name = f'a"\\\n{nul}\x1f<script>☃ \u2028'
    result_of(a_build(api, builder=name))
    result_of(a_log(api, "a\x00b\x1b[0m\n"))

    for headers in ({}, {"Accept": "application/json"}):
        answer = web.get("/api/v2/builders/1", headers)
        assert answer.json()["builders"][0]["name"] == name
        content = web.get("/api/v2/logs/1/contents", headers).json()["logchunks"][0]["content"]
        assert content == "a\x00b\x1b[0m\n"
