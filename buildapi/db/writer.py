"""
The one writer: a thread, a bounded queue, group commit.

It takes everything that is queued, runs the bodies in one transaction, commits once, and hands the
events and then the results to the reactor. One writer makes commit order equal publish order, and
"next number" race-free.

If a body fails, the transaction is rolled back and the batch runs again with a savepoint around
each body, so that only the guilty one fails. A full disk may end the whole transaction inside one
body; then each body gets a transaction of its own. If the connection is lost at COMMIT, the batch
number in the counter row tells whether it got through before anything is repeated.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from queue import Empty, SimpleQueue
from threading import Event as Flag
from threading import Thread
from typing import Any, TypeVar

from twisted.internet.defer import Deferred, fail, succeed
from twisted.logger import Logger
from twisted.python.failure import Failure

from buildapi.db import eventlog
from buildapi.db.connect import Reader, SQLite
from buildapi.db.transaction import Announce, Tx
from buildapi.errors import QueueFull, Stopping, Unavailable
from buildapi.mq.event import Event

T = TypeVar("T")
Body = Callable[[Tx], T]

MOST_BODIES_PER_BATCH = 500
RETRY_DELAYS_S = (0.01, 0.03, 0.1, 0.3, 1.0)


@dataclass
class Job:
    """A body that waits for its transaction, and who waits for it."""

    body: Body[Any]
    done: Deferred[Any] = field(default_factory=Deferred)
    result: Any = None


@dataclass(frozen=True)
class Committed:
    """What one batch changed."""

    events: Sequence[Event]
    touched: frozenset[str]
    seq: int


class _CommitFailed(Exception):
    """COMMIT raised; whether it got through is not known yet."""


class _Vanished(Exception):
    """The database ended the whole transaction inside one body."""


class Writer:
    """
    Runs bodies, a batch at a time.

    deliver: called on the reactor thread with each ``Committed``, before its Deferreds fire.
    announce: makes changes into events.
    from_thread: runs a callable on the reactor thread; None makes everything run at once in the
    caller's thread, as one connection in memory needs.
    """

    _log = Logger()

    def __init__(  # the seams that tests replace are arguments
        self,
        connector: SQLite,
        clock: Callable[[], float],
        deliver: Callable[[Committed], None],
        announce: Announce,
        from_thread: Callable[..., Any] | None,
        max_queued: int,
    ) -> None:
        self._connector = connector
        self._clock = clock
        self._deliver = deliver
        self._announce = announce
        self._from_thread = from_thread
        self._max_queued = max_queued
        self._queue: SimpleQueue[Job | None] = SimpleQueue()
        self._waiting = 0
        self._room: deque[Deferred[None]] = deque()
        self._stopping = False
        self._stopped: Deferred[None] = Deferred()
        self._giving_up = Flag()
        self._running = False
        self._thread: Thread | None = None
        self._connection: Any = None
        self._memory: dict[Any, Any] = {}
        self._logging = True
        self.seq = 0
        self._batch = 0

    def start(self, *, logging: bool) -> None:
        """Open the connection and begin.  logging: whether events are stored."""
        self._logging = logging
        self._reconnect()
        if self._from_thread is not None:
            self._thread = Thread(target=self._loop, name="buildapi-writer", daemon=True)
            self._thread.start()

    def submit(self, body: Body[T]) -> Deferred[T]:
        """
        Queue ``body``; fire with what it returns once it is durably committed.

        Fails with QueueFull when too many wait (``room`` tells when to come again), with Stopping
        after ``stop``, with Unavailable when the database does not take it, or as the body did.
        """
        if self._stopping:
            return fail(Stopping("the service is being stopped; it takes no more work"))
        if self._waiting >= self._max_queued:
            return fail(
                QueueFull(
                    f"{self._waiting} writes are waiting already; wait for room, then try again"
                )
            )
        job = Job(body)
        self._waiting += 1
        self._queue.put(job)
        if self._from_thread is None:
            self._drain_here()
        return job.done

    def room(self) -> Deferred[None]:
        """Fire when the queue is no more than half full."""
        if self._waiting <= self._max_queued // 2:
            return succeed(None)
        waiter: Deferred[None] = Deferred()
        self._room.append(waiter)
        return waiter

    def stop(self) -> Deferred[None]:
        """Take no more work, finish what was taken, close; fire then."""
        if not self._stopping:
            self._stopping = True
            if self._thread is None:
                self._close()
                self._stopped.callback(None)
            else:
                self._queue.put(None)
        return self._stopped

    def give_up(self) -> None:
        """Stop retrying: what is queued fails at its next error, instead of waiting."""
        self._giving_up.set()

    # On the writer thread.

    def _loop(self) -> None:
        assert self._from_thread is not None  # noqa: S101  start() looked
        going = True
        while going:
            jobs, going = self._next_batch()
            for committed, settled in self._settled(jobs):
                self._from_thread(self._delivered, committed, settled)
        self._close()
        self._from_thread(self._stopped.callback, None)

    def _next_batch(self) -> tuple[list[Job], bool]:
        job = self._queue.get()
        jobs: list[Job] = []
        while job is not None:
            jobs.append(job)
            if len(jobs) == MOST_BODIES_PER_BATCH:
                return jobs, True
            try:
                job = self._queue.get_nowait()
            except Empty:
                return jobs, True
        return jobs, False

    def _settled(self, jobs: list[Job]) -> list[tuple[Committed | None, list[Job]]]:
        """Run a batch; every job has its result afterwards, a Failure where it failed."""
        if not jobs:
            return []
        for attempt in (self._together, self._guarded, self._one_by_one):
            try:
                return attempt(jobs)
            except Exception as error:  # noqa: BLE001  the last attempt catches everything itself
                if not self._connector.is_busy(error) and not isinstance(error, _Vanished):
                    self._log.debug("a batch failed ({error}); trying another way", error=error)
        return []

    def _together(self, jobs: list[Job]) -> list[tuple[Committed | None, list[Job]]]:
        return [(self._patiently(jobs, self._plain), jobs)]

    def _guarded(self, jobs: list[Job]) -> list[tuple[Committed | None, list[Job]]]:
        return [(self._patiently(jobs, self._in_savepoint), jobs)]

    def _one_by_one(self, jobs: list[Job]) -> list[tuple[Committed | None, list[Job]]]:
        settled = []
        for job in jobs:
            committed = None
            try:
                committed = self._patiently([job], self._plain)
            except Exception as error:  # noqa: BLE001  whatever it is belongs to this job's caller
                job.result = Failure(self._connector.explained(error))
            settled.append((committed, [job]))
        return settled

    def _patiently(self, jobs: list[Job], run: Callable[[Tx, Job], None]) -> Committed:
        """Try a transaction again while the database is busy or lost, with growing delay."""
        for delay in (*RETRY_DELAYS_S, None):
            try:
                return self._transaction(jobs, run)
            except _CommitFailed as failed:
                error: BaseException = failed.__cause__ or failed
            except Exception as raised:
                if not (self._connector.is_busy(raised) or self._connector.is_lost(raised)):
                    raise
                error = raised
            if delay is None or self._giving_up.wait(delay):
                break
        raise Unavailable(f"the database did not take the change: {error}; try again later")

    def _transaction(self, jobs: list[Job], run: Callable[[Tx, Job], None]) -> Committed:
        if self._connection is None:
            self._reconnect()
        connection = self._connection
        tx = Tx(
            connection,
            self._connector.dialect,
            self.seq,
            self._clock(),
            self._memory,
            self._announce,
            logging=self._logging,
        )
        try:
            connection.execute("BEGIN IMMEDIATE")
            for job in jobs:
                run(tx, job)
            tx.flush()
            tx.count(self._batch + 1)
        except BaseException:
            self._roll_back()
            raise
        self._commit(tx)
        self.seq = tx.seq
        self._batch += 1
        return Committed(tx.events, frozenset(tx.touched), tx.seq)

    @staticmethod
    def _plain(tx: Tx, job: Job) -> None:
        job.result = job.body(tx)

    def _in_savepoint(self, tx: Tx, job: Job) -> None:
        mark = tx.guard()
        try:
            job.result = job.body(tx)
            tx.release()
        except Exception as error:
            if not self._connector.in_transaction(tx.connection):
                raise _Vanished from error
            tx.undo(mark)
            if self._connector.is_busy(error) or self._connector.is_lost(error):
                raise
            job.result = Failure(self._connector.explained(error))

    def _commit(self, tx: Tx) -> None:
        try:
            tx.connection.execute("COMMIT")
        except Exception as error:
            self._roll_back()
            self._reconnect_for(error)
            if self._batch_in_database() != self._batch + 1:
                raise _CommitFailed from error
            self._log.warn("COMMIT raised {error}, yet the batch is in the database", error=error)

    def _batch_in_database(self) -> int:
        if not self._logging:
            return -1
        return eventlog.counters(Reader(self._connection, self._connector.dialect)).batch

    def _roll_back(self) -> None:
        self._memory.clear()
        try:
            if self._connector.in_transaction(self._connection):
                self._connection.execute("ROLLBACK")
        except Exception as error:  # noqa: BLE001  a connection that can't roll back is no use
            self._log.warn("ROLLBACK failed: {error}; connecting again", error=error)
            self._close()

    def _reconnect_for(self, error: Exception) -> None:
        if self._connection is None or self._connector.is_lost(error):
            self._reconnect()

    def _reconnect(self) -> None:
        self._close()
        self._connection = self._connector.writer()
        if self._logging:
            found = eventlog.counters(Reader(self._connection, self._connector.dialect))
            # After a lost COMMIT the caller compares: our own numbers must not be overwritten.
            if self._batch == 0:
                self.seq, self._batch = found.seq, found.batch

    def _close(self) -> None:
        self._memory.clear()
        if self._connection is not None and not self._connector.in_memory:
            self._connection.close()
            self._connection = None

    # On the reactor thread.

    def _delivered(self, committed: Committed | None, jobs: list[Job]) -> None:
        self._waiting -= len(jobs)
        if committed is not None:
            self._deliver(committed)
        for job in jobs:
            if isinstance(job.result, Failure):
                job.done.errback(job.result)
            else:
                job.done.callback(job.result)
        while self._room and self._waiting <= self._max_queued // 2:
            self._room.popleft().callback(None)

    def _drain_here(self) -> None:
        if self._running:
            return
        self._running = True
        try:
            while not self._queue.empty():
                jobs, _ = self._next_batch()
                for committed, settled in self._settled(jobs):
                    self._delivered(committed, settled)
        finally:
            self._running = False
