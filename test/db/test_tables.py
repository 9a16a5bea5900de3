"""
What the tables are once a database has made them, compared with a database of Buildbot 4.3.

``schema_067.json`` is what ``facts`` said of a SQLite database that Buildbot 4.3 had made: for
every table its columns in order, its primary key, indexes and foreign keys.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from sqlalchemy import Engine, create_engine, create_mock_engine

from buildapi.db import tables
from buildapi.db.migrate import create_tables
from buildapi.db.tables import (
    REVISION,
    alembic_version,
    builders,
    indexes,
    logchunks,
    metadata,
    own,
)

Facts = dict[str, dict[str, Any]]

REFERENCE: Facts = json.loads(Path(__file__).with_name("schema_067.json").read_text())


def facts(engine: Engine) -> Facts:
    """Everything that the dialect can say about the tables of a database, in words."""
    look = sa.inspect(engine)
    return {
        table: {
            "columns": [_column(column) for column in look.get_columns(table)],
            "primary key": _primary_key(look.get_pk_constraint(table)),
            "indexes": sorted(_index(index) for index in look.get_indexes(table)),
            "foreign keys": sorted(_foreign_key(key) for key in look.get_foreign_keys(table)),
        }
        for table in sorted(look.get_table_names())
    }


def _column(column: Any) -> str:
    null = "" if column["nullable"] else " NOT NULL"
    default = "" if column["default"] is None else f" DEFAULT {column['default']}"
    return f"{column['name']} {column['type']}{null}{default}"


def _primary_key(key: Any) -> str:
    name = f"{key['name']} " if key["name"] else ""
    return f"{name}({', '.join(key['constrained_columns'])})"


def _index(index: Any) -> str:
    unique = "UNIQUE " if index["unique"] else ""
    return f"{unique}{index['name']} ({', '.join(index['column_names'])})"


def _foreign_key(key: Any) -> str:
    name = f"{key['name']} " if key["name"] else ""
    return (
        f"{name}({', '.join(key['constrained_columns'])})"
        f" -> {key['referred_table']} ({', '.join(key['referred_columns'])})"
        f" ON DELETE {key['options'].get('ondelete', 'NO ACTION')}"
    )


@pytest.fixture
def engine() -> Iterator[Engine]:
    """A new database with Buildbot's tables."""
    engine = create_engine("sqlite://")
    with engine.begin() as connection:
        create_tables(connection)
    yield engine
    engine.dispose()


def statements(url: str, *collections: sa.MetaData) -> list[str]:
    """What would be sent to a database server to make the tables."""
    sent: list[str] = []

    def send(statement: Any, *_args: object, **_options: object) -> None:
        sent.append(" ".join(str(statement.compile(dialect=server.dialect)).split()))

    server = create_mock_engine(url, send)
    for collection in collections:
        collection.create_all(server, checkfirst=False)
    return sent


def test_the_reference_covers_all_tables(engine: Engine) -> None:
    """No table is missing, and none is there that Buildbot does not have."""
    assert sorted(facts(engine)) == sorted(REFERENCE)


@pytest.mark.parametrize("table", REFERENCE)
def test_a_new_table_is_what_buildbot_makes(engine: Engine, table: str) -> None:
    """Columns, types, nulls, defaults, keys and indexes are the same, name by name."""
    assert facts(engine)[table] == REFERENCE[table]


def test_the_names_of_this_module_are_the_names_of_tables() -> None:
    """``builds`` is what ``builds`` is called in SQL."""
    named = {
        name: value.name for name, value in vars(tables).items() if isinstance(value, sa.Table)
    }

    assert sorted(named) == sorted([*metadata.tables, *own.tables])
    assert all(name == table for name, table in named.items())


def test_our_own_tables_stand_apart(engine: Engine) -> None:
    """What we add to a Buildbot database can be told by its name, and nothing refers to it."""
    own.create_all(engine)

    added = {name: fact for name, fact in facts(engine).items() if name not in REFERENCE}
    assert sorted(added) == [
        "buildapi_consumers",
        "buildapi_control_audit",
        "buildapi_control_keys",
        "buildapi_events",
        "buildapi_log",
        "buildapi_meta",
    ]
    assert not any(fact["foreign keys"] for fact in added.values())


def test_an_event_is_found_by_its_number_alone(engine: Engine) -> None:
    """On SQLite the event log is one tree: its number is the row's number."""
    own.create_all(engine)

    with engine.connect() as connection:
        plan = connection.exec_driver_sql(
            "EXPLAIN QUERY PLAN SELECT body FROM buildapi_events WHERE seq > 7 ORDER BY seq"
        ).all()
    assert "USING INTEGER PRIMARY KEY" in plan[0].detail
    assert len(plan) == 1


def test_additional_indexes_are_made_when_asked_for(engine: Engine) -> None:
    """They are no part of Buildbot's tables, and their names say whose they are."""
    assert facts(engine)["builds"] == REFERENCE["builds"]

    for index in indexes:
        index.create(engine)

    made = {name for table in metadata.tables for name in _index_names(engine, table)}
    assert {index.name for index in indexes} <= made
    assert all(str(index.name).startswith("buildapi_") for index in indexes)


def _index_names(engine: Engine, table: str) -> list[str | None]:
    return [index["name"] for index in sa.inspect(engine).get_indexes(table)]


@pytest.mark.parametrize(
    ("query", "index"),
    [
        (
            "SELECT * FROM builds WHERE builderid = 1 ORDER BY id DESC LIMIT 50",
            "buildapi_builds_builderid (builderid=?)",
        ),
        (
            "SELECT * FROM builds WHERE builderid = 1 AND results = 2 ORDER BY id DESC LIMIT 50",
            "buildapi_builds_results (builderid=? AND results=?)",
        ),
        (
            "SELECT * FROM builds WHERE complete_at IS NULL ORDER BY id",
            "buildapi_builds_complete_at (complete_at=?)",
        ),
        (
            "SELECT * FROM buildrequests WHERE builderid = 1 AND complete = 0",
            "buildapi_buildrequests_queue (builderid=? AND complete=?)",
        ),
        (
            "SELECT * FROM buildsets WHERE parent_buildid = 1",
            "buildapi_buildsets_parent_buildid (parent_buildid=?)",
        ),
        (
            "SELECT * FROM test_results WHERE test_result_setid = 1 ORDER BY id",
            "buildapi_test_results_setid (test_result_setid=?)",
        ),
    ],
)
def test_an_additional_index_serves_its_query(engine: Engine, query: str, index: str) -> None:
    """The rows come from the index, in order: nothing is scanned and nothing sorted."""
    for additional in indexes:
        additional.create(engine)

    with engine.connect() as connection:
        plan = [row.detail for row in connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {query}")]
    assert len(plan) == 1
    assert plan[0].endswith(f"USING INDEX {index}")


def test_text_and_bytes_come_back_as_they_went_in(engine: Engine) -> None:
    """Content is bytes, whatever they are; names are text."""
    with engine.begin() as connection:
        connection.execute(builders.insert().values(name="ünï", name_hash="x"))
        connection.execute(alembic_version.insert().values(version_num=REVISION))
        row = {"logid": 1, "first_line": 0, "last_line": 0, "compressed": 0}
        connection.execute(logchunks.insert().values(content=b"\x00\xff", **row))

        assert connection.scalar(sa.select(logchunks.c.content)) == b"\x00\xff"
        assert connection.scalar(sa.select(builders.c.name)) == "ünï"


SERVERS = ["postgresql+psycopg://", "mysql+pymysql://", "mariadb+pymysql://"]


@pytest.mark.parametrize("url", SERVERS)
def test_a_server_gets_the_circle_of_builds_closed_last(url: str) -> None:
    """A build set names the build that triggered it, and each build by its request a build set."""
    sent = statements(url, metadata)

    late = [statement for statement in sent if statement.startswith("ALTER TABLE")]
    assert late == sent[-2:]
    # In no order: SQLAlchemy keeps a table's foreign keys in a set.
    assert {statement.split()[5] for statement in late} == {"parent_buildid", "rebuilt_buildid"}
    assert all("REFERENCES builds (id) ON DELETE SET NULL" in statement for statement in late)


def test_postgresql_keeps_bytes_as_bytea_and_counts_ids() -> None:
    """Ids come from the server, a ``seq`` from us."""
    sent = "\n".join(statements(SERVERS[0], metadata, own))

    assert "content BYTEA" in sent
    assert "value BYTEA NOT NULL" in sent
    assert "CREATE TABLE builds ( id SERIAL NOT NULL" in sent
    assert "CREATE TABLE buildapi_events ( seq BIGINT NOT NULL, at DOUBLE PRECISION" in sent


@pytest.mark.parametrize("url", SERVERS[1:])
def test_mariadb_has_room_for_long_contents(url: str) -> None:
    """Build data and messages may be longer than 64 KB; long texts are indexed by their start."""
    sent = "\n".join(statements(url, metadata, own))

    assert "value LONGBLOB NOT NULL" in sent
    assert "content BLOB(65536)" in sent
    assert "body` LONGTEXT" in sent or "body LONGTEXT" in sent
    assert "ON test_names (builderid, name(255))" in sent
    assert "ON test_code_paths (builderid, path(255))" in sent
    assert "CREATE TABLE buildapi_events ( seq BIGINT NOT NULL," in sent


def test_the_tables_stay_what_they_are_after_a_server_got_them(engine: Engine) -> None:
    """One process may make the tables of several systems, each with all its foreign keys."""
    statements(SERVERS[0], metadata)
    another = create_engine("sqlite://")
    with another.begin() as connection:
        create_tables(connection)

    assert facts(another) == facts(engine) == REFERENCE
    another.dispose()
