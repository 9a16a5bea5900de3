"""Another program writes the database too: what is read is right, and nothing is pretended."""

from __future__ import annotations

import pytest

from buildapi import BuildAPI, Settings
from buildapi.settings import Database
from buildapi.testing import WebClient, a_log, in_memory_api, result_of


@pytest.fixture
def api() -> BuildAPI:
    """A master beside another writer."""
    return in_memory_api(Settings(database=Database(foreign_writer=True)))


def test_answers_carry_no_position(api: BuildAPI) -> None:
    """The event log cannot have the other's changes, so no answer says that it is up to date."""
    result_of(api.data.updates.findBuilderId("runtests"))

    for path in ("/api/v2/builders", "/api/v2/builders/1", "/api/v2/builders/9"):
        headers = WebClient(api).get(path).headers
        assert "x-seq" not in headers
        assert "x-event-log" not in headers
    assert result_of(api.data.get("builders")).seq is None


def test_lines_are_counted_from_what_the_other_one_left(api: BuildAPI) -> None:
    """The number of a log's lines is read again for each batch, not remembered."""
    logid = result_of(a_log(api))
    result_of(api.data.updates.appendLog(logid, "oours\n"))
    other = "UPDATE logs SET num_lines = 7"
    result_of(api.data.transaction(lambda tx: tx.connection.execute(other).rowcount))

    assert result_of(api.data.updates.appendLog(logid, "oafter theirs\n")) == (7, 7)


def test_totals_are_counted_each_time(api: BuildAPI) -> None:
    """A page's total has what the other one added, though no event told of it."""
    result_of(api.data.updates.findBuilderId("ours"))
    result_of(api.data.updates.findBuilderId("ours too"))
    assert result_of(api.data.get("builders", limit=1)).total == 2
    other = "INSERT INTO builders (name, name_hash) VALUES ('theirs', 'x')"
    result_of(api.data.transaction(lambda tx: tx.connection.execute(other).rowcount))

    assert result_of(api.data.get("builders", limit=1)).total == 3
