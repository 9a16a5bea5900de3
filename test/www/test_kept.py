"""Answers that are given again as they are: never one that would be another by now."""

from __future__ import annotations

from typing import Any

import pytest

from buildapi.service import BuildAPI
from buildapi.settings import Limits, Settings
from buildapi.testing import WebClient, in_memory_api, result_of
from buildapi.www.kept import OVERHEAD, Answer, Kept

JSON = {"Accept": "application/json"}


@pytest.fixture(autouse=True)
def builders(api: BuildAPI) -> None:
    """There is something to ask for."""
    for name in ("first", "second", "third"):
        result_of(api.data.updates.findBuilderId(name))


def forbid_reading(api: BuildAPI, monkeypatch: pytest.MonkeyPatch) -> None:
    """From now on nothing may be read."""

    def never(*_: Any) -> None:
        raise AssertionError("it was read")

    monkeypatch.setattr(api.database, "inline", never)
    monkeypatch.setattr(api.database, "read", never)


@pytest.mark.parametrize("path", ["builders", "builders?limit=2&order=-builderid", "builds"])
@pytest.mark.parametrize("coding", [None, "gzip", "zstd"])
def test_an_unchanged_list_is_not_read_again(
    api: BuildAPI,
    web: WebClient,
    monkeypatch: pytest.MonkeyPatch,
    path: str,
    coding: str | None,
) -> None:
    """Nor compressed again; and its position is the newest."""
    headers = {**JSON, **({"Accept-Encoding": coding} if coding else {})}
    first = web.get(f"/api/v2/{path}", headers)
    result_of(api.data.updates.findWorkerId("elsewhere"))
    forbid_reading(api, monkeypatch)

    second = web.get(f"/api/v2/{path}", headers)

    assert (second.status, second.body) == (200, first.body)
    assert second.headers["x-seq"] == str(api.seq()) != first.headers["x-seq"]
    for name in ("etag", "content-type", "content-encoding", "content-length", "vary", "link"):
        assert second.headers[name] == first.headers[name]


def test_head_of_an_unchanged_list(web: WebClient) -> None:
    """It has the headers, not the body."""
    first = web.get("/api/v2/builders")

    answer = web.request("HEAD", "/api/v2/builders")

    assert answer.body == b""
    assert answer.headers["content-length"] == first.headers["content-length"]


def test_a_changed_list_is_read_again(api: BuildAPI, web: WebClient) -> None:
    """What it shows is what the database has."""
    assert len(web.get("/api/v2/builders").json()["builders"]) == 3
    result_of(api.data.updates.findBuilderId("fourth"))

    assert len(web.get("/api/v2/builders").json()["builders"]) == 4


@pytest.mark.systems("sqlite")
@pytest.mark.parametrize("rows", [2, 10])
def test_the_next_page_is_under_the_clients_own_name(rows: int) -> None:
    """In the header and in the body, whoever asked before."""
    api = in_memory_api(Settings(limits=Limits(rows=rows)))
    web = WebClient(api)
    for name in ("first", "second", "third"):
        result_of(api.data.updates.findBuilderId(name))
    path = "/api/v2/builders" if rows == 2 else "/api/v2/builders?limit=2"

    for host in ("one.example", "other.example"):
        answer = web.get(path, {**JSON, "Host": host})
        following = answer.headers["link"]
        assert following is not None
        assert following.startswith(f"<http://{host}/api/v2/builders?")
        if rows == 2:
            assert answer.json()["meta"]["next"].startswith(f"http://{host}/api/v2/builders?")


@pytest.mark.systems("sqlite")
def test_nothing_is_kept_if_nothing_may_be(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every list is read, by who has better use for the memory."""
    api = in_memory_api(Settings(limits=Limits(kept_bytes=0)))
    web = WebClient(api)
    inline, reads = api.database.inline, []

    def counted(shape: Any, work: Any) -> Any:
        reads.append(shape)
        return inline(shape, work)

    monkeypatch.setattr(api.database, "inline", counted)

    assert [web.get("/api/v2/builders").status for _ in range(3)] == [200] * 3
    assert len(reads) == 3


@pytest.mark.systems("sqlite")
def test_what_is_kept_is_bounded() -> None:
    """What was not asked for longest goes first."""
    kept = Kept(3 * (100 + OVERHEAD))
    answer = Answer(b"x" * 100, 1)
    for key in "abc":
        kept.put(key, 1, answer)
    assert kept.get("a", 1) == answer

    kept.put("d", 1, answer)

    assert [kept.get(key, 1) is not None for key in "abcd"] == [True, False, True, True]
    assert kept.bytes == 3 * (100 + OVERHEAD)


@pytest.mark.systems("sqlite")
def test_the_newer_answer_takes_the_place_of_the_older() -> None:
    """One request has one answer."""
    kept = Kept(10 * OVERHEAD)
    kept.put("a", 1, Answer(b"old", 1))

    kept.put("a", 2, Answer(b"newer", 1))

    assert kept.get("a", 1) is None
    assert kept.get("a", 2) == Answer(b"newer", 1)
    assert kept.bytes == 5 + OVERHEAD
    assert kept.get("b", 1) is None


@pytest.mark.systems("sqlite")
def test_what_is_larger_than_all_that_may_be_kept() -> None:
    """It is not kept, and the rest goes with it."""
    kept = Kept(2 * OVERHEAD)
    kept.put("a", 1, Answer(b"", 0))

    kept.put("b", 1, Answer(b"x" * 2 * OVERHEAD, 1))

    assert (kept.get("a", 1), kept.get("b", 1), kept.bytes) == (None, None, 0)
