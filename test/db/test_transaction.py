"""What a body may do: rows that are written later, in few statements, and read as if they were."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, cast

import pytest
import sqlalchemy as sa

from buildapi.db import migrate
from buildapi.db.eventlog import Draft
from buildapi.db.systems import connector
from buildapi.db.tables import buildapi_events, builds, changes, masters, metadata, own, steps
from buildapi.db.transaction import ROWS_PER_INSERT, Announce, Tx
from buildapi.testing.memory import DATABASE

NAMES = sa.select(masters.c.name).order_by(masters.c.id)


@pytest.fixture
def tx(system: str) -> Iterator[Tx]:
    """Give a transaction on a new database, in memory or of a server, and undo it."""
    url = "sqlite://" if system == "sqlite" else DATABASE.get()
    target = connector(url, read_only=False, busy_timeout_s=1)
    connection = target.writer()
    migrate.opened(target.alchemy(connection), target.BEGIN, writable=True)
    connection.execute(target.BEGIN)
    yield Tx(connection, target, 0, 1000.5, {}, cast("Announce", None))
    connection.execute("ROLLBACK")
    target.close(connection)
    target.forget()


class Counting:
    """A connection that counts its statements by their first word."""

    def __init__(self, real: Any) -> None:
        self.real = real
        self.words: list[str] = []

    def execute(self, sql: str, *parameters: Any) -> Any:
        """Count a statement, and run it."""
        self.words.append(sql.split(maxsplit=1)[0])
        return self.real.execute(sql, *parameters)


def a_row(ident: int, name: str) -> tuple[Any, ...]:
    """Return a row of the table of masters."""
    return (ident, name, name, 0, 0)


def say(tx: Tx) -> None:
    """Say that something happened."""
    tx.say(Draft("master.1.new", (), b"{}"))


def test_rows_that_are_written_later_need_few_statements(tx: Tx) -> None:
    """So do events, and changes of a column."""
    tx.connection = Counting(tx.connection)
    for number in range(ROWS_PER_INSERT):
        tx.insert_later(masters, a_row(number + 1, f"m{number}"))
        tx.change_later(masters, number + 1, "active", 1)
        say(tx)
    tx.flush()
    tx.flush()

    assert tx.connection.words == ["INSERT", "UPDATE", "INSERT"]


def test_every_row_is_written_however_many_there_are(tx: Tx) -> None:
    """In the order in which they were given."""
    names = [f"m{number:03}" for number in range(2 * ROWS_PER_INSERT + 1)]
    for number, name in enumerate(names):
        tx.insert_later(masters, a_row(number + 1, name))
        say(tx)
    tx.flush()

    assert [name for (name,) in tx.rows(NAMES, {})] == names
    positions = tx.rows(sa.select(buildapi_events.c.seq).order_by(buildapi_events.c.seq), {})
    assert [seq for (seq,) in positions] == list(range(1, len(names) + 1))


def test_a_select_sees_what_is_written_later(tx: Tx) -> None:
    """A body need not know when its rows are written."""
    tx.insert_later(masters, a_row(1, "a"))
    tx.change_later(masters, 1, "active", 1)

    assert tx.first(sa.select(masters.c.name, masters.c.active), {}) == ("a", 1)


def test_the_last_of_several_changes_counts(tx: Tx) -> None:
    """A log that grew by three appends has one number of lines."""
    ident = tx.insert(masters, name="a", name_hash="a", active=0, last_active=0)
    for second in (1, 2, 7):
        tx.change_later(masters, ident, "last_active", second)

    assert tx.first(sa.select(masters.c.last_active), {}) == (7,)


def test_a_change_now_comes_after_the_changes_that_waited(tx: Tx) -> None:
    """The order is that of the body."""
    ident = tx.insert(masters, name="a", name_hash="a", active=0, last_active=0)
    tx.change_later(masters, ident, "active", 1)
    tx.change(masters, ident, active=2)

    assert tx.first(sa.select(masters.c.active), {}) == (2,)


def test_what_is_undone_leaves_nothing_waiting(tx: Tx) -> None:
    """Neither rows nor changes, events or memories; what came before stays, and its numbers."""
    first = tx.insert(masters, name="a", name_hash="a", active=0, last_active=0)
    say(tx)
    tx.flush()
    mark = tx.guard()
    tx.insert(masters, name="b", name_hash="b", active=0, last_active=0)
    tx.insert_later(masters, a_row(3, "c"))
    tx.change_later(masters, first, "active", 1)
    tx.memory["c"] = "there"
    say(tx)
    tx.undo(mark)
    say(tx)
    tx.flush()

    assert tx.rows(sa.select(masters.c.name, masters.c.active), {}) == [("a", 0)]
    assert tx.rows(sa.select(buildapi_events.c.seq), {}) == [(1,), (2,)]
    assert tx.seq == 2
    assert not tx.memory


def test_the_transaction_knows_what_it_touched(tx: Tx) -> None:
    """By it others know which of their totals still hold, and which rows they need not read."""
    ident = tx.insert(masters, name="a", name_hash="a", active=0, last_active=0)
    tx.change(masters, ident, active=1)
    tx.change_later(builds, 1, "results", 0)
    tx.change_later(builds, 2, "results", 0)
    tx.run(sa.update(changes).values(author="nobody"))

    assert tx.touched == {"masters": {ident}, "builds": {1, 2}, "changes": None}


@pytest.mark.parametrize(
    "touch",
    [
        lambda tx: tx.insert_later(masters, a_row(7, "b")),
        lambda tx: tx.insert(masters, id=5, name="b", name_hash="b", active=0, last_active=0),
        lambda tx: tx.run(sa.update(masters).values(active=1)),
        lambda tx: tx.run(sa.delete(masters)),
    ],
)
def test_where_a_row_is_not_known_any_may_be_touched(tx: Tx, touch: Callable[[Tx], object]) -> None:
    """That stays so, whatever is known of other rows."""
    known = {"name": "a", "name_hash": "a", "active": 0, "last_active": 0}
    tx.insert(masters, **known)
    touch(tx)
    tx.change(masters, 1, active=1)

    assert tx.touched["masters"] is None


def test_a_row_that_is_put_elsewhere_touches_all(tx: Tx) -> None:
    """What it was part of before, nobody can tell afterwards."""
    tx.change(builds, 1, builderid=7)
    tx.change_later(steps, 1, "buildid", 7)

    assert tx.touched == {"builds": None, "steps": None}


def test_a_deletion_touches_what_goes_with_it(tx: Tx) -> None:
    """The database deletes rows below it, or makes them forget it, and does not say so."""
    tx.run(sa.delete(builds))

    assert {"builds", "steps", "logs", "logchunks", "build_properties"} <= set(tx.touched)
    assert "builders" not in tx.touched


def test_the_widest_table_fits_in_a_statement() -> None:
    """SQLite before 3.32 took 999 values at once; nothing here comes near today's limit."""
    widest = max(len(table.columns) for table in [*metadata.sorted_tables, *own.sorted_tables])

    assert widest * ROWS_PER_INSERT <= 999
