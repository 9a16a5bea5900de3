"""
``Database``: reads that never block the reactor, and one writer.

Small reads run on the reactor thread under a budget of instructions, which costs less than a hop to
another thread; what exceeds the budget, and everything that is known to be large, runs in a pool.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from traceback import clear_frames
from typing import Any, TypeVar

import sqlalchemy as sa
from twisted.internet.defer import Deferred, execute, fail
from twisted.internet.threads import deferToThreadPool
from twisted.python.failure import Failure

from buildapi.db import migrate
from buildapi.db.connect import Reader, connector
from buildapi.db.groupcommit import Committed, GroupCommit
from buildapi.db.readers import Readers
from buildapi.db.retention import DAY_S, Retention, trim
from buildapi.db.tables import buildapi_events
from buildapi.db.transaction import Announce, Tx
from buildapi.db.writer import Writer
from buildapi.errors import CannotOpen, Unavailable
from buildapi.settings import Database as DatabaseSettings
from buildapi.settings import Events

T = TypeVar("T")

# The budget of a read on the reactor thread: about a millisecond of SQLite's virtual machine.
STEPS_PER_TICK = 10_000
TICKS_PER_READ = 10
# How long a query shape that exceeded the budget goes straight to the pool, and how many may.
EXILE_S = 10.0
MOST_EXILED = 1_000


class TooLarge(Exception):
    """The read needs more than the budget, or a lock: it belongs in the pool."""


class Database:
    """
    One database: its readers, its writer, its threads.  It is opened and closed once.

    deliver: called on the reactor thread with what each batch changed, before its Deferreds fire.
    announce: makes changes into events.  holder: who writes, for others who would.
    reactor: gives the time, and threads; a database in memory works in the caller's thread, and a
    ``Clock`` is enough.  events: how long the event log remembers.
    """

    def __init__(
        self,
        settings: DatabaseSettings,
        reactor: Any,
        deliver: Callable[[Committed], None],
        announce: Announce,
        holder: str = "a build master",
        events: Events | None = None,
    ) -> None:
        self.settings = settings
        self.connector = connector(
            settings.url, read_only=settings.read_only, busy_timeout_s=settings.busy_timeout_s
        )
        self.identity: str | None = None
        self.seconds: Callable[[], float] = reactor.seconds
        self.writer: Writer | None = None
        self._holder = holder
        self._reactor = reactor
        from_thread = None if self.connector.in_memory else reactor.callFromThread
        if not settings.read_only:
            patience_s = settings.busy_timeout_s
            commits = GroupCommit(
                self.connector,
                self.seconds,
                announce,
                patience_s,
                alone=not settings.foreign_writer,
            )
            self.writer = Writer(commits, deliver, from_thread, settings.max_queued_writes)
        self._readers: Readers | None = None
        if from_thread is not None:
            self._readers = Readers(self.connector, from_thread, settings.reader_threads)
        self._retention = Retention([_forgetting(events or Events())], self.write, reactor)
        self._inline: Reader | None = None
        self._ticks_left = 0
        self._exiled: dict[Any, float] = {}
        self._is_open = False
        self._closing: Deferred[None] | None = None

    def open(self) -> Deferred[None]:
        """Open, check and if need be make the database; fail with CannotOpen."""
        if self._readers is None:
            opening: Deferred[None] = execute(self._open)
        else:
            pool = self._reactor.getThreadPool()
            opening = deferToThreadPool(self._reactor, pool, self._open)
        return opening.addCallbacks(self._opened, self._not_opened)

    def _open(self) -> None:
        try:
            self.connector.check()
            if self.writer is not None:
                self.connector.lock(self._holder)
            self.identity = self._checked()
            if self.settings.inline_reads or self.connector.in_memory:
                self._inline = self.connector.reader(
                    patient=False, give_up=self._spent, every=STEPS_PER_TICK
                )
            if self.writer is not None:
                self.writer.start()
        except BaseException as error:
            self._close_inline()
            self.connector.unlock()
            if isinstance(error, (sqlite3.Error, sa.exc.SQLAlchemyError, OSError)):
                cause = error.__cause__ or error
                raise CannotOpen(f"cannot open {self.connector.path}: {cause}") from None
            raise

    def _checked(self) -> str | None:
        connection = self.connector.inspector()
        try:
            engine = self.connector.alchemy(connection)
            return migrate.opened(engine, writable=self.writer is not None)
        finally:
            self.connector.close(connection)

    def _opened(self, _: None) -> None:
        self._is_open = True
        if self._readers is not None:
            self._readers.start()
        if self.writer is not None:
            self._retention.start()

    def _not_opened(self, failure: Failure) -> Failure:
        if self.writer is not None:
            # What was to be written as soon as it is open must not wait forever.
            self.writer.give_up()
            self.writer.stop()
        return failure

    def write(self, body: Callable[[Tx], T]) -> Deferred[T]:
        """
        Run ``body`` in a transaction; fire with its result once that is durably committed.

        Fails with QueueFull, Stopping, Unavailable, or with what the body raised.
        """
        if self.writer is None:
            return fail(CannotOpen("the database was opened read-only; nothing can be changed"))
        return self.writer.submit(body)

    def read(self, work: Callable[[Reader], T]) -> Deferred[T]:
        """
        Run ``work`` with a reader in the pool; fire with its result.

        Fails with Unavailable, or with what ``work`` raised.  Cancelled, it is interrupted.
        """
        if not self._is_open:
            return fail(Unavailable("the database is not open"))
        if self._readers is None:
            return execute(self._read_here, work)
        return self._readers.submit(work)

    def inline(self, shape: Any, work: Callable[[Reader], T]) -> T:
        """
        Run ``work`` here and now on the reactor thread, or raise TooLarge.

        shape: what the read looks like without its values; one that exceeded the budget goes
        to the pool for some seconds.
        """
        reader = self._inline
        if reader is None or (self._exiled and self._in_exile(shape)):
            raise TooLarge
        self._ticks_left = TICKS_PER_READ
        try:
            return work(reader)
        except (TooLarge, sqlite3.OperationalError) as error:
            # Interrupted by the budget, or a lock that nobody may wait for here.
            self._end_snapshot(reader, error)
            self._exile(shape)
            raise TooLarge from error
        except Exception as error:  # noqa: BLE001  raised on, as what people understand
            self._end_snapshot(reader, error)
            raise self.connector.explained(error) from None

    def close(self) -> Deferred[None]:
        """
        Finish the reads and writes that were accepted, close every connection and thread.

        Cancel it to give up what takes too long: reads are interrupted, writes that still wait fail
        with Stopping. The rest of the closing then goes on by itself.
        """
        if self._closing is None:
            self._closing = Deferred.fromCoroutine(self._close())
        closed: Deferred[None] = Deferred(self._give_up)
        self._closing.addBoth(_passed_on, closed)
        return closed

    async def _close(self) -> None:
        self._is_open = False
        self._retention.stop()
        # Reads first: a long text on its way into a log is cut in the pool, then written.
        if self._readers is not None:
            await self._readers.stop()
        self._close_inline()
        # The last connection to be closed tidies up the WAL: not on the reactor thread.
        if self.writer is not None:
            await self.writer.stop()
        self.connector.forget()
        self.connector.unlock()

    def _give_up(self, _: object) -> None:
        if self._readers is not None:
            self._readers.give_up()
        if self.writer is not None:
            self.writer.give_up()

    def _close_inline(self) -> None:
        reader, self._inline = self._inline, None
        if reader is not None:
            self.connector.close(reader.connection)

    def _read_here(self, work: Callable[[Reader], T]) -> T:
        assert self._inline is not None  # noqa: S101  a database in memory has one
        try:
            return work(self._inline)
        except sqlite3.Error as error:
            raise self.connector.explained(error) from error

    def _spent(self) -> bool:
        # SQLite counts across runs of a cached statement, so a tick may come early: hence several.
        self._ticks_left -= 1
        return self._ticks_left < 0

    def _end_snapshot(self, reader: Reader, error: Exception) -> None:
        """End what would make every later read on this connection show the past."""
        # A cursor that is still open in a frame of the traceback holds its snapshot.
        clear_frames(error.__traceback__)
        # The budget may have interrupted the very COMMIT that ends one.
        self._ticks_left = TICKS_PER_READ
        if not self.connector.in_memory and self.connector.in_transaction(reader.connection):
            reader.connection.execute("ROLLBACK")

    def _exile(self, shape: Any) -> None:
        if len(self._exiled) >= MOST_EXILED:
            self._exiled.clear()
        self._exiled[shape] = self.seconds() + EXILE_S

    def _in_exile(self, shape: Any) -> bool:
        until = self._exiled.get(shape)
        if until is None:
            return False
        if self.seconds() < until:
            return True
        del self._exiled[shape]
        return False


def _forgetting(events: Events) -> Callable[[Tx], int]:
    keep_s, keep_count = events.keep_days * DAY_S, events.keep_count
    return lambda tx: trim(tx, buildapi_events, keep_s, keep_count)


def _passed_on(result: Any, waiter: Deferred[None]) -> Any:
    if waiter.called:
        return result
    waiter.callback(result)
    return None
