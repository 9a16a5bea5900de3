"""What an operator may do to a database, and what is refused."""

from __future__ import annotations

from pathlib import Path

import pytest
import sqlalchemy as sa

from buildapi.db.systems import connector
from buildapi.db.tables import alembic_version, indexes, metadata
from buildapi.db.upkeep import add_indexes
from buildapi.errors import CannotOpen
from buildapi.settings import Database


def a_buildbot_database(path: Path, revision: str = "067") -> Database:
    """Make a database as a Buildbot master leaves it, and return the settings that name it."""
    engine = sa.create_engine(f"sqlite:///{path}")
    with engine.begin() as connection:
        metadata.create_all(connection)
        connection.execute(sa.insert(alembic_version).values(version_num=revision))
    engine.dispose()
    return Database(url=f"sqlite:///{path}")


def schema(path: Path) -> set[tuple[str, str]]:
    """Return type and name of everything that a database consists of."""
    engine = sa.create_engine(f"sqlite:///{path}")
    with engine.connect() as connection:
        found = connection.exec_driver_sql("SELECT type, name FROM sqlite_master").all()
    engine.dispose()
    return {(kind, name) for kind, name in found}


def test_indexes_are_added_and_nothing_else(tmp_path: Path) -> None:
    """An existing Buildbot database gets what a new one is made with; no table of ours."""
    database = a_buildbot_database(tmp_path / "state.sqlite")
    before = schema(tmp_path / "state.sqlite")

    added = add_indexes(database)

    assert set(added) == {index.name for index in indexes}
    assert schema(tmp_path / "state.sqlite") - before == {("index", name) for name in added}


def test_adding_them_again_finds_nothing_to_do(tmp_path: Path) -> None:
    """The command may stand in a script."""
    database = a_buildbot_database(tmp_path / "state.sqlite")
    add_indexes(database)

    assert add_indexes(database) == []


def test_a_database_that_is_being_written_is_left_alone(tmp_path: Path) -> None:
    """One writer at a time, and this is one."""
    database = a_buildbot_database(tmp_path / "state.sqlite")
    other = connector(database.url, read_only=False, busy_timeout_s=0)
    other.lock("ci.example.org:/srv/ci")

    with pytest.raises(CannotOpen, match="is being written by ci"):
        add_indexes(database)
    other.unlock()


def test_another_revision_is_refused_unchanged(tmp_path: Path) -> None:
    """What Buildbot 5 makes of its tables nobody knows yet."""
    database = a_buildbot_database(tmp_path / "state.sqlite", revision="068")
    before = (tmp_path / "state.sqlite").read_bytes()

    with pytest.raises(CannotOpen, match="068"):
        add_indexes(database)
    assert (tmp_path / "state.sqlite").read_bytes() == before


def test_what_is_no_database_is_refused(tmp_path: Path) -> None:
    """A text file is not overwritten, a missing one not made."""
    text = tmp_path / "notes.txt"
    text.write_text("These are no tables.\n" * 100)

    with pytest.raises(CannotOpen, match="file is not a database"):
        add_indexes(Database(url=f"sqlite:///{text}"))
    with pytest.raises(CannotOpen, match="there is no database"):
        add_indexes(Database(url=f"sqlite:///{tmp_path / 'missing.sqlite'}"))
    assert not (tmp_path / "missing.sqlite").exists()
