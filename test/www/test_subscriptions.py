"""``/api/v2/subscriptions``: who listens, and who does not keep up."""

from __future__ import annotations

from typing import Any

import pytest
from twisted.internet.task import Clock

from buildapi.data.gate import Gate
from buildapi.mq.buffer import Bounds
from buildapi.service import BuildAPI
from buildapi.testing import (
    NOON,
    WebClient,
    WebSocketClient,
    Wire,
    a_build,
    a_log,
    in_memory_api,
    result_of,
)
from buildapi.testing.wire import head


def listed(web: WebClient) -> list[dict[str, Any]]:
    """Return what is listed."""
    answer = web.get("/api/v2/subscriptions")
    assert answer.status == 200, answer.body
    found: list[dict[str, Any]] = answer.json()["subscriptions"]
    return found


def test_a_subscription_in_process_is_listed_with_what_waits(api: BuildAPI, web: WebClient) -> None:
    """Until it is closed."""
    before = api.mq.last_seq
    stream = api.mq.subscribe("build.#")
    result_of(a_build(api))
    (entry,) = listed(web)
    newest = api.mq.last_seq

    assert entry.pop("bytes") > 0
    assert entry == {
        "road": "process",
        "client": None,
        "kind": "subscription",
        "sub": None,
        "topics": ["build.#"],
        "consumer": None,
        "position": before,
        "lag": newest - before,
        "depth": 1,
        "told": 0,
        "dropped": 0,
        "gaps": 0,
    }
    stream.close()
    assert listed(web) == []


def test_what_did_not_fit_is_counted(api: BuildAPI, web: WebClient) -> None:
    """It is in the log still, and comes later."""
    stream = api.mq.subscribe("#", bounds=Bounds(messages=2))
    result_of(a_build(api))

    (entry,) = listed(web)
    assert entry["dropped"] == 3
    assert entry["depth"] == 0
    stream.close()
    assert api.mq.dropped == 3


def test_every_road_is_listed(api: BuildAPI, web: WebClient) -> None:
    """What is consumed without a position, too, and logs that are followed."""
    logid = result_of(a_log(api))
    ws = WebSocketClient(Wire(api))
    ws.ask("startConsuming", path="builds/*/new")
    ws.send({"cmd": "subscribe", "topic": "build.#", "_id": "mine"})
    ws.ask("followLog", logid=logid)
    Wire(api).send(head("GET /sse/steps/*/* HTTP/1.1", {"Host": "127.0.0.1"}))

    entries = listed(web)

    assert [(one["road"], one["kind"], one["client"]) for one in entries] == [
        ("websocket", "consumer", "127.0.0.1"),
        ("websocket", "subscription", "127.0.0.1"),
        ("websocket", "follower", "127.0.0.1"),
        ("eventstream", "consumer", "127.0.0.1"),
    ]
    assert [one.get("topics") for one in entries] == [
        ["builds/*/new"],
        ["build.#"],
        None,
        ["steps/*/*"],
    ]
    assert entries[1]["sub"] == "mine"
    assert entries[1]["lag"] == 0


@pytest.mark.parametrize(
    ("accept", "road"), [("text/event-stream", "eventstream"), ("application/json", "longpoll")]
)
def test_who_follows_events_over_http_is_listed(
    api: BuildAPI, web: WebClient, accept: str, road: str
) -> None:
    """As long as the answer has not ended."""
    wire = Wire(api)
    wire.send(
        head(
            f"GET /api/v2/events?topic=build.%23&since={api.mq.last_seq}&wait=20 HTTP/1.1",
            {"Host": "127.0.0.1", "Accept": accept},
        )
    )

    (entry,) = listed(web)

    assert (entry["road"], entry["client"], entry["topics"]) == (road, "127.0.0.1", ["build.#"])
    wire.hang_up()
    assert listed(web) == []


def test_the_log_and_its_pace_are_told() -> None:
    """The events of the last minute are counted by the time they were stored at."""
    clock = Clock()
    clock.advance(NOON)
    api = in_memory_api(clock=clock)
    result_of(a_build(api))
    clock.advance(61)
    before = api.mq.last_seq
    result_of(api.data.updates.finishBuild(1, 0))
    newest = api.mq.last_seq

    assert WebClient(api).get("/api/v2/subscriptions").json()["meta"] == {
        "total": 0,
        "newest": newest,
        "oldest": 1,
        "published": newest,
        "last_minute": newest - before,
    }


def test_it_is_for_those_who_may_read_the_audit(api: BuildAPI, web: WebClient) -> None:
    """An origin that is not ours is refused as well."""
    path = "/api/v2/subscriptions"
    assert web.get(path, {"Host": "evil.example.com"}).status == 403
    assert web.get(path, {"Origin": "https://evil.example.com"}).status == 400
    api.data.gate = Gate(loopback_only=False)

    assert web.get(path).status == 403


def test_it_is_no_resource(web: WebClient) -> None:
    """Neither among the root's links nor in the description, and only for reading."""
    assert b"subscriptions" not in web.get("/api/v2/").body
    assert b"subscriptions" not in web.get("/api/v2/application.spec").body
    assert web.request("POST", "/api/v2/subscriptions", body=b"{}").status == 400


def test_without_the_database_the_rest_is_shown(api: BuildAPI, web: WebClient) -> None:
    """What only the log can tell is null."""
    stream = api.mq.subscribe("build.#")
    api.data.database._is_open = False

    answer = web.get("/api/v2/subscriptions").json()

    assert answer["meta"]["oldest"] is None
    assert len(answer["subscriptions"]) == 1
    stream.close()
