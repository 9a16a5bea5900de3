"""Databases that the real Buildbot made, compared with ours: on SQLite and on both servers."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import sqlalchemy as sa

from buildapi.db.migrate import create_tables
from test.buildbot import Buildbot, description

if TYPE_CHECKING:
    from test.servers import Server


@pytest.fixture
def two_urls(request: pytest.FixtureRequest, fresh_url: str, tmp_path: Path) -> tuple[str, str]:
    """Return the URLs of two databases of the same kind without tables."""
    kind = request.node.callspec.params["fresh_url"]
    if kind == "sqlite":
        return fresh_url, f"sqlite:///{tmp_path / 'other.sqlite'}"
    server: Server = request.getfixturevalue(kind)
    return fresh_url, server.fresh_database()


def test_our_tables_are_what_the_real_buildbot_makes(
    two_urls: tuple[str, str], buildbot: Buildbot
) -> None:
    """Columns, types, defaults, keys, indexes: all that the database can tell is the same."""
    theirs, ours = two_urls
    buildbot.create(theirs)
    engine = sa.create_engine(ours)
    with engine.begin() as connection:
        create_tables(connection)
    engine.dispose()

    expected, found = description(theirs), description(ours)
    assert sorted(found) == sorted(expected)
    for table, facts in expected.items():
        assert found[table] == facts, table
