"""JSON-RPC over HTTP: each check of the contract in its order, then each action."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest
from twisted.logger import LogEvent

from buildapi.data.forcefields import force_schedulers
from buildapi.data.gate import Gate
from buildapi.mq.event import Event
from buildapi.service import BuildAPI
from buildapi.settings import Server, Settings
from buildapi.testing import (
    RecordingSubscriber,
    WebClient,
    a_build,
    a_request,
    in_memory_api,
    result_of,
)

FORCE = [
    {
        "name": "force",
        "builder_names": ["runtests", "docs"],
        "fields": [{"type": "int", "name": "times", "label": "Times", "default": 1}],
    }
]


def code(answer: Any) -> tuple[int, int]:
    """Return the status and the JSON-RPC code of a refusal."""
    assert answer.headers["content-type"] == "application/json"
    return answer.status, answer.json()["error"]["code"]


def result(answer: Any) -> Any:
    """Return the result of a call that was carried out."""
    assert answer.status == 200, answer.body
    assert answer.headers["content-type"] == "application/json"
    found = answer.json()
    assert found == {"jsonrpc": "2.0", "id": 1, "result": found["result"]}
    return found["result"]


@pytest.fixture
def forcing(api: BuildAPI) -> BuildAPI:
    """Return the service with a force scheduler of two builders."""
    for name in ("runtests", "docs"):
        result_of(api.data.updates.findBuilderId(name))
    (scheduler,) = force_schedulers(FORCE)
    api.data.forceschedulers["force"] = scheduler
    return api


@pytest.fixture
def schedulerid(api: BuildAPI) -> int:
    """Return the id of a scheduler."""
    found: int = result_of(api.data.updates.findSchedulerId("nightly"))
    return found


class ObedientMaster:
    """Gets control messages, and remembers them."""

    def __init__(self, api: BuildAPI) -> None:
        self.told: list[tuple[str, Any]] = []
        self.listener = api.control.obey(self._told)

    def _told(self, event: Event) -> None:
        self.told.append((event.topic, event.message))


CALL = {"jsonrpc": "2.0", "id": 1, "method": "nosuch", "params": {}}


@pytest.mark.parametrize(
    ("content_type", "body", "expected"),
    [
        # Each is wrong from its line on downwards: the first fault is the one that is told.
        ("text/plain", b"{", (400, -32600)),
        ("application/json", b"{", (400, -32700)),
        ("application/json", b"[]", (400, -32600)),
        ("application/json", b"5", (400, -32600)),
        ("application/json", b'{"jsonrpc": "1.0", "id": 1, "method": 5}', (400, -32600)),
        ("application/json", json.dumps({**CALL, "jsonrpc": "1.0"}).encode(), (400, -32600)),
        ("application/json", json.dumps(CALL).encode(), (404, -32600)),
    ],
)
def test_checks_come_in_the_order_of_the_contract(
    web: WebClient, content_type: str, body: bytes, expected: tuple[int, int]
) -> None:
    """Form before path; up to there the answer has no id."""
    answer = web.request("POST", "/api/v2/nosuch", {"Content-Type": content_type}, body)

    assert code(answer) == expected
    assert ("id" in answer.json()) is (answer.status == 404)


def test_the_gate_comes_before_the_action_and_after_the_path() -> None:
    """Who may not, does not learn what there would be to do."""
    api = in_memory_api(Settings())
    api.data.gate = Gate(loopback_only=False)
    web = WebClient(api)

    assert code(web.call("/api/v2/nosuch", "stop")) == (404, -32600)
    assert code(web.call("/api/v2/builds/1", "nosuch")) == (403, -32600)
    assert code(web.call("/api/v2/builds/1", "stop")) == (403, -32600)
    assert "127.0.0.1" in web.call("/api/v2/builds/1", "stop").json()["error"]["message"]
    assert web.get("/api/v2/builds").status == 200


@pytest.mark.parametrize(
    ("listen", "allowed"),
    [
        ("tcp:0", False),
        ("tcp:8010:interface=0.0.0.0", False),
        ("tcp:8010:interface=127.0.0.1", True),
        (None, True),
    ],
)
def test_what_is_listened_on_decides(listen: str | None, allowed: bool) -> None:
    """Control is for this machine only, as long as nobody can say who they are."""
    settings = replace(Settings(), server=Server(listen=listen))

    assert BuildAPI(settings).data.gate.loopback_only is allowed


@pytest.mark.parametrize(
    "path",
    [
        "builds/1",
        "builds/99",
        "builds",
        "buildrequests/1",
        "buildrequests/99",
        "buildrequests",
        "builders/1/builds/1",
        "schedulers/99",
        "forceschedulers/force",
        "forceschedulers/nosuch",
        "forceschedulers",
        "builders",
        "logs/1/raw",
        "masters/1",
    ],
)
def test_an_unknown_action_is_not_implemented(forcing: BuildAPI, web: WebClient, path: str) -> None:
    """On everything that has a path, there or not."""
    result_of(a_build(forcing))

    assert code(web.call(f"/api/v2/{path}", "nosuch")) == (501, -32601)
    assert code(web.call(f"/api/v2/{path}", "")) == (501, -32601)


@pytest.mark.parametrize(
    ("path", "action", "params"),
    [
        ("builds/99", "stop", {"reason": 5}),
        ("builds/99", "rebuild", {}),
        ("builders/1/builds/99", "stop", {}),
        ("builders/runtests/builds/99", "stop", {}),
        ("buildrequests/99", "cancel", {"reason": []}),
        ("schedulers/99", "enable", {}),
        ("forceschedulers/nosuch", "force", {"times": "x"}),
    ],
)
def test_a_missing_object_is_missing(
    forcing: BuildAPI, web: WebClient, path: str, action: str, params: dict[str, Any]
) -> None:
    """Before the parameters are looked at: a script that stops the wrong build must notice."""
    result_of(a_build(forcing))

    assert code(web.call(f"/api/v2/{path}", action, **params)) == (404, -32600)


@pytest.mark.parametrize(
    "path",
    ["builds/1", "builders/1/builds/1", "builders/runtests/builds/1"],
)
@pytest.mark.parametrize("action", ["stop", "STOP", "Stop"])
def test_stop_tells_the_master(api: BuildAPI, web: WebClient, path: str, action: str) -> None:
    """By any path, in any case, as one event with two names."""
    result_of(a_build(api))
    master, heard = ObedientMaster(api), RecordingSubscriber(api)

    assert result(web.call(f"/api/v2/{path}", action, reason="a typing error")) is None

    assert master.told == [("control.build.1.stop", {"reason": "a typing error"})]
    assert [event.keys for event in heard.events] == [("control/builds/1/stop",)]


def test_a_reason_is_given_if_there_is_none(api: BuildAPI, web: WebClient) -> None:
    """As Buildbot gives it."""
    result_of(a_build(api))
    master = ObedientMaster(api)

    result(web.call("/api/v2/builds/1", "stop"))

    assert master.told == [("control.build.1.stop", {"reason": "no reason"})]


def test_a_wrong_reason_is_a_wrong_parameter(api: BuildAPI, web: WebClient) -> None:
    """It must be text."""
    result_of(a_build(api))
    ObedientMaster(api)

    assert code(web.call("/api/v2/builds/1", "stop", reason=5)) == (400, -32602)


def test_stop_without_a_master_is_not_now(api: BuildAPI, web: WebClient) -> None:
    """Nobody would do it; that must not look like success."""
    result_of(a_build(api))
    assert code(web.call("/api/v2/builds/1", "stop")) == (503, -32000)

    master = ObedientMaster(api)
    assert result(web.call("/api/v2/builds/1", "stop")) is None

    master.listener.close()
    assert code(web.call("/api/v2/builds/1", "stop")) == (503, -32000)


def test_stop_of_a_complete_build_is_done_already(api: BuildAPI, web: WebClient) -> None:
    """What was asked for is true; no master is needed, and none is told."""
    result_of(a_build(api))
    result_of(api.data.updates.finishBuild(1, 0))
    assert result(web.call("/api/v2/builds/1", "stop")) is None

    master = ObedientMaster(api)
    assert result(web.call("/api/v2/builds/1", "stop")) is None
    assert master.told == []


def test_rebuild_makes_a_request_like_the_first(api: BuildAPI, web: WebClient) -> None:
    """It returns the build set and the request of each builder."""
    result_of(a_build(api))

    assert result(web.call("/api/v2/builds/1", "REBUILD")) == [2, {"1": 2}]

    (request,) = web.get("/api/v2/buildrequests/2").json()["buildrequests"]
    assert (request["builderid"], request["claimed"]) == (1, False)


def test_cancel_of_a_pending_request_needs_no_master(api: BuildAPI, web: WebClient) -> None:
    """It is complete at once, and so is its build set."""
    brid = result_of(a_request(api))
    heard = RecordingSubscriber(api)

    assert result(web.call(f"/api/v2/buildrequests/{brid}", "cancel")) is None

    (request,) = web.get(f"/api/v2/buildrequests/{brid}").json()["buildrequests"]
    assert (request["complete"], request["results"]) == (True, 6)
    assert heard.topics == [
        "buildrequest.1.complete",
        "buildset.1.complete",
        "buildrequest.1.cancel",
    ]
    assert result(web.call(f"/api/v2/buildrequests/{brid}", "cancel")) is None


def test_cancel_of_a_claimed_request_tells_its_master(api: BuildAPI, web: WebClient) -> None:
    """Who builds it must stop; without a master that obeys, it is refused."""
    result_of(a_build(api))
    assert code(web.call("/api/v2/buildrequests/1", "cancel")) == (503, -32000)

    master = ObedientMaster(api)
    assert result(web.call("/api/v2/buildrequests/1", "cancel", reason="why")) is None

    assert master.told == [("control.buildrequest.1.cancel", {"reason": "why"})]


@pytest.mark.parametrize(
    ("given", "stored"), [(False, False), (True, True), ("off", False), (0, False), ("yes", True)]
)
def test_enable_sets_what_is_given(
    api: BuildAPI, web: WebClient, schedulerid: int, given: object, stored: bool
) -> None:
    """A truth value in any spelling."""
    path = f"/api/v2/schedulers/{schedulerid}"
    result_of(api.data.updates.schedulerEnable(schedulerid, not stored))

    assert result(web.call(path, "enable", enabled=given)) is None

    assert web.get(path).json()["schedulers"][0]["enabled"] is stored


@pytest.mark.parametrize("params", [{}, {"enabled": None}, {"enabled": "x"}, {"enabled": [1]}])
def test_enable_needs_a_truth_value(
    web: WebClient, schedulerid: int, params: dict[str, Any]
) -> None:
    """Nothing is guessed."""
    answer = web.call(f"/api/v2/schedulers/{schedulerid}", "enable", **params)

    assert code(answer) == (400, -32602)


@pytest.mark.usefixtures("forcing")
def test_force_makes_requests(web: WebClient) -> None:
    """For all its builders; who says a name is the owner."""
    path = "/api/v2/forceschedulers/force"
    found = result(web.call(path, "force", times=3, username="jo@example.org"))

    assert found == [1, {"1": 1, "2": 2}]
    properties = web.get("/api/v2/buildsets/1/properties").json()["properties"][0]
    assert properties["times"] == [3, "Force Build Form"]
    assert properties["owner"] == ["jo@example.org", "Force Build Form"]
    assert properties["scheduler"] == ["force", "Scheduler"]


@pytest.mark.usefixtures("forcing")
def test_force_of_one_builder_makes_one_request(web: WebClient) -> None:
    """By its id."""
    assert result(web.call("/api/v2/forceschedulers/force", "force", builderid=2)) == [1, {"2": 1}]


def test_every_wrong_field_of_a_form_is_named(forcing: BuildAPI, web: WebClient) -> None:
    """With what is wrong with it; nothing is made."""
    answer = web.call("/api/v2/forceschedulers/force", "force", times="many")

    assert code(answer) == (400, -32602)
    assert list(answer.json()["error"]["message"]) == ["times"]
    assert result_of(forcing.data.get("buildsets")) == []


@pytest.mark.parametrize("number", [0, -1, "x", "", None, True, 10**30])
def test_the_id_comes_back_as_it_was(web: WebClient, number: object) -> None:
    """With an error too."""
    body = json.dumps({**CALL, "id": number}).encode()

    answer = web.request("POST", "/api/v2/builds/1", {"Content-Type": "application/json"}, body)

    assert answer.json()["id"] == number
    assert type(answer.json()["id"]) is type(number)


def test_a_fault_of_ours_is_told_to_the_log_only(
    api: BuildAPI,
    web: WebClient,
    monkeypatch: pytest.MonkeyPatch,
    logged: list[LogEvent],
) -> None:
    """500, without a word of what it was."""

    def fail(*_: object) -> None:
        raise RuntimeError("secret")

    monkeypatch.setattr(api.control, "call", fail)

    answer = web.call("/api/v2/builds/1", "stop")

    assert code(answer) == (500, -32603)
    assert b"secret" not in answer.body
    assert "secret" in str(logged[-1]["log_failure"])
    logged.clear()


@pytest.mark.parametrize("path", ["/api/v2/", "/api/v2/builds/"])
def test_a_call_on_no_path_is_missing(web: WebClient, path: str) -> None:
    """An empty element is none."""
    assert code(web.call(path, "stop")) == (404, -32600)
