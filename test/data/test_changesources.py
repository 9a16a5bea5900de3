"""Change sources run on one master at a time."""

from __future__ import annotations

import pytest

from buildapi.errors import NoSuchResource
from buildapi.service import BuildAPI
from buildapi.testing import RecordingSubscriber, result_of


@pytest.fixture
def ours(api: BuildAPI) -> int:
    """A change source that runs on the serving master."""
    ident: int = result_of(api.data.updates.findChangeSourceId("poller"))
    assert result_of(api.data.updates.trySetChangeSourceMaster(ident, 1))
    return ident


def test_a_change_source_shows_its_master(api: BuildAPI, ours: int) -> None:
    """The whole object; below that master the change source is found, below others not."""
    other = result_of(api.data.updates.findMasterId("other:/master"))

    assert result_of(api.data.get(("changesources", ours))) == {
        "changesourceid": ours,
        "name": "poller",
        "master": result_of(api.data.get("masters/1")),
    }
    assert len(result_of(api.data.get("masters/1/changesources"))) == 1
    assert result_of(api.data.get(("masters", other, "changesources"))) == []
    with pytest.raises(NoSuchResource):
        result_of(api.data.get(("masters", other, "changesources", ours)))


def test_no_master_takes_a_change_source_from_another(api: BuildAPI, ours: int) -> None:
    """It must let go first."""
    other = result_of(api.data.updates.findMasterId("other:/master"))
    take = api.data.updates.trySetChangeSourceMaster
    heard = RecordingSubscriber(api)

    assert result_of(take(ours, other)) is False
    assert result_of(take(ours, 1)) is True
    assert heard.topics == []
    assert result_of(take(ours, None)) is True
    assert result_of(take(ours, other)) is True
    assert heard.topics == ["changesource.1.master"] * 2


def test_a_master_that_stops_lets_go(api: BuildAPI, ours: int) -> None:
    """Another one can take the change source over at once."""
    result_of(api.data.updates.masterActive("test:/master", 1))
    heard = RecordingSubscriber(api, "changesource.#")

    result_of(api.data.updates.masterStopped("test:/master", 1))

    assert [event.message["master"] for event in heard.events] == [None]
    assert result_of(api.data.get(("changesources", ours)))["master"] is None
