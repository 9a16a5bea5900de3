"""Build data: bytes under a name, and how they are downloaded."""

from __future__ import annotations

import pytest

from buildapi.service import BuildAPI
from buildapi.testing import WebClient, result_of

VALUE = b"\x00\xffno text"


@pytest.fixture
def web(api: BuildAPI, buildid: int) -> WebClient:
    """A client of a server whose build 1 has left a report."""
    result_of(api.data.updates.setBuildData(buildid, "report", VALUE, "a step"))
    return WebClient(api)


def test_an_object_has_no_bytes(web: WebClient) -> None:
    """Only their number."""
    (shown,) = web.get("/api/v2/builds/1/data").json()["build_data"]

    assert shown == {
        "buildid": 1,
        "name": "report",
        "length": len(VALUE),
        "value": None,
        "source": "a step",
    }


@pytest.mark.parametrize(
    "path", ["builds/1", "builders/1/builds/1", "builders/runtests/builds/1"], ids=str
)
def test_bytes_are_a_download(web: WebClient, path: str) -> None:
    """On every path, under their name, and of no type that a browser would show."""
    answer = web.get(f"/api/v2/{path}/data/report/value")

    assert (answer.status, answer.body) == (200, VALUE)
    assert answer.headers["content-type"] == "application/octet-stream; charset=utf-8"
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert answer.headers["content-disposition"] == "attachment; filename=report"


def test_head_tells_of_the_bytes(web: WebClient) -> None:
    """The same headers, and nothing after them."""
    path = "/api/v2/builds/1/data/report/value"
    head, get = web.request("HEAD", path), web.get(path)

    assert (head.status, head.body) == (200, b"")
    for name in ("content-type", "content-disposition"):
        assert head.headers[name] == get.headers[name]


def test_data_that_are_set_again_are_replaced(api: BuildAPI, web: WebClient) -> None:
    """The name stays one."""
    result_of(api.data.updates.setBuildData(1, "report", b"", "a later step"))

    assert web.get("/api/v2/builds/1/data/report/value").body == b""
    (shown,) = web.get("/api/v2/builds/1/data").json()["build_data"]
    assert (shown["length"], shown["source"]) == (0, "a later step")


@pytest.mark.parametrize("path", ["builds/1/data/other/value", "builds/9/data/report/value"])
def test_what_nobody_has_left_is_not_there(web: WebClient, path: str) -> None:
    """The answer is an error like any other."""
    answer = web.get(f"/api/v2/{path}")

    assert answer.status == 404
    assert "error" in answer.json()
