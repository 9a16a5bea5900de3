"""How batches get into the database, and what happens when that goes wrong at the worst moment."""

from __future__ import annotations

import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from itertools import count
from pathlib import Path
from threading import Timer
from time import monotonic
from typing import Any, cast

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from twisted.internet.defer import succeed
from twisted.python.failure import Failure

from buildapi.db import migrate
from buildapi.db.connect import Connector
from buildapi.db.eventlog import Draft
from buildapi.db.groupcommit import Body, GroupCommit, Job
from buildapi.db.systems import connector
from buildapi.db.tables import buildapi_log, buildapi_meta, masters
from buildapi.db.transaction import Announce, Tx
from buildapi.errors import Conflict, Stopping, Unavailable

# The data layer makes events; these tests say theirs themselves.
NO_ANNOUNCE = cast("Announce", None)


def adds(name: str) -> Body[str]:
    """Return a body that adds a row and says so."""

    def body(tx: Tx) -> str:
        tx.insert(masters, name=name, name_hash=name, active=0, last_active=0)
        tx.say(Draft(f"master.{name}.new", (), b"{}"))
        return name

    return body


class Kit:
    """Group commit on a database, and what became of its batches."""

    def __init__(self, target: Connector, patience_s: float = 5.0) -> None:
        connection = target.inspector()
        migrate.opened(target.alchemy(connection), target.BEGIN, writable=True)
        target.close(connection)
        self.target = target
        self.commits = GroupCommit(target, lambda: 1000.5, NO_ANNOUNCE, patience_s)
        self.commits.open()
        self.events: list[int] = []
        self.transactions = 0

    def run(self, *bodies: Body[Any]) -> list[Any]:
        """Run a batch; return in order what each body returned, or the error it failed with."""
        jobs = [Job(body) for body in bodies]
        settled: list[Job] = []
        for committed, some in self.commits.settled(jobs):
            settled += some
            if committed is not None:
                self.transactions += 1
                self.events += [event.seq for event in committed.events]
        assert [id(job) for job in settled] == [id(job) for job in jobs]
        return [job.result.value if isinstance(job.result, Failure) else job.result for job in jobs]

    def rows(self, query: str) -> list[Any]:
        """Return the values of one column, read on another connection where there can be one."""
        connection = self.target.inspector()
        found = [row[0] for row in connection.execute(query)]
        self.target.close(connection)
        return found

    @property
    def names(self) -> list[str]:
        """The names of all rows that were added, in order."""
        return self.rows("SELECT name FROM masters ORDER BY id")

    def log_is_whole(self) -> bool:
        """Say whether the log has what was handed over, from 1 without a hole, and no more."""
        stored = self.rows("SELECT seq FROM buildapi_events ORDER BY seq")
        (newest,) = self.rows("SELECT seq FROM buildapi_log")
        return stored == self.events == list(range(1, newest + 1))


@pytest.fixture
def kit(url: str) -> Iterator[Kit]:
    """Give a kit on a new database, which waits for locks only briefly."""
    kit = Kit(connector(url, read_only=False, busy_timeout_s=0.05), patience_s=0.3)
    yield kit
    kit.commits.close()


class Unreliable:
    """A connection that makes trouble at certain statements."""

    def __init__(self, real: sqlite3.Connection) -> None:
        self.real = real
        # The beginning of a statement -> what happens instead of it, once.
        self.troubles: dict[str, Callable[[str], object]] = {}

    def execute(self, sql: str, *parameters: Any) -> Any:
        """Run a statement, or make trouble."""
        for beginning in self.troubles:
            if sql.startswith(beginning):
                return self.troubles.pop(beginning)(sql)
        return self.real.execute(sql, *parameters)

    @property
    def in_transaction(self) -> bool:
        """Whether a transaction is open."""
        return self.real.in_transaction

    def close(self) -> None:
        """Close the real connection."""
        self.real.close()

    def is_lost_before(self, sql: str) -> None:
        """Lose the connection, and with it the transaction."""
        self.real.close()
        self.real.execute(sql)

    def is_lost_after(self, sql: str) -> None:
        """Lose the connection just after the statement was run."""
        self.real.execute(sql)
        self.is_lost_before(sql)

    def fails(self, sentence: str, code: int) -> Callable[[str], None]:
        """Return a trouble that leaves everything as it is but for the error."""

        def fail(_: str) -> None:
            error = sqlite3.OperationalError(sentence)
            error.sqlite_errorcode = code
            raise error

        return fail


@pytest.fixture
def unreliable(kit: Kit, monkeypatch: pytest.MonkeyPatch) -> Unreliable:
    """Give the connection on which ``kit`` writes from now on; what follows it is reliable."""
    kit.commits.close()
    connection = Unreliable(kit.target.writer())
    with monkeypatch.context() as patch:
        patch.setattr(kit.target, "writer", lambda: connection)
        kit.commits.open()
    return connection


def test_a_batch_is_one_transaction(kit: Kit) -> None:
    """Its events are numbered in the order of its bodies, and each has its result."""
    names = [f"m{number}" for number in range(100)]

    assert kit.run(*map(adds, names)) == names
    assert kit.transactions == 1
    assert kit.names == names
    assert kit.log_is_whole()


def test_a_body_that_fails_fails_alone(kit: Kit) -> None:
    """What it did is undone, what its neighbours did is kept, and no position is left out."""
    error = ValueError("it is wrong")

    def fails(tx: Tx) -> None:
        adds("c")(tx)
        tx.insert_later(buildapi_meta, ("d", "d"))
        raise error

    assert kit.run(adds("a"), fails, adds("b")) == ["a", error, "b"]
    assert kit.transactions == 1
    assert kit.names == ["a", "b"]
    assert kit.log_is_whole()


def test_what_a_body_wanted_written_later_fails_with_it(kit: Kit) -> None:
    """The row that comes too late to fail inside the body is still the body's."""

    def later(tx: Tx) -> None:
        adds(f"m{tx.seq}")(tx)
        tx.insert_later(buildapi_meta, ("once", ""))

    first, second, third = kit.run(adds("a"), later, adds("b"))
    assert (first, second, third) == ("a", None, "b")
    first, second, third = kit.run(adds("c"), later, adds("d"))

    assert (first, third) == ("c", "d")
    assert isinstance(second, Conflict)
    assert kit.names == ["a", "m1", "b", "c", "d"]
    assert kit.log_is_whole()


def test_a_failing_body_that_is_alone_is_run_once(kit: Kit) -> None:
    """There is no neighbour to protect."""
    runs = []

    def fails(tx: Tx) -> None:
        runs.append(tx.seq)
        raise ValueError

    (error,) = kit.run(fails)

    assert isinstance(error, ValueError)
    assert runs == [0]


def test_what_the_writer_remembers_is_forgotten_with_what_was_undone(kit: Kit) -> None:
    """A body that is run again finds the memory as its transaction does: without the first run."""
    seen = []

    def remembers(tx: Tx) -> None:
        seen.append(dict(tx.memory))
        tx.memory["what"] = "that"

    def fails(tx: Tx) -> None:
        tx.memory["what"] = "other"
        raise ValueError

    kit.run(remembers, fails, remembers)

    assert seen == [{}, {}, {}]


@pytest.mark.parametrize("error", [SystemExit(), KeyboardInterrupt(), GeneratorExit()])
def test_whatever_a_body_raises_its_neighbours_go_on(kit: Kit, error: BaseException) -> None:
    """No exception is so grave that others should pay for it."""

    def fails(_: Tx) -> None:
        raise error

    assert kit.run(adds("a"), fails, adds("b")) == ["a", error, "b"]
    assert kit.run(fails) == [error]
    assert kit.log_is_whole()


async def coroutine() -> None:
    """Do nothing, later."""


def test_an_asynchronous_body_is_refused(kit: Kit) -> None:
    """Its transaction would be over before it."""
    promise, deferred = coroutine(), succeed(None)
    with closing(promise):
        first, second, third = kit.run(adds("a"), lambda _: promise, lambda _: deferred)

    assert first == "a"
    assert isinstance(second, TypeError)
    assert isinstance(third, TypeError)


def test_a_body_cannot_hide_that_the_transaction_is_gone(kit: Kit) -> None:
    """A full disk ends it; each later statement would be a transaction of its own."""

    def hides(tx: Tx) -> None:
        adds("c")(tx)
        tx.connection.execute("ROLLBACK")

    first, second, third = kit.run(adds("a"), hides, adds("b"))

    assert (first, third) == ("a", "b")
    assert isinstance(second, Unavailable)
    assert kit.names == ["a", "b"]
    assert kit.log_is_whole()


_numbers = count()


def _one_body(kind: str) -> tuple[str, Body[Any]]:
    name = f"{kind}-{next(_numbers)}"

    def body(tx: Tx) -> str:
        adds(name)(tx)
        if kind == "fails":
            raise ValueError
        if kind == "fails gravely":
            raise SystemExit
        if kind == "fails late":
            tx.insert_later(buildapi_log, (1, "", 0, 0))
        if kind == "loses the transaction":
            tx.connection.execute("ROLLBACK")
        return name

    return name, body


@given(
    st.lists(
        st.sampled_from(["works", "fails", "fails gravely", "fails late", "loses the transaction"]),
        min_size=1,
        max_size=12,
    )
)
@settings(max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_exactly_the_bodies_that_work_are_in_the_database(kit: Kit, kinds: list[str]) -> None:
    """In order, with their events, whatever their neighbours do."""
    before = len(kit.names)
    named = [_one_body(kind) for kind in kinds]

    results = kit.run(*(body for _, body in named))

    working = [name for name, _ in named if name.startswith("works")]
    assert [result for result in results if isinstance(result, str)] == working
    assert kit.names[before:] == working
    assert kit.log_is_whole()


@pytest.mark.systems("sqlite")
@pytest.mark.parametrize("earlier", [0, 1])
@pytest.mark.parametrize("moment", ["before", "after"])
def test_a_connection_lost_at_commit_costs_nothing(
    kit: Kit, unreliable: Unreliable, moment: str, earlier: int
) -> None:
    """The batch number tells whether it got through: nothing is lost, and nothing written twice."""
    for number in range(earlier):
        kit.run(adds(f"earlier {number}"))
    lost = unreliable.is_lost_before if moment == "before" else unreliable.is_lost_after
    unreliable.troubles["COMMIT"] = lost

    assert kit.run(adds("a"), adds("b")) == ["a", "b"]
    assert kit.run(adds("c")) == ["c"]
    assert kit.names[earlier:] == ["a", "b", "c"]
    assert kit.log_is_whole()


@pytest.mark.systems("sqlite")
@pytest.mark.parametrize(("moment", "stored"), [("before", []), ("after", ["a"])])
def test_nothing_is_repeated_until_the_fate_of_a_commit_is_known(
    kit: Kit,
    unreliable: Unreliable,
    monkeypatch: pytest.MonkeyPatch,
    moment: str,
    stored: list[str],
) -> None:
    """However long no connection can be had; then the caller hears the truth."""
    runs = []

    def counts(tx: Tx) -> str:
        runs.append(tx.seq)
        return adds("a")(tx)

    refusals = iter(range(6))
    real = kit.target.writer

    def refuses() -> Any:
        if next(refusals, None) is not None:
            unreliable.fails("unable to open database file", sqlite3.SQLITE_CANTOPEN)("")
        return real()

    lost = unreliable.is_lost_before if moment == "before" else unreliable.is_lost_after
    unreliable.troubles["COMMIT"] = lost
    monkeypatch.setattr(kit.target, "writer", refuses)
    monkeypatch.setattr("buildapi.db.groupcommit.RETRY_DELAYS_S", (0.1,))

    (result,) = kit.run(counts)

    assert isinstance(result, Unavailable) == (stored == [])
    assert kit.names == stored
    assert len(runs) == 1
    assert kit.log_is_whole()


@pytest.mark.systems("sqlite")
def test_giving_up_ends_the_wait_for_a_lost_database(
    kit: Kit, unreliable: Unreliable, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The caller hears the truth: nobody knows."""
    cannot_open = unreliable.fails("unable to open database file", sqlite3.SQLITE_CANTOPEN)
    unreliable.troubles["COMMIT"] = unreliable.is_lost_after
    monkeypatch.setattr(kit.target, "writer", lambda: cannot_open(""))
    Timer(0.05, kit.commits.give_up).start()

    (error,) = kit.run(adds("a"))

    assert isinstance(error, Stopping)
    assert "not known" in str(error)


@pytest.mark.systems("sqlite")
def test_a_connection_lost_in_the_middle_is_made_anew(kit: Kit, unreliable: Unreliable) -> None:
    """The whole batch is run again on it."""
    unreliable.troubles["INSERT"] = unreliable.is_lost_before

    assert kit.run(adds("a"), adds("b")) == ["a", "b"]
    assert kit.names == ["a", "b"]
    assert kit.log_is_whole()


@pytest.mark.systems("sqlite")
def test_no_empty_database_is_made_in_the_place_of_a_lost_one(kit: Kit, tmp_path: Path) -> None:
    """Somebody moved the file away: writing goes on when it is back."""
    kit.run(adds("a"))
    kit.commits.close()
    path = Path(kit.target.name)
    path.rename(tmp_path / "away")

    (error,) = kit.run(adds("b"))

    assert isinstance(error, Unavailable)
    assert not path.exists()
    (tmp_path / "away").rename(path)
    assert kit.run(adds("c")) == ["c"]
    assert kit.names == ["a", "c"]
    assert kit.log_is_whole()


@pytest.mark.systems("sqlite")
@pytest.mark.parametrize("statement", ["BEGIN", "INSERT", "COMMIT"])
def test_a_busy_database_is_tried_again(kit: Kit, unreliable: Unreliable, statement: str) -> None:
    """Whichever statement meets the lock; the batch is stored once."""
    busy = unreliable.fails("database is locked", sqlite3.SQLITE_BUSY)
    unreliable.troubles[statement] = busy

    assert kit.run(adds("a"), adds("b")) == ["a", "b"]
    assert kit.transactions == 1
    assert kit.names == ["a", "b"]
    assert kit.log_is_whole()


@pytest.mark.systems("sqlite")
@pytest.mark.parametrize(
    ("sentence", "code"),
    [("database or disk is full", sqlite3.SQLITE_FULL), ("disk I/O error", sqlite3.SQLITE_IOERR)],
)
def test_a_disk_that_fails_at_commit_gives_each_body_another_chance(
    kit: Kit, unreliable: Unreliable, sentence: str, code: int
) -> None:
    """Together they were too large; alone, each may fit."""
    unreliable.troubles["COMMIT"] = unreliable.fails(sentence, code)

    assert kit.run(adds("a"), adds("b")) == ["a", "b"]
    assert kit.names == ["a", "b"]
    assert kit.log_is_whole()


@pytest.mark.systems("sqlite")
def test_a_rollback_that_fails_ends_the_connection(kit: Kit, unreliable: Unreliable) -> None:
    """The next batch has a new one."""
    fails = unreliable.fails("disk I/O error", sqlite3.SQLITE_IOERR)
    unreliable.troubles = {"INSERT": fails, "ROLLBACK": fails}

    (error,) = kit.run(adds("a"))

    assert isinstance(error, Unavailable)
    assert "disk I/O error" in str(error)
    assert kit.run(adds("b")) == ["b"]
    assert kit.names == ["b"]
    assert kit.log_is_whole()


def test_a_statement_that_is_wrong_is_not_called_trouble(kit: Kit) -> None:
    """To try again later would not help: whoever wrote it must see it."""
    (error,) = kit.run(lambda tx: tx.connection.execute("SELECT locked FROM busy"))

    assert isinstance(error, kit.target.Error)


LOCKS = """
import sqlite3, sys

connection = sqlite3.connect(sys.argv[1], isolation_level=None)
connection.execute("BEGIN IMMEDIATE")
print("locked", flush=True)
sys.stdin.readline()
connection.execute("ROLLBACK")
"""


@contextmanager
def locked(path: str) -> Iterator[subprocess.Popen[str]]:
    """Have another process hold the write lock; a line to it, or the end, frees it."""
    command = [sys.executable, "-c", LOCKS, path]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "locked\n"
        yield process


@pytest.mark.systems("sqlite")
def test_a_lock_that_another_process_keeps_makes_the_batch_unavailable(kit: Kit) -> None:
    """All of it at once: the last body does not wait a hundred times as long as the first."""
    with locked(kit.target.name):
        began = monotonic()
        errors = kit.run(*(adds(f"m{number}") for number in range(100)))
        took = monotonic() - began

    assert {type(error) for error in errors} == {Unavailable}
    assert "database is locked" in str(errors[0])
    assert len({id(error) for error in errors}) == 100
    assert took < 5
    assert kit.run(adds("a")) == ["a"]
    assert kit.log_is_whole()


@pytest.mark.systems("sqlite")
def test_a_lock_that_is_freed_in_time_is_waited_for(kit: Kit) -> None:
    """Nobody notices but by the clock."""
    patient = GroupCommit(kit.target, lambda: 1000.5, NO_ANNOUNCE, patience_s=20)
    patient.open()
    kit.commits.close()
    kit.commits = patient
    with locked(kit.target.name) as process:
        assert process.stdin is not None
        Timer(0.2, process.stdin.close).start()

        assert kit.run(adds("a"), adds("b")) == ["a", "b"]
    assert kit.log_is_whole()


@pytest.mark.systems("sqlite")
def test_a_full_database_keeps_what_it_has(kit: Kit) -> None:
    """What is too large fails with a sentence, and fits when there is room again."""
    large = "x" * 100_000

    def limit(tx: Tx) -> None:
        (pages,) = tx.connection.execute("PRAGMA page_count").fetchone()
        tx.connection.execute(f"PRAGMA max_page_count = {pages + 10}").fetchone()

    kit.run(limit)
    first, error, third = kit.run(adds("a"), adds(large), adds("b"))

    assert (first, third) == ("a", "b")
    assert isinstance(error, Unavailable)
    assert "full" in str(error)
    assert kit.names == ["a", "b"]
    assert kit.rows("PRAGMA integrity_check") == ["ok"]
    kit.run(lambda tx: tx.connection.execute("PRAGMA max_page_count = 100000").fetchone())
    assert kit.run(adds(large)) == [large]
    assert kit.log_is_whole()


FILLS = """
import resource, signal, sys
from pathlib import Path
from buildapi.db import migrate
from buildapi.db.systems import connector
from buildapi.db.groupcommit import GroupCommit, Job
from buildapi.db.tables import masters

path = Path(sys.argv[1])
target = connector(f"sqlite:///{path}", read_only=False, busy_timeout_s=0)
migrate.opened(target.alchemy(target.inspector()), target.BEGIN, writable=True)
commits = GroupCommit(target, lambda: 0, None, 0)
commits.open()

def wanted(name):
    def body(tx):
        tx.insert(masters, name=name, name_hash=name[:9], active=0, last_active=0)
        return "stored"
    (((_, (job,))),) = commits.settled([Job(body)])
    return job.result

def room(size):
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY))

print(wanted("before"))
room(path.with_name(path.name + "-wal").stat().st_size + 8192)
print(type(wanted("large" * 20_000).value).__name__)
room(resource.RLIM_INFINITY)
print(wanted("after"))
"""


def test_a_disk_that_takes_no_more_at_commit_loses_nothing(tmp_path: Path) -> None:
    """What the system refuses to write fails; with room again, writing goes on."""
    path = tmp_path / "small.sqlite"
    done = subprocess.run(
        [sys.executable, "-c", FILLS, str(path)], capture_output=True, text=True, check=False
    )

    assert (done.stdout.split(), done.stderr) == (["stored", "Unavailable", "stored"], "")
    with closing(sqlite3.connect(path)) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        names = connection.execute("SELECT name FROM masters ORDER BY id").fetchall()
    assert names == [("before",), ("after",)]
