"""A database moves to another system: what is in it then, and what is refused."""

from __future__ import annotations

import lzma
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from click.testing import CliRunner

from buildapi.cli import main
from buildapi.db import tables as t
from buildapi.db.copying import copy
from buildapi.db.systems import connector
from buildapi.errors import CannotCopy, CannotOpen

SAMPLE = Path(__file__).parents[1] / "contract" / "reference" / "sample.sqlite.xz"
BUILDBOTS = [table for table in t.metadata.sorted_tables if table is not t.alembic_version]
# What enforces links, lengths and types.
strict = pytest.mark.parametrize("fresh_url", ["postgresql", "mariadb"], indirect=True)


@contextmanager
def connected(url: str) -> Iterator[sa.Connection]:
    """Connect to a database, and commit in the end."""
    found = connector(url, read_only=False, busy_timeout_s=5)
    engine = sa.create_engine(getattr(found, "url", url))
    with engine.begin() as connection:
        yield connection
    engine.dispose()


def rows(url: str) -> dict[str, list[str]]:
    """Return everything in Buildbot's tables."""
    with connected(url) as connection:
        return {
            table.name: sorted(repr(tuple(row)) for row in connection.execute(sa.select(table)))
            for table in BUILDBOTS
        }


@pytest.fixture
def sample(tmp_path: Path) -> str:
    """The URL of a copy of the sample database, without its one claim of a request that is gone."""
    path = tmp_path / "sample.sqlite"
    path.write_bytes(lzma.decompress(SAMPLE.read_bytes()))
    url = f"sqlite:///{path}"
    requests = sa.select(t.buildrequests.c.id)
    with connected(url) as connection:
        claims = t.buildrequest_claims
        connection.execute(sa.delete(claims).where(claims.c.brid.not_in(requests)))
    return url


@pytest.fixture
def source(tmp_path: Path) -> str:
    """The URL of an SQLite database with a builder and nothing else."""
    url = f"sqlite:///{tmp_path / 'source.sqlite'}"
    with connected(url) as connection:
        t.metadata.create_all(connection)
        connection.execute(sa.insert(t.alembic_version).values(version_num=t.REVISION))
        add(connection, t.builders, id=1, name="a", name_hash="a")
        add(connection, t.masters, id=1, name="m", name_hash="m", active=0, last_active=0)
    return url


def add(connection: sa.Connection, table: sa.Table, **values: Any) -> None:
    """Insert a row."""
    connection.execute(sa.insert(table).values(**values))


def a_build(connection: sa.Connection, buildid: int, **values: Any) -> None:
    """Insert a build that says nothing."""
    given: dict[str, Any] = {"builderid": 1, "number": buildid, "masterid": 1, "started_at": 0}
    given |= {"locks_duration_s": 0, "state_string": "", "buildrequestid": 1}
    add(connection, t.builds, id=buildid, **given | values)


def test_there_and_back_again(sample: str, fresh_url: str, tmp_path: Path) -> None:
    """Every row of every table is the same on each system, and the same when it comes back."""
    back = f"sqlite:///{tmp_path / 'back.sqlite'}"

    done = copy(sample, fresh_url, lambda _: None)
    copy(fresh_url, back, lambda _: None)

    assert rows(fresh_url) == rows(back) == rows(sample)
    assert {one.table: one.rows for one in done} == {n: len(r) for n, r in rows(sample).items()}


def test_new_rows_come_after_those_that_were_copied(sample: str, fresh_url: str) -> None:
    """Ids go on where they ended."""
    copy(sample, fresh_url, lambda _: None)

    with connected(fresh_url) as connection:
        most = connection.execute(sa.select(sa.func.max(t.tags.c.id))).scalar() or 0
        made = connection.execute(sa.insert(t.tags).values(name="new", name_hash="new"))

        assert made.inserted_primary_key == (most + 1,)


def test_the_event_log_begins_anew(source: str, fresh_url: str) -> None:
    """A position in the log of the one is none in that of the other."""
    copy(source, fresh_url, lambda _: None)

    with connected(fresh_url) as connection:
        assert connection.execute(sa.select(t.buildapi_log.c.seq)).scalars().all() == [0]
        assert connection.execute(sa.select(t.alembic_version)).scalars().all() == [t.REVISION]


def test_nothing_is_copied_over_something(source: str, fresh_url: str) -> None:
    """A second copy is refused, and leaves the first as it was."""
    copy(source, fresh_url, lambda _: None)
    before = rows(fresh_url)

    with pytest.raises(CannotOpen, match="is not empty: its table masters has rows"):
        copy(source, fresh_url, lambda _: None)
    assert rows(fresh_url) == before


@strict
def test_links_to_nothing_become_null(source: str, fresh_url: str) -> None:
    """Where they may be; links to rows that come later are kept."""
    with connected(source) as connection:
        add(connection, t.buildsets, id=1, submitted_at=0, parent_buildid=2, rebuilt_buildid=9)
        add(connection, t.buildrequests, id=1, buildsetid=1, builderid=1, submitted_at=0)
        a_build(connection, 2, workerid=7)

    done = {one.table: one for one in copy(source, fresh_url, lambda _: None)}

    with connected(fresh_url) as connection:
        links = sa.select(t.buildsets.c.parent_buildid, t.buildsets.c.rebuilt_buildid)
        assert connection.execute(links).all() == [(2, None)]
        assert connection.execute(sa.select(t.builds.c.workerid)).scalars().all() == [None]
    assert (done["buildsets"].unlinked, done["builds"].unlinked) == (1, 1)


@strict
def test_what_has_lost_its_owner_is_left_behind(source: str, fresh_url: str) -> None:
    """With what belongs to it, and it is said."""
    with connected(source) as connection:
        a_build(connection, 1, buildrequestid=99)
        step = {"number": 0, "name": "s", "state_string": "", "urls_json": "[]"}
        add(connection, t.steps, id=1, buildid=1, **step)
    said: list[str] = []

    copy(source, fresh_url, said.append)

    assert rows(fresh_url)["steps"] == rows(fresh_url)["builds"] == []
    left = "1 row left out: owner missing"
    assert {f"builds: 0 rows; {left}", f"steps: 0 rows; {left}"} <= set(said)


@strict
@pytest.mark.parametrize(
    ("name", "value", "fault"),
    [
        ("slug", "x" * 51, "has 51 characters; the target has room for 50"),
        ("name", b"\xff", "is no text"),
    ],
)
def test_a_value_that_does_not_fit_is_named(
    source: str, fresh_url: str, name: str, value: Any, fault: str
) -> None:
    """With its table, column and id; nothing is copied."""
    with connected(source) as connection:
        given = {"name": "p", "slug": "p", name: value}
        connection.exec_driver_sql(
            "INSERT INTO projects (id, name_hash, name, slug) VALUES (5, 'p', ?, ?)",
            (given["name"], given["slug"]),
        )

    with pytest.raises(CannotCopy) as caught:
        copy(source, fresh_url, lambda _: None)

    assert caught.value.sentence == f"projects.{name} of id 5 {fault}"
    assert not any(rows(fresh_url).values())


@pytest.mark.parametrize("fresh_url", ["postgresql"], indirect=True)
def test_a_text_with_nul_is_refused_where_none_can_be(source: str, fresh_url: str) -> None:
    """PostgreSQL has no such texts."""
    with connected(source) as connection:
        add(connection, t.projects, id=5, name="a\0b", name_hash="p", slug="p")

    with pytest.raises(CannotCopy, match=r"projects\.name of id 5 has the character NUL"):
        copy(source, fresh_url, lambda _: None)


def test_a_source_that_is_refused_makes_no_target(tmp_path: Path) -> None:
    """Nothing is left that would have to be removed before the next try."""
    other = tmp_path / "other.sqlite"
    with connected(f"sqlite:///{other}") as connection:
        connection.execute(sa.text("CREATE TABLE t (x)"))
    target = tmp_path / "target.sqlite"

    with pytest.raises(CannotOpen, match="this is no Buildbot database"):
        copy(f"sqlite:///{other}", f"sqlite:///{target}", lambda _: None)

    assert [path for path in tmp_path.iterdir() if path.name.startswith("target")] == []


def test_the_command_copies_and_says_what_it_did(source: str, tmp_path: Path) -> None:
    """One line for each table; an error is one sentence."""
    target = f"sqlite:///{tmp_path / 'target.sqlite'}"

    done = CliRunner().invoke(main, ["db", "copy", "--from", source, "--to", target])
    again = CliRunner().invoke(main, ["db", "copy", "--from", source, "--to", target])

    assert "builders: 1 row\n" in done.output
    assert done.output.endswith(f"copied 2 rows to {target}\n")
    assert again.exit_code == 1
    assert "is not empty: its table masters has rows" in again.output
    assert rows(target) == rows(source)
