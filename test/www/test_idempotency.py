"""Idempotency-Key: a call that is repeated is answered again, and done once."""

from __future__ import annotations

import json
from typing import Any

import pytest
import pytest_twisted
import sqlalchemy as sa
from twisted.internet.defer import gatherResults
from twisted.internet.task import Clock

from buildapi.data.gate import ANONYMOUS, MASTER, Identity
from buildapi.db.groupcommit import Committed
from buildapi.db.retention import EVERY_S
from buildapi.db.tables import builds
from buildapi.errors import KeyReused
from buildapi.service import BuildAPI
from buildapi.settings import Control, Database, Server, Settings
from buildapi.testing import NOON, Answer, WebClient, a_build, in_memory_api, result_of

HOUR_S = 3600


@pytest.fixture
def api() -> BuildAPI:
    """Return a service with a build that runs: all ids are 1."""
    api = in_memory_api()
    result_of(a_build(api))
    return api


def keyed(web: WebClient, key: str, path: str, method: str, **params: Any) -> Answer:
    """Answer a call that is made with a key."""
    call = {"jsonrpc": "2.0", "id": params.pop("id", 1), "method": method, "params": params}
    headers = {"Content-Type": "application/json", "Idempotency-Key": key}
    return web.request("POST", f"/api/v2/{path}", headers, json.dumps(call).encode())


def code(answer: Answer) -> tuple[int, int]:
    """Return the status and the JSON-RPC code of a refusal."""
    return answer.status, answer.json()["error"]["code"]


def sets(api: BuildAPI) -> int:
    """Return how many build sets there are."""
    total: int = result_of(api.data.get("buildsets")).total
    return total


def test_a_repeated_call_has_the_same_answer_and_is_done_once(
    api: BuildAPI, web: WebClient
) -> None:
    """But for the id, which is each request's own; without a key there would be a third set."""
    first = keyed(web, "k", "builds/1", "rebuild", id="a")
    again = keyed(web, "k", "builds/1", "REBUILD", id="b")

    assert first.json() == {"jsonrpc": "2.0", "id": "a", "result": [2, {"1": 2}]}
    assert again.json() == {"jsonrpc": "2.0", "id": "b", "result": [2, {"1": 2}]}
    assert sets(api) == 2
    assert web.call("/api/v2/builds/1", "rebuild").json()["result"] == [3, {"1": 3}]
    assert keyed(web, "other", "builds/1", "rebuild").json()["result"] == [4, {"1": 4}]


@pytest.mark.parametrize(
    ("path", "method", "params"),
    [
        ("builds/1", "stop", {"reason": "another"}),
        ("builds/1", "stop", {}),
        ("builds/1", "rebuild", {"reason": "why"}),
        ("builders/1/builds/1", "stop", {"reason": "why"}),
        # It comes before the object and the parameters are looked at.
        ("builds/99", "stop", {"reason": "why"}),
        ("builds/1", "stop", {"reason": 5}),
    ],
)
def test_a_key_of_another_call_is_refused(
    api: BuildAPI, web: WebClient, path: str, method: str, params: dict[str, Any]
) -> None:
    """Another path, method or parameter makes another call."""
    told: list[object] = []
    api.control.obey(told.append)
    keyed(web, "k", "builds/1", "stop", reason="why")

    assert code(keyed(web, "k", path, method, **params)) == (422, -32600)
    assert len(told) == 1
    assert sets(api) == 1


def test_the_order_of_parameters_makes_no_other_call(api: BuildAPI, web: WebClient) -> None:
    """They are an object."""
    body = b'{"jsonrpc":"2.0","id":1,"method":"rebuild","params":{%b}}'
    headers = {"Content-Type": "application/json", "Idempotency-Key": "k"}
    answers = [
        web.request("POST", "/api/v2/builds/1", headers, body % params)
        for params in (b'"a":1,"b":[2]', b'"b":[2],"a":1')
    ]

    assert [answer.json()["result"][0] for answer in answers] == [2, 2]
    assert sets(api) == 2


def test_the_path_and_the_action_come_before_the_key(api: BuildAPI, web: WebClient) -> None:
    """In the order of the contract."""
    keyed(web, "k", "builds/1", "rebuild")

    assert code(keyed(web, "k", "nosuch", "rebuild")) == (404, -32600)
    assert code(keyed(web, "k", "builds/1", "nosuch")) == (501, -32601)
    assert sets(api) == 2


def test_a_refused_call_is_not_remembered(api: BuildAPI, web: WebClient) -> None:
    """It has changed nothing: what was wrong can be mended, and the key used again."""
    assert code(keyed(web, "k", "builds/1", "stop", reason=5)) == (400, -32602)
    assert code(keyed(web, "k", "builds/1", "stop", reason="why")) == (503, -32000)

    told: list[object] = []
    listener = api.control.obey(told.append)
    assert keyed(web, "k", "builds/1", "stop", reason="why").status == 200
    listener.close()
    assert keyed(web, "k", "builds/1", "stop", reason="why").json()["result"] is None
    assert len(told) == 1


def test_what_was_done_is_answered_though_it_could_not_be_done_now(
    api: BuildAPI, web: WebClient
) -> None:
    """The object may have gone since."""
    keyed(web, "k", "builds/1", "rebuild")
    result_of(api.data.transaction(lambda tx: tx.run(sa.delete(builds))))

    assert code(web.call("/api/v2/builds/1", "rebuild")) == (404, -32600)
    assert keyed(web, "k", "builds/1", "rebuild").json()["result"] == [2, {"1": 2}]


def test_each_has_keys_of_their_own(api: BuildAPI) -> None:
    """Nobody learns which keys others have used, nor what they got."""
    somebody = [ANONYMOUS, MASTER, Identity("alice"), Identity("master"), ANONYMOUS]
    made = [
        result_of(api.control.call("builds/1", "rebuild", {}, identity, "k"))[0]
        for identity in somebody
    ]

    assert made == [2, 3, 4, 5, 2]


@pytest.mark.parametrize("key", ["", "k" * 9])
def test_a_key_has_a_length(key: str) -> None:
    """The setting control.key_characters says which; the answer, too."""
    api = in_memory_api(Settings(control=Control(key_characters=8)))
    web = WebClient(api)
    result_of(a_build(api))
    answer = keyed(web, key, "builds/1", "rebuild")

    assert code(answer) == (400, -32602)
    assert "1 to 8 characters" in answer.json()["error"]["message"]
    assert keyed(web, "k" * 8, "builds/1", "rebuild").status == 200
    assert sets(api) == 2


def test_a_key_may_be_any_bytes(api: BuildAPI, web: WebClient) -> None:
    """It is only compared, with regard to case."""
    for key in ("ü", "\udcff", "Ü", "ü"):
        assert keyed(web, key, "builds/1", "rebuild").status == 200

    assert sets(api) == 4


def test_parameters_that_are_no_json_have_no_key(api: BuildAPI) -> None:
    """In process anything may be given."""
    with pytest.raises(Exception, match="params must be JSON"):
        result_of(api.control.call("builds/1", "rebuild", {"a": {1}}, MASTER, "k"))
    assert sets(api) == 1


def test_a_key_expires() -> None:
    """After the hours of the setting it is as new, whether it has been forgotten or not."""
    clock = Clock()
    clock.advance(NOON)
    api = in_memory_api(Settings(control=Control(keep_keys_hours=2)), clock=clock)
    web = WebClient(api)
    result_of(a_build(api))
    keyed(web, "k", "builds/1", "rebuild")
    clock.advance(2 * HOUR_S)
    assert keyed(web, "k", "builds/1", "rebuild").json()["result"][0] == 2

    clock.advance(1)
    assert keyed(web, "k", "builds/1", "rebuild", other=1).json()["result"][0] == 3
    assert keyed(web, "k", "builds/1", "rebuild", other=1).json()["result"][0] == 3


def test_the_oldest_of_too_many_keys_are_forgotten() -> None:
    """Within a minute: they may not fill the disk."""
    clock = Clock()
    clock.advance(NOON)
    api = in_memory_api(Settings(control=Control(keep_keys_count=2)), clock=clock)
    web = WebClient(api)
    result_of(a_build(api))
    made = [keyed(web, key, "builds/1", "rebuild").json()["result"][0] for key in "abc"]
    clock.advance(EVERY_S)

    again = [keyed(web, key, "builds/1", "rebuild").json()["result"][0] for key in "bca"]
    assert made == [2, 3, 4]
    assert again == [3, 4, 5]


def test_effect_key_and_audit_are_one_transaction(api: BuildAPI, web: WebClient) -> None:
    """A crash leaves all of them or none, so a repetition can't do it twice."""
    batches: list[Committed] = []
    deliver = api.database.writer._deliver  # type: ignore[union-attr]

    def delivered(committed: Committed) -> None:
        batches.append(committed)
        deliver(committed)

    api.database.writer._deliver = delivered  # type: ignore[union-attr]
    keyed(web, "k", "builds/1", "rebuild")

    (batch,) = batches
    assert set(batch.touched) >= {"buildsets", "buildapi_control_keys", "buildapi_control_audit"}


@pytest_twisted.ensureDeferred
async def test_a_key_is_known_while_its_call_is_under_way_and_after_a_restart(
    fresh_url: str,
) -> None:
    """Of many at once one does it; the others, and those who come later, hear of it."""
    settings = Settings(server=Server(listen=None), database=Database(url=fresh_url))
    path, action = "buildrequests/1", "set_priority"
    async with BuildAPI(settings, master="test:/master") as api:
        await a_build(api)
        calls = [
            api.control.call("builds/1", "rebuild", {}, ANONYMOUS, "rebuild") for _ in range(5)
        ]
        results = await gatherResults(calls)
        await api.control.call(path, action, {"priority": 5}, ANONYMOUS, "k")
        position = (await api.data.get("masters")).seq
    async with BuildAPI(settings, master="test:/master") as api:
        again = await api.control.call("builds/1", "rebuild", {}, ANONYMOUS, "rebuild")
        assert await api.control.call(path, action, {"priority": 5}, ANONYMOUS, "k") is None
        with pytest.raises(KeyReused):
            await api.control.call(path, action, {"priority": 6}, ANONYMOUS, "k")

        assert results == [[2, {"1": 2}]] * 5
        assert again == results[0]
        assert (await api.data.get("buildsets")).total == 2
        assert (await api.data.get("masters")).seq == position
