"""JSON-RPC over HTTP: each check of the contract in its order, then each action."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest
from twisted.logger import LogEvent

from buildapi.data.forcefields import ForceScheduler, force_schedulers
from buildapi.data.gate import Gate
from buildapi.errors import BadArgument, BadQuery
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


@pytest.fixture
def worker(api: BuildAPI) -> int:
    """Return the id of a worker that builds for a builder on the master: all ids are 1."""
    updates = api.data.updates
    result_of(updates.updateBuilderList(1, ["runtests"]))
    workerid: int = result_of(updates.findWorkerId("linux"))
    result_of(updates.workerConfigured(workerid, 1, [1]))
    return workerid


class ObedientMaster:
    """Gets control messages, and remembers them."""

    def __init__(self, api: BuildAPI, pattern: str = "control.#") -> None:
        self.told: list[tuple[str, Any]] = []
        self.listener = api.control.obey(self._told, pattern)

    def _told(self, event: Event) -> None:
        self.told.append((event.topic, event.message))


CALL = {"jsonrpc": "2.0", "id": 1, "method": "nosuch", "params": {}}


@pytest.mark.parametrize(
    ("content_type", "body", "expected"),
    [
        # Each is wrong from its line on downwards: the first fault is the one that is told.
        ("text/plain", b"{", (400, -32600)),
        ("\udcff", b"{", (400, -32600)),  # a byte that is no UTF-8
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
        "workers/1",
        "workers/99",
        "masters/99/builders/99/workers/nosuch",
        "workers",
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
        ("buildrequests/99", "set_priority", {}),
        ("masters/99/schedulers/1", "enable", {}),
        ("workers/99", "stop", {}),
        ("workers/nosuch", "pause", {"reason": 5}),
        ("masters/99/workers/1", "unpause", {}),
        ("builders/99/workers/linux", "kill", {}),
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


def test_a_scheduler_is_enabled_on_its_master_too(
    api: BuildAPI, web: WebClient, schedulerid: int
) -> None:
    """By its other path."""
    result_of(api.data.updates.trySetSchedulerMaster(schedulerid, 1))

    assert result(web.call("/api/v2/masters/1/schedulers/1", "enable", enabled=False)) is None
    assert web.get("/api/v2/schedulers/1").json()["schedulers"][0]["enabled"] is False


def test_a_request_gets_more_urgent(api: BuildAPI, web: WebClient) -> None:
    """The change has its event, of the whole object, and needs no master."""
    brid = result_of(a_request(api))
    heard = RecordingSubscriber(api)

    assert result(web.call(f"/api/v2/buildrequests/{brid}", "set_priority", priority=-5)) is None

    assert [(event.topic, event.message["priority"]) for event in heard.events] == [
        ("buildrequest.1.priority", -5)
    ]
    (request,) = web.get(f"/api/v2/buildrequests/{brid}").json()["buildrequests"]
    assert request["priority"] == -5


@pytest.mark.parametrize(
    "params", [{}, {"priority": None}, {"priority": "5"}, {"priority": True}, {"priority": 2**31}]
)
def test_a_priority_is_an_integer_of_32_bits(
    api: BuildAPI, web: WebClient, params: dict[str, Any]
) -> None:
    """Nothing is guessed, and the parameter is named."""
    brid = result_of(a_request(api))
    answer = web.call(f"/api/v2/buildrequests/{brid}", "set_priority", **params)

    assert code(answer) == (400, -32602)
    assert answer.json()["error"]["message"].startswith("priority: an integer ")


ROADS_TO_A_WORKER = [
    f"{parent}workers/{name}"
    for parent in ("", "builders/1/", "masters/1/", "masters/1/builders/1/")
    for name in ("1", "linux")
]


@pytest.mark.usefixtures("worker")
@pytest.mark.parametrize("path", ROADS_TO_A_WORKER)
def test_a_worker_is_paused_for_a_reason_by_any_path(
    api: BuildAPI, web: WebClient, path: str
) -> None:
    """The flag is changed and masters are told, in one transaction; no master is needed."""
    heard = RecordingSubscriber(api)

    assert result(web.call(f"/api/v2/{path}", "pause", reason="full disk")) is None

    (found,) = web.get("/api/v2/workers/1").json()["workers"]
    assert (found["paused"], found["pause_reason"]) == (True, "full disk")
    assert [(event.topic, event.keys) for event in heard.events] == [
        ("worker.1.state_updated", ("workers/1/state_updated",)),
        ("control.worker.1.pause", ("control/worker/1/pause",)),
    ]


@pytest.mark.usefixtures("worker")
def test_a_worker_is_resumed(api: BuildAPI, web: WebClient) -> None:
    """And the reason is gone; a pause without a reason has none, though masters hear of one."""
    master = ObedientMaster(api)
    result(web.call("/api/v2/workers/1", "pause", reason="full disk"))
    result(web.call("/api/v2/workers/1", "unpause"))
    (resumed,) = web.get("/api/v2/workers/1").json()["workers"]
    result(web.call("/api/v2/workers/1", "pause"))
    (again,) = web.get("/api/v2/workers/1").json()["workers"]

    assert (resumed["paused"], resumed["pause_reason"]) == (False, None)
    assert (again["paused"], again["pause_reason"]) == (True, None)
    assert master.told == [
        ("control.worker.1.pause", {"reason": "full disk"}),
        ("control.worker.1.unpause", {"reason": "no reason"}),
        ("control.worker.1.pause", {"reason": "no reason"}),
    ]


@pytest.mark.usefixtures("worker")
def test_stop_of_a_worker_is_graceful(api: BuildAPI, web: WebClient) -> None:
    """It is a flag, which a master finds whenever it looks."""
    heard = RecordingSubscriber(api)

    assert result(web.call("/api/v2/workers/linux", "stop", reason="why")) is None

    assert web.get("/api/v2/workers/1").json()["workers"][0]["graceful"] is True
    assert heard.topics == ["worker.1.state_updated", "control.worker.1.stop"]
    assert heard.events[1].message == {"reason": "why"}


@pytest.mark.usefixtures("worker")
def test_only_a_master_can_kill_a_worker(api: BuildAPI, web: WebClient) -> None:
    """No flag of the database would end what runs now."""
    heard = RecordingSubscriber(api)
    assert code(web.call("/api/v2/workers/1", "kill")) == (503, -32000)
    assert heard.topics == []

    master = ObedientMaster(api)
    assert result(web.call("/api/v2/workers/1", "kill", reason="it burns")) is None
    assert master.told == [("control.worker.1.kill", {"reason": "it burns"})]


@pytest.mark.usefixtures("worker")
@pytest.mark.parametrize("action", ["stop", "pause", "unpause", "kill"])
def test_a_worker_wants_its_reason_as_text(api: BuildAPI, web: WebClient, action: str) -> None:
    """Before it is asked whether a master listens, and before anything is changed."""
    heard = RecordingSubscriber(api)

    assert code(web.call("/api/v2/workers/1", action, reason=5)) == (400, -32602)
    assert heard.topics == []


@pytest.mark.usefixtures("worker")
def test_a_master_may_obey_some_messages_only(api: BuildAPI, web: WebClient) -> None:
    """What nobody obeys is refused, and what somebody does reaches only them."""
    result_of(a_build(api))
    builds = ObedientMaster(api, "control.build.#")
    assert code(web.call("/api/v2/workers/1", "kill")) == (503, -32000)
    assert code(web.call("/api/v2/buildrequests/1", "cancel")) == (503, -32000)
    assert result(web.call("/api/v2/builds/1", "stop")) is None

    workers = ObedientMaster(api, "control.worker.*.kill")
    builds.listener.close()
    assert result(web.call("/api/v2/workers/1", "kill")) is None
    assert code(web.call("/api/v2/builds/1", "stop")) == (503, -32000)
    assert [topic for topic, _ in builds.told] == ["control.build.1.stop"]
    assert [topic for topic, _ in workers.told] == ["control.worker.1.kill"]


@pytest.mark.parametrize(
    ("pattern", "error"),
    [("#", BadArgument), ("build.#", BadArgument), ("*.build.#", BadArgument), ("", BadQuery)],
)
def test_only_control_messages_can_be_obeyed(
    api: BuildAPI, pattern: str, error: type[Exception]
) -> None:
    """Who obeyed all events would seem to obey calls, too."""
    with pytest.raises(error):
        api.control.obey(print, pattern)
    assert api.mq.listeners == 0


def test_a_master_changes_its_forms(forcing: BuildAPI, web: WebClient) -> None:
    """Those that it offers from now on are all that there are."""
    forcing.control.offer([ForceScheduler(name="again", builder_names=("docs",))])

    assert code(web.call("/api/v2/forceschedulers/force", "force")) == (404, -32600)
    assert result(web.call("/api/v2/forceschedulers/again", "force")) == [1, {"2": 1}]
    names = [row["name"] for row in web.get("/api/v2/forceschedulers").json()["forceschedulers"]]
    assert names == ["again"]


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
@pytest.mark.parametrize(
    "chosen",
    [{"builderid": 2}, {"builderid": "docs"}, {"builderNames": ["docs"]}],
    ids=["id", "name", "names"],
)
def test_force_of_one_builder_makes_one_request(web: WebClient, chosen: dict[str, Any]) -> None:
    """By its id, its name, or a list of names."""
    assert result(web.call("/api/v2/forceschedulers/force", "force", **chosen)) == [1, {"2": 1}]


def test_every_wrong_field_of_a_form_is_named(forcing: BuildAPI, web: WebClient) -> None:
    """With what is wrong with it; nothing is made."""
    answer = web.call("/api/v2/forceschedulers/force", "force", times="many")

    assert code(answer) == (400, -32602)
    assert list(answer.json()["error"]["message"]) == ["times"]
    assert result_of(forcing.data.get("buildsets")) == []


@pytest.mark.usefixtures("forcing")
@pytest.mark.parametrize("builderid", [3, 99, "secret"])
def test_a_builder_of_another_form_is_named_like_a_field(
    web: WebClient, builderid: int | str
) -> None:
    """It stands in the form too."""
    answer = web.call("/api/v2/forceschedulers/force", "force", builderid=builderid)

    assert code(answer) == (400, -32602)
    wrong = f"force cannot force builder {builderid!r}."
    assert answer.json()["error"]["message"] == {"builderid": wrong}


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

    def fail(*_: object, **__: object) -> None:
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
