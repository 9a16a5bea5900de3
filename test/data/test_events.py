"""Every update and the events that it publishes: topic, slash keys, body; and when it does not."""

from __future__ import annotations

import inspect

import orjson
import pytest

from buildapi.data.api import AllUpdates
from buildapi.data.updates import Update
from buildapi.db.eventlog import stored
from buildapi.db.transaction import Tx
from buildapi.errors import Conflict
from buildapi.mq.event import Event
from buildapi.service import BuildAPI
from buildapi.testing import RecordingSubscriber, result_of
from test.data import buildcases, othercases
from test.data.furnished import (
    Within,
    dump,
    furnished,
)
from test.data.told import (
    body_of,
)

CASES = buildcases.CASES | othercases.CASES


@pytest.fixture
def api() -> BuildAPI:
    """A house of the test's own."""
    return furnished()


@pytest.mark.parametrize("name", CASES)
def test_an_update_tells_what_the_contract_says(api: BuildAPI, name: str) -> None:
    """Its events in order, each with its topic, all its slash keys and its body."""
    case, updates = CASES[name], api.data.updates
    if case.before is not None:
        result_of(case.before(updates))
    recorded = RecordingSubscriber(api)

    assert result_of(case.call(updates)) == case.result
    assert [(e.topic, e.keys) for e in recorded.events] == [(e.topic, e.keys) for e in case.told]
    for event, told in zip(recorded.events, case.told, strict=True):
        assert orjson.loads(event.body) == body_of(api, told)


def test_every_update_has_its_case() -> None:
    """A new one gets into the table, or this fails."""
    updates = {name for name, it in inspect.getmembers_static(AllUpdates) if isinstance(it, Update)}
    aliases = {"newStep", "newLog"}

    assert updates - aliases == {name.partition(",")[0] for name in CASES} - {"compressLog"}


@pytest.mark.parametrize("alias", ["newStep", "newLog"])
def test_the_documented_names_are_the_same_methods(alias: str) -> None:
    """The documentation says new, the code add."""
    assert getattr(AllUpdates, alias) is not None
    assert vars(AllUpdates).get(alias) is vars(AllUpdates).get(alias.replace("new", "add"))


@pytest.mark.parametrize("name", CASES)
def test_events_are_stored_with_the_change(api: BuildAPI, name: str) -> None:
    """In one transaction, without a hole in the numbers; a second copy of them is what was told."""
    case, updates = CASES[name], api.data.updates
    recorded = RecordingSubscriber(api)
    if case.before is not None:
        result_of(case.before(updates))
    first = result_of(api.data.get("masters")).seq
    result_of(case.call(updates))

    logged: list[Event] = result_of(api.data.database.read(lambda r: stored(r, first, 1000)))
    assert [event.seq for event in logged] == list(range(first + 1, first + 1 + len(case.told)))
    assert logged == recorded.events[len(recorded.events) - len(logged) :]
    assert result_of(api.data.get("masters")).seq == first + len(logged)


@pytest.mark.parametrize("name", CASES)
def test_what_fails_later_in_the_transaction_never_happened(api: BuildAPI, name: str) -> None:
    """Neither the change nor its events, whatever the update."""
    case, updates = CASES[name], api.data.updates
    if case.before is not None:
        result_of(case.before(updates))
    if name.startswith("compressLog"):
        return
    recorded, before = RecordingSubscriber(api), dump(api)

    def fail(tx: Tx) -> None:
        case.call(Within(updates, tx))  # type: ignore[arg-type]  # it has the same methods
        raise Conflict("later")

    with pytest.raises(Conflict, match="later"):
        result_of(api.data.transaction(fail))
    assert recorded.events == []
    assert dump(api) == before
