"""
Group commit: how a batch of bodies gets into the database, in the writer's thread.

All bodies run in one transaction, which is committed once. If one fails, the transaction is rolled
back and the batch runs again with a savepoint around each body, so that only the guilty one fails.
A full disk may end the whole transaction inside one body; then each body gets a transaction of its
own.

A database that is busy or lost is tried again for as long as ``database.busy_timeout_s`` says; then
the whole batch fails with Unavailable. If COMMIT raises, the batch number in the counter row tells
whether it got through, and nothing else happens until that is known: to guess would lose the batch,
or write it twice.

With its connection a process may lose the lock of the one writer.  If the counter row shows then
that another process wrote meanwhile, this one writes no more until it is started again: what it
remembers, and what it told its subscribers, is out of date.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain, repeat
from secrets import randbits
from threading import Event as Flag
from time import monotonic
from typing import Any, TypeVar

from twisted.internet.defer import Deferred
from twisted.logger import Logger
from twisted.python.failure import Failure

from buildapi.db import eventlog
from buildapi.db.connect import Connector, Reader, sentence
from buildapi.db.contact import Contact
from buildapi.db.transaction import Announce, Tx
from buildapi.errors import Conflict, Stopping, Unavailable
from buildapi.histogram import Histogram
from buildapi.mq.event import Event

T = TypeVar("T")
Body = Callable[[Tx], T]

# Upper bounds of what is counted together.
DURATIONS_S = (0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.5, 2.0, 10.0)
SIZES = (1, 2, 5, 10, 20, 50, 100, 200, 500)

RETRY_DELAYS_S = (0.01, 0.03, 0.1, 0.3, 1.0)
# How often a body is run that took a number which another program took at the same moment.
RUNS_PER_CLASH = 5


@dataclass
class Job:
    """A body that waits for its transaction, and who waits for it."""

    body: Body[Any]
    done: Deferred[Any] = field(default_factory=Deferred)
    # What the body returned, or a Failure.
    result: Any = None


@dataclass(frozen=True)
class Committed:
    """
    What one batch changed.

    touched: by table the ids of the rows that were inserted or changed, without being put below
    another parent; of a table whose rows only belong to others', the ids of those whose were
    changed in any way. None: any row of it may have been changed in any way, or deleted.
    """

    events: Sequence[Event]
    touched: Mapping[str, set[int] | None]
    seq: int


class _OutOfReach(Unavailable):
    """Nobody is to blame and nothing else to be tried: the whole batch fails."""


class GroupCommit:
    """
    The writing connection, and the transactions made on it.

    clock: seconds since the epoch.  announce: makes changes into events.  patience_s: how long a
    busy or lost database is tried again.  alone: nobody else writes, so that what was written
    need not be read again.  contact: is told whether transactions succeed.
    ``seq``: the position of the newest event.
    ``durations`` (seconds) and ``sizes`` (bodies) of the transactions that were committed.
    """

    _log = Logger()

    def __init__(
        self,
        connector: Connector,
        clock: Callable[[], float],
        announce: Announce,
        patience_s: float,
        *,
        alone: bool = True,
        contact: Contact | None = None,
    ) -> None:
        self._connector = connector
        self._contact = contact or Contact(connector.name)
        self._clock = clock
        self._announce = announce
        self._patience_s = patience_s
        self._alone = alone
        self._giving_up = Flag()
        self._connection: Any = None
        self._memory: dict[Any, Any] = {}
        self.seq = 0
        self.durations = Histogram(DURATIONS_S)
        self.sizes = Histogram(SIZES)
        # The counter row as we left it; None before it was read.
        self._left: eventlog.Counters | None = None

    def open(self) -> None:
        """Open the connection and read where the event log ends."""
        self._connected()

    def close(self) -> None:
        """Close the connection; the next transaction opens a new one."""
        self._memory.clear()
        connection, self._connection = self._connection, None
        if connection is not None:
            self._connector.close(connection)

    def give_up(self) -> None:
        """Fail further batches with Stopping, and wait for no database; from any thread."""
        self._giving_up.set()

    def settled(self, jobs: list[Job]) -> Iterator[tuple[Committed | None, list[Job]]]:
        """
        Run a batch, and yield all jobs of it with their results: a Failure where one failed.

        They come by the transaction they went through: all at once, if nothing was wrong.
        """
        committed = None
        try:
            committed = self._committed(jobs)
        except BaseException as error:  # noqa: BLE001  the thread must live, whatever a body raises
            if len(jobs) > 1 and not isinstance(error, _OutOfReach):
                for job in jobs:
                    yield from self.settled([job])
                return
            for job in jobs:
                job.result = self._failure(error)
        yield committed, jobs

    def _failure(self, error: BaseException) -> Failure:
        if isinstance(error, _OutOfReach):
            # An exception of its own for everybody who may raise it again.
            error = (Stopping if self._giving_up.is_set() else Unavailable)(str(error))
        return Failure(self._connector.explained(error))

    def _committed(self, jobs: list[Job]) -> Committed:
        if self._giving_up.is_set():
            raise _OutOfReach("the service is being stopped; this was not written")
        try:
            return self._patiently(jobs, self._plain)
        except _OutOfReach:
            raise
        except BaseException as error:
            if len(jobs) == 1 and not self._is_clash(error):
                raise
            self._log.debug("a batch failed ({error}); guarding each body", error=error)
        return self._patiently(jobs, self._in_savepoint)

    def _patiently(self, jobs: list[Job], run: Callable[[Tx, Job], None]) -> Committed:
        """Try a transaction again while the database is busy or lost, with growing delay."""
        until, delays = monotonic() + self._patience_s, _delays()
        while True:
            try:
                committed = self._transaction(jobs, run)
            except Exception as error:
                if self._connector.is_lost(error):
                    self._contact.lost(sentence(error))
                if not (self._connector.is_busy(error) or self._connector.is_lost(error)):
                    raise
                if self._giving_up.wait(next(delays)) or monotonic() > until:
                    raise _OutOfReach(str(self._connector.explained(error))) from error
            else:
                self._contact.found()
                return committed

    def _transaction(self, jobs: list[Job], run: Callable[[Tx, Job], None]) -> Committed:
        connection = self._connected()
        began = monotonic()
        if not self._alone:
            self._memory.clear()
        try:
            connection.execute(self._connector.BEGIN)
            left = self._locked_counters(connection)
            at = self._clock()
            tx = Tx(connection, self._connector, left.seq, at, self._memory, self._announce)
            for job in jobs:
                run(tx, job)
            tx.flush()
            # A number that no other process takes by chance: it has to tell whose batch it was.
            wanted = eventlog.Counters(left.uuid, tx.seq, randbits(62))
            tx.count(wanted.batch)
        except BaseException as error:
            self._roll_back(error)
            raise
        self._commit(connection, wanted)
        self.durations.observe(monotonic() - began)
        self.sizes.observe(len(jobs))
        self._left, self.seq = wanted, wanted.seq
        return Committed(tx.events, tx.touched, tx.seq)

    def _locked_counters(self, connection: Any) -> eventlog.Counters:
        """Return the counters; keep others from them, where BEGIN does not."""
        assert self._left is not None  # noqa: S101  whoever connects reads them
        if self._connector.EMBEDDED:
            return self._left
        return self._still(eventlog.locked(Reader(connection, self._connector)))

    def _still(self, found: eventlog.Counters) -> eventlog.Counters:
        """Return the counters if they are as we left them; to write otherwise would do harm."""
        if self._left not in (None, found):
            raise _OutOfReach(
                "another process has written to the database since the connection was lost;"
                " start this one again"
            )
        return found

    def _plain(self, tx: Tx, job: Job) -> None:
        job.result = job.body(tx)
        if isinstance(job.result, (Deferred, Coroutine)):
            raise TypeError("a body must not be asynchronous: its transaction does not wait")
        if not self._connector.is_sound(tx.connection):
            # It hid the error of a full disk: what follows would commit statement by statement.
            raise Unavailable("the database ended the transaction; try again later")

    def _in_savepoint(self, tx: Tx, job: Job) -> None:
        for run in range(1, RUNS_PER_CLASH + 1):
            mark = tx.guard()
            try:
                self._plain(tx, job)
                tx.release()
            except BaseException as error:
                # No transaction, no savepoint: each body alone, then.
                if not self._connector.in_transaction(tx.connection):
                    raise
                tx.undo(mark)
                if self._connector.is_busy(error):
                    raise
                job.result = self._failure(error)
                if run < RUNS_PER_CLASH and self._is_clash(error):
                    continue
            return

    def _is_clash(self, error: BaseException) -> bool:
        """Say whether a foreign writer may have taken what a body took; its next run sees that."""
        refused = isinstance(error, self._connector.Error) and self._connector.refusal(error)
        return not self._alone and isinstance(refused, Conflict)

    def _commit(self, connection: Any, wanted: eventlog.Counters) -> None:
        try:
            connection.execute("COMMIT")
        except Exception as error:
            self._roll_back(error)
            if not self._got_through(wanted):
                raise
            self._log.warn("COMMIT raised {error}, yet the batch is in the database", error=error)

    def _got_through(self, wanted: eventlog.Counters) -> bool:
        """Say whether a batch whose COMMIT raised is in the database; ask until that is known."""
        delays = _delays()
        while True:
            try:
                return self._has(wanted)
            except _OutOfReach:
                self.close()
                sentence = "whether the database took the change is not known: another process has"
                raise _OutOfReach(f"{sentence} written since; start this one again") from None
            except Exception as error:
                self._log.warn("COMMIT raised; asking whether it got through: {error}", error=error)
                self.close()
                if self._giving_up.wait(next(delays)):
                    sentence = "the database was lost; whether it took the change is not known"
                    raise _OutOfReach(sentence) from error

    def _has(self, wanted: eventlog.Counters) -> bool:
        found = self._counters(self._reached())
        return found == wanted or self._still(found) == wanted

    def _roll_back(self, error: BaseException) -> None:
        """Undo what an error left unfinished."""
        self._memory.clear()
        try:
            if self._connector.is_lost(error):
                self.close()
            elif self._connector.in_transaction(self._connection):
                self._connection.execute("ROLLBACK")
        except Exception as failed:  # noqa: BLE001  a connection that can't roll back is no use
            self._log.warn("ROLLBACK failed: {error}; connecting again", error=failed)
            self.close()

    def _connected(self) -> Any:
        """Return the connection; a new one begins with the counters that the database has."""
        if self._connection is None:
            connection = self._reached()
            try:
                self._left = self._still(self._counters(connection))
            except BaseException:
                self.close()
                raise
            self.seq = self._left.seq
        return self._connection

    def _reached(self) -> Any:
        """Return the connection, whatever the counters say."""
        if self._connection is None:
            self._connection = self._connector.writer()
        return self._connection

    def _counters(self, connection: Any) -> eventlog.Counters:
        return eventlog.counters(Reader(connection, self._connector))


def _delays() -> Iterator[float]:
    return chain(RETRY_DELAYS_S, repeat(RETRY_DELAYS_S[-1]))
