"""``until`` and ``wait``: a GET that waits for an outcome."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import sqlalchemy as sa
from twisted.internet.defer import Deferred

from buildapi.data.api import AllUpdates
from buildapi.db.tables import logs
from buildapi.service import BuildAPI
from buildapi.settings import Database, Limits, Settings
from buildapi.testing import (
    Answer,
    WebClient,
    Wire,
    a_build,
    a_log,
    a_request,
    a_step,
    in_memory_api,
    result_of,
)
from buildapi.testing.wire import head


class Waiting:
    """A request that is under way: ``answer``, as soon as it has one."""

    def __init__(self, api: BuildAPI, path: str) -> None:
        self._api = api
        self.answers: list[Answer] = []
        WebClient(api).fetch("GET", f"/api/v2/{path}").addCallback(self.answers.append)

    @property
    def answer(self) -> Answer | None:
        """Return the answer; None if it still waits."""
        self._api.reactor.advance(0)
        return self.answers[0] if self.answers else None


FINISHED: dict[str, Callable[[AllUpdates], Deferred[Any]]] = {
    "builds/1": lambda u: u.finishBuild(1, 0),
    "steps/1": lambda u: u.finishStep(1, 0, hidden=False),
    "logs/1": lambda u: u.finishLog(1),
    "buildrequests/1": lambda u: u.completeBuildRequests([1], 0),
    "buildsets/1": lambda u: u.completeBuildRequests([1], 0),
}


@pytest.mark.parametrize("path", FINISHED)
def test_it_is_answered_when_it_is_complete(api: BuildAPI, web: WebClient, path: str) -> None:
    """Exactly as the same GET without it, and not before."""
    result_of(a_log(api))
    waiting = Waiting(api, f"{path}?until=complete&wait=60")
    before = waiting.answer
    result_of(FINISHED[path](api.data.updates))
    answer = waiting.answer
    plain = web.get(f"/api/v2/{path}")

    assert before is None
    assert answer is not None
    assert answer.body == plain.body
    assert answer.headers["X-Seq"] == plain.headers["X-Seq"]
    assert b'"complete": true' in answer.body
    assert len(api.outcomes) == 0


def test_what_is_complete_is_answered_at_once(api: BuildAPI, web: WebClient) -> None:
    """With the fields that are asked for."""
    buildid = result_of(a_build(api))
    result_of(api.data.updates.finishBuild(buildid, 2))
    answer = web.get(f"/api/v2/builds/{buildid}?field=results&until=complete")

    assert answer.json()["builds"] == [{"results": 2}]


@pytest.mark.parametrize(
    ("query", "seconds"),
    [("&wait=20", 20), ("&wait=19.5", 20), ("", 30), ("&wait=5000", 60), ("&wait=0", 0)],
)
def test_after_a_while_it_is_answered_as_it_is(api: BuildAPI, query: str, seconds: int) -> None:
    """As long as the client says, half a minute, or the most that the setting allows."""
    buildid = result_of(a_build(api))
    waiting = Waiting(api, f"builds/{buildid}?until=complete{query}")
    api.reactor.advance(max(0, seconds - 1))
    early = waiting.answer
    api.reactor.advance(1)

    assert (early is None) == (seconds > 0)
    assert waiting.answer is not None
    assert waiting.answer.status == 200
    assert waiting.answer.json()["builds"][0]["complete"] is False
    assert len(api.outcomes) == 0


def test_nothing_is_read_while_it_waits(api: BuildAPI, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever happens to others."""
    buildid = result_of(a_build(api))
    Waiting(api, f"builds/{buildid}?until=complete&wait=60")
    read: list[Any] = []
    fetch = api.data.fetch

    def noting(ask: Any, *more: Any) -> Any:
        read.append(ask)
        return fetch(ask, *more)

    monkeypatch.setattr(api.data, "fetch", noting)
    result_of(a_step(api))
    api.reactor.advance(50)
    during = len(read)
    result_of(api.data.updates.setBuildStateString(buildid, "halfway"))

    assert during == 0
    assert len(read) == 1


def test_who_goes_away_leaves_nothing_behind(api: BuildAPI) -> None:
    """Neither who waits nor a timer."""
    result_of(a_build(api))
    timers = len(api.reactor.getDelayedCalls())
    wire = Wire(api)
    wire.send(head("GET /api/v2/builds/1?until=complete HTTP/1.1", {"Host": "127.0.0.1:8010"}))
    waiting = len(api.outcomes)
    wire.hang_up()

    assert waiting == 1
    assert len(api.outcomes) == 0
    assert len(api.reactor.getDelayedCalls()) <= timers


@pytest.mark.parametrize(
    ("path", "status", "words"),
    [
        ("builds?until=complete", 400, "until"),
        ("builders/1?until=complete", 400, "until"),
        ("builds/1?until=started", 400, "until"),
        ("builds/1?until=complete&until=complete", 400, "until"),
        ("builds/1?until=", 400, "until"),
        ("builds/1?until=complete&wait=x", 400, "wait"),
        ("builds/1?until=complete&wait=-1", 400, "wait"),
        ("builds/1?until=complete&wait=inf", 400, "wait"),
        ("builds/1?until=complete&colour=red", 400, "colour"),
        ("builds/1?wait=5", 400, "wait"),
        ("builds?wait=5", 400, "wait"),
        ("builds/77?until=complete", 404, "not found"),
        ("nowhere?until=complete", 404, "Invalid path"),
    ],
)
def test_what_cannot_be_waited_for_is_refused(
    api: BuildAPI, web: WebClient, path: str, status: int, words: str
) -> None:
    """At once, with the argument's name."""
    result_of(a_build(api))
    answer = web.get(f"/api/v2/{path}")

    assert answer.status == status
    assert words in answer.json()["error"]


@pytest.fixture
def crowded() -> Iterator[BuildAPI]:
    """Return a service that lets one request wait."""
    api = in_memory_api(Settings(limits=Limits(waiting=1)))
    yield api
    api.stopService()


def test_so_many_may_wait_at_once(crowded: BuildAPI) -> None:
    """More are told to come later; what need not wait is answered all the same."""
    result_of(a_build(crowded))
    result_of(a_request(crowded))
    first = Waiting(crowded, "builds/1?until=complete")
    second = Waiting(crowded, "builds/1?until=complete")
    result_of(crowded.data.updates.finishBuild(1, 0))
    third = Waiting(crowded, "buildrequests/2?until=complete")

    assert second.answer is not None
    assert second.answer.status == 503
    assert "1 requests wait" in second.answer.json()["error"]
    assert first.answer is not None
    assert first.answer.status == 200
    assert third.answer is None


def test_who_waits_when_the_server_stops_is_answered(api: BuildAPI) -> None:
    """With the state of then: a wait must not hold up the stop."""
    result_of(a_build(api))
    waiting = Waiting(api, "builds/1?until=complete&wait=60")
    api.stopService()

    assert waiting.answer is not None
    assert waiting.answer.json()["builds"][0]["complete"] is False


@pytest.mark.parametrize("step", [0.5, 1.0])
def test_where_nobody_tells_of_changes_it_is_looked_at(step: float) -> None:
    """Every few seconds: another program writes the database."""
    api = in_memory_api(Settings(database=Database(foreign_writer=True)))
    result_of(a_build(api))
    waiting = Waiting(api, "builds/1?until=complete&wait=60")
    connection = api.database.connector.writer()
    connection.execute("UPDATE builds SET complete_at = 1, results = 0")
    before = waiting.answer
    for _ in range(8):
        api.reactor.advance(step)
    answer = waiting.answer
    api.stopService()

    assert before is None
    assert answer is not None
    assert answer.json()["builds"][0]["complete"] is True


def test_one_that_is_deleted_is_not_waited_for(api: BuildAPI) -> None:
    """It will never be complete."""
    result_of(a_log(api))
    waiting = Waiting(api, "logs/1?until=complete")
    result_of(api.data.transaction(lambda tx: tx.run(sa.delete(logs))))

    assert waiting.answer is not None
    assert waiting.answer.status == 404
