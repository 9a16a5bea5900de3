"""Following logs over HTTP: as events, as a download that grows, answer by answer."""

from __future__ import annotations

import json
from http.client import IncompleteRead
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from buildapi.data.gate import Gate, Restriction
from buildapi.service import BuildAPI
from buildapi.testing import (
    Answer,
    WebClient,
    Wire,
    a_build,
    a_log,
    a_step,
    answered,
    in_memory_api,
    result_of,
)
from buildapi.testing.wire import head
from buildapi.www import hub
from test.www.follow.following import AT_ONCE

EVENTS = {"Accept": "text/event-stream"}


class Getting:
    """A GET that may take a while."""

    def __init__(self, api: BuildAPI, path: str, **headers: str) -> None:
        self.wire = Wire(api)
        given = {"Host": "127.0.0.1:8010", "Connection": "close", **headers}
        self.wire.send(head(f"GET /api/v2/{path} HTTP/1.1", given))
        self._received = b""

    @property
    def received(self) -> bytes:
        """What has come so far."""
        while taken := self.wire.take():
            self._received += taken
        return self._received

    @property
    def closed(self) -> bool:
        """Whether the answer has come to its end, or was broken off."""
        return self.wire.closed

    def answer(self) -> Answer:
        """Return the whole answer."""
        received = self.received
        assert self.closed
        return answered(received)

    def text(self) -> bytes:
        """Return what has come of a body in chunks, the end of which need not have come."""
        _, _, rest = self.received.partition(b"\r\n\r\n")
        text = b""
        while rest:
            size, _, rest = rest.partition(b"\r\n")
            length = int(size, 16)
            text, rest = text + rest[:length], rest[length + 2 :]
        return text

    def events(self) -> list[tuple[str, int | None, Any]]:
        """Return the events that have come: kind, id, data."""
        found = []
        for block in self.text().decode().split("\n\n")[:-1]:
            members = dict(line.split(": ", 1) for line in block.split("\n") if line[0] != ":")
            if members:
                ident = members.get("id")
                data = json.loads(members["data"])
                found.append((members["event"], int(ident) if ident else None, data))
        return found


def append(api: BuildAPI, logid: int, text: str) -> None:
    """Append to a log."""
    result_of(api.data.updates.appendLog(logid, text))


def finish(api: BuildAPI, logid: int) -> None:
    """End a log."""
    result_of(api.data.updates.finishLog(logid))


def page(api: BuildAPI, path: str) -> Any:
    """Return the object of an answer that has come at once."""
    answer = WebClient(api).get(f"/api/v2/{path}")
    assert answer.status == 200
    (row,) = answer.json()["logchunks"]
    return row


@pytest.mark.parametrize("kind", ["s", "t", "h"])
def test_a_followed_download_is_the_download(api: BuildAPI, kind: str) -> None:
    """Byte for byte, however the lines came; and it ends with the log."""
    logid = result_of(a_log(api, "o1\n", kind=kind))
    getting = Getting(api, f"logs/{logid}/raw?follow=1")
    append(api, logid, "e☃\no\n")
    result_of(api.data.updates.compressLog(logid))
    append(api, logid, "\nh4\n")
    assert not getting.closed

    finish(api, logid)

    plain = WebClient(api).get(f"/api/v2/logs/{logid}/raw")
    answer = getting.answer()
    assert answer.body == plain.body
    assert (answer.status, answer.headers["Transfer-Encoding"]) == (200, "chunked")
    for name in ("content-type", "content-disposition", "content-security-policy"):
        assert answer.headers[name] == plain.headers[name]
    assert answer.headers["x-accel-buffering"] == "no"


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ("", "Builder: runtests\nBuild number: 1\nWorker name: linux\n0\n1\n2\n"),
        ("&offset=0", "Builder: runtests\nBuild number: 1\nWorker name: linux\n0\n1\n2\n"),
        ("&offset=1", "1\n2\n"),
        ("&offset=-1", "2\n"),
        ("&offset=-9", "0\n1\n2\n"),
        ("&offset=9", ""),
        ("&offset=1&grep=^2", "2\n"),
        ("&offset=1&grep=2&context=1", "1\n2\n"),
        ("&offset=1&streams=e", "1\n"),
        ("&offset=1&limit=1", "1\n2\n"),
    ],
)
def test_a_download_may_begin_later_or_be_filtered(
    api: BuildAPI, query: str, expected: str
) -> None:
    """The heading belongs to the beginning."""
    result_of(a_log(api, "o0\ne1\no2\n", kind="s", finished=True))

    assert Getting(api, f"logs/1/raw?follow=1{query}").answer().body.decode() == expected


@pytest.mark.parametrize("kind", ["s", "t"])
def test_an_empty_download_is_as_the_plain_one(api: BuildAPI, kind: str) -> None:
    """With a heading, or empty."""
    result_of(a_log(api, kind=kind, finished=True))

    plain = WebClient(api).get("/api/v2/logs/1/raw_inline").body
    assert Getting(api, "logs/1/raw_inline?follow=1").answer().body == plain


def test_events_come_as_the_log_grows(api: BuildAPI) -> None:
    """Frames as on a WebSocket, with the next line as id."""
    logid = result_of(a_log(api, "a\n"))
    getting = Getting(api, f"logs/{logid}/contents?follow=1", **EVENTS)
    append(api, logid, "b\nc\n")
    finish(api, logid)

    assert getting.closed
    assert getting.events() == [
        ("lines", 1, {"logid": 1, "first": 0, "next": 1, "content": "a\n"}),
        ("lines", 3, {"logid": 1, "first": 1, "next": 3, "content": "b\nc\n"}),
        ("end", 3, {"end": {"num_lines": 3, "complete": True}}),
    ]
    *_, last, _ = getting.text().split(b"\n\n")
    # A browser comes back, whatever it is told; but not soon.
    assert b"retry: 86400000" in last.split(b"\n")
    headers = getting.answer().headers
    assert headers["content-type"] == "text/event-stream; charset=utf-8"
    assert (headers["cache-control"], headers["x-accel-buffering"]) == ("no-store", "no")


def test_the_last_event_id_goes_on(api: BuildAPI) -> None:
    """It wins over the offset."""
    result_of(a_log(api, "a\nb\nc\n", finished=True))

    path = "logs/1/contents?follow=1&offset=-1"
    getting = Getting(api, path, **EVENTS, **{"Last-Event-ID": "1"})

    assert getting.events()[0][2]["content"] == "b\nc\n"
    bad = Getting(api, path, **EVENTS, **{"Last-Event-ID": "x"})
    assert bad.answer().status == 400


def test_who_waits_sees_a_sign_of_life(api: BuildAPI) -> None:
    """At once, and more often than every fifteen seconds."""
    result_of(a_log(api))
    getting = Getting(api, "logs/1/contents?follow=1", **EVENTS)
    before = getting.text().count(b":\n\n")
    assert before == 1

    for _ in range(4):
        api.reactor.advance(14)

    assert getting.text().count(b":\n\n") >= before + 4


def test_an_answer_comes_with_the_next_lines(api: BuildAPI) -> None:
    """At once if there are any, else as soon as they come."""
    logid = result_of(a_log(api, "a\nb\n"))
    assert page(api, "logs/1/contents?offset=1&wait=25") == {
        "logid": 1,
        "firstline": 1,
        "content": "b\n",
        "next": 2,
        "complete": False,
    }
    getting = Getting(api, "logs/1/contents?offset=2&wait=25")
    assert not getting.closed

    append(api, logid, "c\nd\n")

    (row,) = getting.answer().json()["logchunks"]
    assert (row["firstline"], row["content"], row["next"]) == (2, "c\nd\n", 4)


def test_an_answer_may_be_empty(api: BuildAPI) -> None:
    """When nothing came in time, and at the end of the log; not before."""
    logid = result_of(a_log(api, "a\n"))
    getting = Getting(api, "logs/1/contents?offset=1&wait=25")
    api.reactor.advance(24)
    assert not getting.closed
    api.reactor.advance(2)
    (row,) = getting.answer().json()["logchunks"]
    assert (row["content"], row["next"], row["complete"]) == ("", 1, False)

    getting = Getting(api, "logs/1/contents?offset=1&wait=1000000")
    finish(api, logid)
    (row,) = getting.answer().json()["logchunks"]
    assert (row["content"], row["firstline"], row["complete"]) == ("", 1, True)
    assert page(api, "logs/1/contents?offset=99&wait=0")["complete"] is True


def test_an_answer_has_no_more_than_is_asked_for(api: BuildAPI) -> None:
    """Lines by limit, members by field."""
    result_of(a_log(api, "a\nb\nb\nc\n"))

    row = page(api, "logs/1/contents?offset=-3&limit=2&wait=1")
    assert (row["firstline"], row["content"], row["next"]) == (1, "b\nb\n", 3)
    row = page(api, "logs/1/contents?grep=b&limit=1&wait=1")
    assert (row["firstline"], row["lines"], row["next"]) == (0, [[1, "b"]], 2)
    assert page(api, "logs/1/contents?wait=1&field=content") == {"content": "a\nb\nb\nc\n"}


ROADS = ["raw?follow=1", "raw_inline?follow=1", "contents?follow=1", "contents?wait=25"]


@pytest.mark.parametrize("road", ROADS)
def test_a_log_that_is_not_there_yet_is_waited_for(api: BuildAPI, road: str) -> None:
    """As long as its step runs."""
    stepid = result_of(a_step(api))
    getting = Getting(api, f"steps/1/logs/late/{road}", **EVENTS)
    assert getting.received == b""

    logid = result_of(a_log(api, "a\n", name="late", stepid=stepid))
    finish(api, logid)

    answer = getting.answer()
    assert answer.status == 200
    assert b"a" in answer.body


@pytest.mark.parametrize("road", ROADS)
def test_a_log_of_a_step_to_come_is_waited_for(api: BuildAPI, road: str) -> None:
    """As long as its build runs."""
    buildid = result_of(a_build(api))
    getting = Getting(api, f"builds/{buildid}/steps/compile/logs/stdio/{road}", **EVENTS)
    assert getting.received == b""

    stepid = result_of(a_step(api, "compile", buildid))
    finish(api, result_of(a_log(api, "a\n", stepid=stepid)))

    answer = getting.answer()
    assert answer.status == 200
    assert b"a" in answer.body


@pytest.mark.parametrize("road", ROADS)
def test_a_log_that_never_comes_is_not_found(api: BuildAPI, road: str) -> None:
    """Nor is one of a step that has ended, or of none."""
    stepid = result_of(a_step(api))
    getting = Getting(api, f"steps/1/logs/late/{road}", **EVENTS)

    result_of(api.data.updates.finishStep(stepid, 0, False))

    assert getting.answer().status == 404
    for path in ("steps/1/logs/late", "steps/9/logs/late", "logs/9"):
        answer = Getting(api, f"{path}/{road}", **EVENTS).answer()
        assert answer.status == 404
        assert "error" in answer.json()


def test_who_waits_too_long_for_a_log_gets_an_event(api: BuildAPI) -> None:
    """Signs of life have gone out by then: it is too late for a status."""
    stepid = result_of(a_step(api))
    getting = Getting(api, "steps/1/logs/late/contents?follow=1", **EVENTS)
    api.reactor.advance(16)

    result_of(api.data.updates.finishStep(stepid, 0, False))

    ((kind, _, data),) = getting.events()
    assert (kind, data["code"]) == ("error", 404)
    assert getting.closed


@pytest.mark.parametrize(
    ("path", "named"),
    [
        ("contents?follow=1", "follow"),
        ("contents?follow=0", "follow"),
        ("contents?follow=1&follow=1", "follow"),
        ("contents?follow=1&wait=1", "wait"),
        ("contents?wait=x", "wait"),
        ("contents?wait=-1", "wait"),
        ("raw?wait=1", "wait"),
        ("raw?follow=x", "follow"),
        ("raw?follow=1&offset=x", "offset"),
        ("raw?follow=1&limit=-1", "limit"),
        ("raw?follow=1&grep=(", "grep"),
        ("raw?follow=1&grep=x&context=x", "context"),
        ("raw?follow=1&context=1", "context"),
        ("raw?follow=1&streams=x", "streams"),
        ("raw?follow=1&since=1", "since"),
        ("raw?follow=1&logid=1", "logid"),
        ("contents?grep=x", "grep"),
        ("contents?offset=-1", "offset"),
        ("contents?streams=e", "streams"),
        ("?follow=1", "follow"),
        ("?wait=1", "wait"),
    ],
)
def test_what_cannot_be_meant_is_refused(api: BuildAPI, path: str, named: str) -> None:
    """With the name of the argument, and a position, as every answer has one."""
    result_of(a_log(api, "a\n"))

    answer = WebClient(api).get(f"/api/v2/logs/1/{path}".replace("/?", "?"))

    assert answer.status == 400
    assert answer.headers["X-Seq"] == str(api.mq.last_seq)
    assert "X-Event-Log" in answer.headers
    assert named in answer.json()["error"]


@pytest.mark.parametrize("road", ROADS)
def test_a_head_tells_the_type(api: BuildAPI, road: str) -> None:
    """And waits for nothing."""
    result_of(a_log(api))

    answer = WebClient(api).request("HEAD", f"/api/v2/logs/1/{road}", EVENTS)

    assert (answer.status, answer.body) == (200, b"")
    assert answer.headers["content-type"].startswith("text/")


@pytest.mark.parametrize("road", ROADS)
def test_a_client_that_goes_leaves_nothing(api: BuildAPI, road: str) -> None:
    """Neither a listener nor a timer, whether it waits for lines or for a log."""
    result_of(a_log(api))
    before = api.mq.listeners
    for path in ("logs/1", "steps/1/logs/late"):
        getting = Getting(api, f"{path}/{road}", **EVENTS)
        assert api.mq.listeners == before + 1
        getting.wire.hang_up()
        assert api.mq.listeners == before
    assert api.web is not None
    assert api.web.hubs.followers == 0
    assert api.web.sockets.admission.total == 0


@pytest.mark.parametrize("road", ROADS[1:])
def test_rights_that_vanish_end_an_answer(
    api: BuildAPI, road: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without the lines that came then."""
    logid = result_of(a_log(api))
    getting = Getting(api, f"logs/1/{road}", **EVENTS)
    monkeypatch.setattr(Gate, "restriction", lambda *_: Restriction(frozenset({1})))

    append(api, logid, "secret\n")

    assert b"secret" not in getting.received
    assert getting.closed


def test_a_download_that_is_cut_does_not_look_whole(api: BuildAPI) -> None:
    """The server stops: the log has not ended."""
    result_of(a_log(api, "a\n"))
    raw = Getting(api, "logs/1/raw?follow=1")
    waiting = Getting(api, "logs/1/contents?offset=1&wait=60")
    events = Getting(api, "logs/1/contents?follow=1", **EVENTS)
    received = raw.received
    assert b"a\n" in received

    api.stopService()

    with pytest.raises(IncompleteRead):
        answered(received + raw.received)
    assert waiting.answer().status == 200
    assert [kind for kind, _, _ in events.events()] == ["lines"]
    assert events.closed


@pytest.mark.parametrize("road", ["raw?follow=1", "contents?follow=1"])
def test_a_slow_client_makes_nothing_pile_up(api: BuildAPI, road: str) -> None:
    """It gets everything, whenever it reads on; nobody else waits for it."""
    logid = result_of(a_log(api))
    slow, quick = (Getting(api, f"logs/1/{road}", **EVENTS) for _ in range(2))
    slow.wire.slow = True
    text = "x" * 1023 + "\n"
    for _ in range(20):
        append(api, logid, text * 1000)
    finish(api, logid)
    for _ in range(200):
        api.reactor.advance(0)
    assert slow.wire.waiting < 400_000
    assert quick.closed

    slow.wire.slow = False

    for getting in (slow, quick):
        assert getting.answer().body.count(b"x" * 1023) == 20_000


@pytest.fixture
def slow(api: BuildAPI, monkeypatch: pytest.MonkeyPatch) -> Getting:
    """Return a follower who waits at the end of log 1, and does not read what came at last."""
    result_of(a_log(api))
    getting = Getting(api, "logs/1/contents?follow=1", **EVENTS)
    getting.wire.slow = True
    # As where lines are gathered: what comes next finds them, and itself.
    monkeypatch.setattr(hub.Hub, "_hear", lambda *_: None)
    append(api, 1, f"{'x' * 1023}\n" * 100)
    monkeypatch.undo()
    return getting


def test_a_client_that_is_slow_at_the_end_of_a_log_is_told_of_it(
    api: BuildAPI, slow: Getting
) -> None:
    """When it has read the lines that came with it."""
    finish(api, 1)

    slow.wire.slow = False

    assert [kind for kind, _, _ in slow.events()] == ["lines", "end"]
    assert slow.closed


def test_a_client_that_is_slow_is_told_of_an_error(
    api: BuildAPI, slow: Getting, monkeypatch: pytest.MonkeyPatch
) -> None:
    """When it has read the lines before."""
    monkeypatch.setattr(Gate, "refusal", lambda *_: "not any more")
    append(api, 1, "secret\n")
    slow.wire.slow = False

    assert [kind for kind, _, _ in slow.events()] == ["lines", "error"]
    assert slow.closed


happenings = st.lists(
    st.one_of(
        st.tuples(st.just("append"), st.integers(1, 30)),
        st.tuples(st.just("compress"), st.none()),
        st.tuples(st.just("slow"), st.booleans()),
        st.tuples(st.just("drop"), st.none()),
    ),
    min_size=8,
    max_size=25,
)


@given(happenings, st.sampled_from(["s", "t"]))
def test_every_road_leads_to_the_same_lines(actions: list[tuple[str, Any]], kind: str) -> None:
    """Whatever happens, and however often a client comes back: the contents, and the download."""
    api = in_memory_api(AT_ONCE)
    logid, total = result_of(a_log(api, kind=kind)), 0
    events = [Getting(api, "logs/1/contents?follow=1", **EVENTS)]
    raw = Getting(api, "logs/1/raw?follow=1")
    pages: list[str] = []
    told = 0
    for action, value in actions:
        match action:
            case "append":
                lines = (f"o{total + i} {'é' * (total % 700)}\n" for i in range(value))
                append(api, logid, "".join(lines))
                total += value
            case "compress":
                result_of(api.data.updates.compressLog(logid))
            case "slow":
                raw.wire.slow = value
            case "drop":
                events[-1].wire.hang_up()
                came = [e for getting in events for e in getting.events()]
                position = str(came[-1][1] if came else 0)
                events.append(
                    Getting(
                        api,
                        "logs/1/contents?follow=1",
                        **EVENTS,
                        **{"Last-Event-ID": position},
                    )
                )
                row = page(api, f"logs/1/contents?offset={told}&wait=0")
                pages.append(row["content"])
                told = row["next"]
    raw.wire.slow = False
    finish(api, logid)
    while not (row := page(api, f"logs/1/contents?offset={told}&wait=0"))["complete"]:
        pages.append(row["content"])
        told = row["next"]

    contents = result_of(api.data.get("logs/1/contents?limit=100000"))["content"]
    frames = [data for getting in events for _, _, data in getting.events()]
    assert frames.pop() == {"end": {"num_lines": total, "complete": True}}
    assert "".join(frame["content"] for frame in frames) == contents
    assert "".join(pages) == contents
    assert raw.answer().body == WebClient(api).get("/api/v2/logs/1/raw").body
