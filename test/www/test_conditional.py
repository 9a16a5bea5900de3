"""Conditional requests: 304 as long as an answer is what it was, and never any longer."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.internet.defer import Deferred

from buildapi.data.gate import Gate, Identity, Restriction
from buildapi.db.tables import builders
from buildapi.service import BuildAPI
from buildapi.settings import Database, Settings
from buildapi.testing import (
    Answer,
    WebClient,
    Wire,
    a_build,
    a_log,
    a_request,
    a_step,
    answered,
    in_memory_api,
    result_of,
)

JSON = {"Accept": "application/json"}


@pytest.fixture(autouse=True)
def a_builder(api: BuildAPI) -> None:
    """There is something to ask for."""
    result_of(api.data.updates.findBuilderId("first"))


def again(web: WebClient, answer: Answer, path: str, headers: dict[str, str] | None = None) -> int:
    """The status of the same request with the ETag of the first answer."""
    tag = answer.headers["etag"]
    return web.get(path, {**(headers or {}), "If-None-Match": tag}).status


@pytest.mark.parametrize("path", ["builders", "builders/1", "builders?limit=1", "builds"])
def test_what_has_not_changed_is_not_sent_again(api: BuildAPI, web: WebClient, path: str) -> None:
    """The answer is short, and its position is the newest."""
    first = web.get(f"/api/v2/{path}", JSON)
    result_of(api.data.updates.findWorkerId("elsewhere"))

    answer = web.get(f"/api/v2/{path}", {**JSON, "If-None-Match": first.headers["etag"]})

    assert (answer.status, answer.body) == (304, b"")
    assert answer.headers["etag"] == first.headers["etag"]
    assert answer.headers["x-seq"] == str(api.seq()) != first.headers["x-seq"]
    assert answer.headers["x-event-log"] == api.database.identity
    assert answer.headers["vary"] == "accept, accept-encoding"
    assert answer.headers["content-length"] is None


def test_it_costs_no_statement(
    api: BuildAPI, web: WebClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither on the reactor thread nor in the pool."""
    tag = web.get("/api/v2/builders").headers["etag"]

    def never(*_: object) -> None:
        raise AssertionError("it was read")

    monkeypatch.setattr(api.database, "inline", never)
    monkeypatch.setattr(api.database, "read", never)

    assert web.get("/api/v2/builders", {"If-None-Match": tag}).status == 304


def test_head_and_other_origins_are_answered_alike(web: WebClient) -> None:
    """A HEAD has the tag of its GET; a page may read it."""
    headers = {"Origin": "http://127.0.0.1:8010"}
    tag = web.request("HEAD", "/api/v2/builders", headers).headers["etag"]

    answer = web.get("/api/v2/builders", {**headers, "If-None-Match": tag})

    assert tag == web.get("/api/v2/builders").headers["etag"]
    assert answer.status == 304
    assert "ETag" in answer.headers["access-control-expose-headers"]


@pytest.mark.parametrize("form", ["W/{}", '"x", {}', '{}, W/"y"', 'W/"x",W/{}'])
def test_a_tag_is_found_among_others(web: WebClient, form: str) -> None:
    """A proxy may have made it a weak one."""
    tag = web.get("/api/v2/builders").headers["etag"]

    assert web.get("/api/v2/builders", {"If-None-Match": form.format(tag)}).status == 304
    assert web.get("/api/v2/builders", {"If-None-Match": form.format('"z"')}).status == 200


@pytest.mark.parametrize("headers", [{}, JSON])
@pytest.mark.parametrize("coding", [None, "gzip", "br", "zstd"])
def test_each_representation_has_its_own_tag(
    web: WebClient, headers: dict[str, str], coding: str | None
) -> None:
    """Form and coding: one is not the other."""
    mine = {**headers, **({"Accept-Encoding": coding} if coding else {})}
    tag = web.get("/api/v2/builders", mine).headers["etag"]

    assert web.get("/api/v2/builders", {**mine, "If-None-Match": tag}).status == 304
    for accept in ({}, JSON):
        for other in (None, "gzip", "br", "zstd"):
            if (accept, other) != (headers, coding):
                asked = {**accept, **({"Accept-Encoding": other} if other else {})}
                assert web.get("/api/v2/builders", asked).headers["etag"] != tag
                assert (
                    again(web, web.get("/api/v2/builders", mine), "/api/v2/builders", asked) == 200
                )


def test_each_url_has_its_own_tag(web: WebClient) -> None:
    """What is not there is not unchanged."""
    answer = web.get("/api/v2/builders/1")

    assert again(web, answer, "/api/v2/builders/2") == 404
    assert again(web, answer, "/api/v2/builders?x=1") == 400
    assert again(web, answer, "/api/v2/builders") == 200


class HidingGate(Gate):
    """Hides a builder from everybody, as soon as somebody says so."""

    hidden: frozenset[int] | None = None

    def restriction(self, identity: Identity) -> Restriction | None:  # noqa: ARG002  all alike
        """Return what nobody sees."""
        return None if HidingGate.hidden is None else Restriction(HidingGate.hidden)


def test_each_right_has_its_own_tag(
    api: BuildAPI, web: WebClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who sees less must not be told that nothing has changed."""
    api.data.gate = HidingGate()
    path = "/api/v2/builders"
    first = web.get(path)
    assert again(web, first, path) == 304

    monkeypatch.setattr(HidingGate, "hidden", frozenset({1}))

    assert again(web, first, path) == 200
    second = web.get(path)
    assert again(web, second, path) == 304
    monkeypatch.setattr(HidingGate, "hidden", frozenset({2}))
    assert again(web, second, path) == 200


@pytest.mark.parametrize(
    "path",
    [
        *("", "forceschedulers", "application.spec", "builds/1/properties"),
        *("logs/1/contents", "logs/1/raw"),
    ],
)
def test_what_is_more_than_tables_has_no_tag(api: BuildAPI, web: WebClient, path: str) -> None:
    """Nobody says when it changes."""
    result_of(a_log(api, "a\n"))

    answer = web.get(f"/api/v2/{path}".rstrip("/"))

    assert answer.status == 200
    assert answer.headers["etag"] is None


@pytest.mark.parametrize("path", ["builders/99", "builders?x=1", "nosuch"])
def test_an_error_has_no_tag(web: WebClient, path: str) -> None:
    """It may be right a moment later."""
    assert web.get(f"/api/v2/{path}").headers["etag"] is None


@pytest.mark.systems("sqlite")
def test_where_another_program_writes_there_is_no_tag() -> None:
    """Nobody here knows what it changed."""
    api = in_memory_api(Settings(database=Database(foreign_writer=True)), master=None)

    assert WebClient(api).get("/api/v2/builders").headers["etag"] is None


@pytest.mark.systems("sqlite")
def test_another_process_has_other_tags() -> None:
    """Each counts from its start."""
    tags = {WebClient(in_memory_api()).get("/api/v2/builders").headers["etag"] for _ in range(2)}

    assert len(tags) == 2


# Between the commit of a batch and its delivery the database is newer than what is published.


@pytest.fixture
def late(api: BuildAPI, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[], None]]:
    """What the writer commits is published only when this is called."""
    writer: Any = api.database.writer
    deliver = writer._deliver
    waiting: list[Any] = []
    monkeypatch.setattr(writer, "_deliver", waiting.append)

    def publish() -> None:
        for committed in waiting:
            deliver(committed)
        waiting.clear()

    yield publish
    publish()


def test_what_is_newer_than_the_published_has_no_tag(
    api: BuildAPI, web: WebClient, late: Callable[[], None]
) -> None:
    """Its tag would be the one of the state before."""
    old = web.get("/api/v2/builders")
    result_of(api.data.updates.findBuilderId("second"))

    newer = web.get("/api/v2/builders?limit=5")

    assert len(newer.json()["builders"]) == 2
    assert newer.headers["etag"] is None
    assert again(web, old, "/api/v2/builders") == 304
    late()
    assert again(web, old, "/api/v2/builders") == 200
    assert web.get("/api/v2/builders").headers["etag"] not in (None, old.headers["etag"])


def test_a_change_without_an_event_changes_the_tag(api: BuildAPI, web: WebClient) -> None:
    """Positions tell nothing of it, the tables do."""
    old = web.get("/api/v2/builders")
    result_of(api.data.transaction(lambda tx: tx.change(builders, 1, description="silent")))

    assert str(api.seq()) == old.headers["x-seq"]
    assert again(web, old, "/api/v2/builders") == 200


def test_what_is_read_late_has_the_tag_of_what_it_shows(
    api: BuildAPI, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While a list waited for the pool it was changed: nobody asked for the tag of that."""
    fetch = api.data.fetch
    later: list[Deferred[Any]] = []

    def slowly(*arguments: Any) -> Deferred[Any]:
        reading: Deferred[Any] = Deferred()
        reading.addCallback(lambda _: fetch(*arguments))
        later.append(reading)
        return reading

    def asked(limit: int, meanwhile: Callable[[], Any]) -> Answer:
        wire = Wire(api)
        wire.send(b"GET /api/v2/builders?limit=%d HTTP/1.1\r\nHost: x\r\n\r\n" % limit)
        meanwhile()
        later.pop().callback(None)
        return answered(wire.take())

    monkeypatch.setattr(api.data, "fetch", slowly)
    updates = api.data.updates

    assert asked(10, lambda: None).headers["etag"] is not None
    assert asked(11, lambda: result_of(updates.findWorkerId("w"))).headers["etag"] is not None
    assert asked(12, lambda: result_of(updates.findBuilderId("second"))).headers["etag"] is None


# Whatever is written: who asks with a tag never misses a change.

PATHS = (
    *("builds", "builds/1", "builds?limit=1", "builders", "builders/1/builds", "buildrequests"),
    *("buildsets", "steps/1", "builds/1/steps", "steps/1/logs", "logs/1", "workers", "masters"),
    *("builds/1?property=*", "builds/1/property_list", "changes", "sourcestamps", "schedulers"),
)
WRITES: dict[str, Callable[[BuildAPI], Any]] = {
    "request": a_request,
    "build": a_build,
    "step": lambda api: a_step(api, buildid=1),
    "log": lambda api: a_log(api, "a\n", stepid=1, name="other"),
    "line": lambda api: api.data.updates.appendLog(1, "b\n"),
    "property": lambda api: api.data.updates.setBuildProperty(1, "p", api.seq(), "test"),
    "finish": lambda api: api.data.updates.finishBuild(1, 0),
    "change": lambda api: api.data.updates.addChange(author="alice"),
    "worker": lambda api: api.data.updates.set_worker_paused(1, paused=True),
    "master": lambda api: api.data.updates.masterActive("test:/master", 1),
    "time": lambda api: api.reactor.advance(1),
}


@pytest.mark.systems("sqlite")
@settings(max_examples=30)
@given(st.lists(st.sampled_from(sorted(WRITES)), min_size=1, max_size=6))
def test_a_304_is_never_wrong(writes: list[str]) -> None:
    """Whenever the body would be another, it is sent; and that is what the database has."""
    api = in_memory_api()
    web = WebClient(api)
    result_of(a_log(api, "a\n"))
    known = {path: web.get(f"/api/v2/{path}", JSON) for path in PATHS}
    for write in writes:
        writing = WRITES[write](api)
        if writing is not None:
            writing.addErrback(lambda _: None)
        for path, old in known.items():
            fresh = web.get(f"/api/v2/{path}", JSON)
            status = again(web, old, f"/api/v2/{path}", JSON)
            assert status == 200 or fresh.body == old.body, path
            read = result_of(api.data.get(path))
            del (shown := fresh.json())["meta"]
            assert [*shown.values()] == [read if isinstance(read, list) else [read]], path
            known[path] = fresh
