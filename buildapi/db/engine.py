"""
``Database``: reads that never block the reactor, and one writer.

Small reads run on the reactor thread under a budget of instructions, which costs less than a hop to
another thread; what exceeds the budget, and everything that is known to be large, runs in a pool.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from threading import local
from typing import Any, TypeVar

import sqlalchemy as sa
from twisted.internet.defer import Deferred, execute
from twisted.internet.interfaces import IReactorThreads, IReactorTime
from twisted.internet.threads import deferToThreadPool
from twisted.python.threadpool import ThreadPool

from buildapi.db import migrate
from buildapi.db.connect import Reader, connector
from buildapi.db.transaction import Announce, Tx
from buildapi.db.writer import Committed, Writer
from buildapi.errors import BuildAPIError, CannotOpen
from buildapi.settings import Database as DatabaseSettings

T = TypeVar("T")

# The budget of a read on the reactor thread: about a millisecond of SQLite's virtual machine.
STEPS_PER_TICK = 10_000
TICKS_PER_READ = 10
# How long a query shape that exceeded the budget goes straight to the pool.
EXILE_S = 10.0


class TooLarge(Exception):
    """The read needs more than the budget, or a lock: it belongs in the pool."""


class Database:
    """
    One database: its readers, its writer, its threads.

    deliver: called on the reactor thread with what each batch changed, before its Deferreds fire.
    announce: makes changes into events.  holder: who writes, for others who would.
    reactor: None runs everything in the caller's thread, for a database in memory.
    """

    def __init__(
        self,
        settings: DatabaseSettings,
        reactor: Any,
        deliver: Callable[[Committed], None],
        announce: Announce,
        holder: str = "a build master",
    ) -> None:
        self.settings = settings
        self.connector = connector(
            settings.url, read_only=settings.read_only, busy_timeout_s=settings.busy_timeout_s
        )
        self._holder = holder
        self._reactor: IReactorThreads | None = None if self.connector.in_memory else reactor
        clock: IReactorTime = reactor
        self.seconds: Callable[[], float] = clock.seconds
        self.identity: str | None = None
        self.writer: Writer | None = None
        if not settings.read_only:
            self.writer = Writer(
                self.connector,
                self.seconds,
                deliver,
                announce,
                self._reactor and self._reactor.callFromThread,
                settings.max_queued_writes,
            )
        self._pool: ThreadPool | None = None
        self._local = local()
        self._readers: list[Reader] = []
        self._inline: Reader | None = None
        self._ticks_left = 0
        self._exiled: dict[Any, float] = {}

    def open(self) -> Deferred[None]:
        """Open, check and if need be make the database; fail with CannotOpen."""
        if self._reactor is None:
            return execute(self._open)
        self._pool = ThreadPool(1, max(1, self.settings.reader_threads), "buildapi-readers")
        self._pool.start()
        opening: Deferred[None] = deferToThreadPool(self._reactor, self._pool, self._open)
        return opening

    def _open(self) -> None:
        self.connector.check()
        try:
            if self.writer is not None:
                self.connector.lock(self._holder)
            connection = self.connector.inspector()
            self.identity = migrate.opened(
                self.connector.alchemy(connection), writable=self.writer is not None
            )
            if not self.connector.in_memory:
                connection.close()
            if self.writer is not None:
                self.writer.start(logging=True)
            self._inline = self._inline_reader()
        except BuildAPIError:
            self.connector.unlock()
            raise
        except (sqlite3.Error, sa.exc.SQLAlchemyError, OSError) as error:
            self.connector.unlock()
            cause = error.__cause__ or error
            raise CannotOpen(f"cannot open {self.connector.path}: {cause}") from None

    def write(self, body: Callable[[Tx], T]) -> Deferred[T]:
        """
        Run ``body`` in a transaction; fire with its result once that is durably committed.

        Fails with QueueFull, Stopping, Unavailable, or with what the body raised.
        """
        if self.writer is None:
            return execute(self._refuse)
        return self.writer.submit(body)

    @staticmethod
    def _refuse() -> Any:
        raise CannotOpen("the database was opened read-only; nothing can be changed")

    def read(self, work: Callable[[Reader], T]) -> Deferred[T]:
        """Run ``work`` with a reader in the pool; fire with its result."""
        if self._reactor is None or self._pool is None:
            return execute(self._work, work)
        reading: Deferred[T] = deferToThreadPool(self._reactor, self._pool, self._work, work)
        return reading

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
        except sqlite3.OperationalError as error:
            # Interrupted by the budget, or a lock that nobody may wait for here.
            self._exiled[shape] = self.seconds() + EXILE_S
            raise TooLarge from error
        except TooLarge:
            self._exiled[shape] = self.seconds() + EXILE_S
            raise

    def close(self) -> Deferred[None]:
        """Finish accepted writes, then close every connection and thread."""
        return Deferred.fromCoroutine(self._close())

    async def _close(self) -> None:
        if self.writer is not None:
            await self.writer.stop()
        if self._pool is not None and self._reactor is not None:
            # ThreadPool.stop joins its threads: not on the reactor's.
            pool, self._pool = self._pool, None
            await deferToThreadPool(self._reactor, self._reactor.getThreadPool(), pool.stop)
        for reader in self._readers:
            if not self.connector.in_memory:
                reader.connection.close()
        self._readers.clear()
        self._inline = None
        self.connector.unlock()

    def _in_exile(self, shape: Any) -> bool:
        until = self._exiled.get(shape)
        if until is None:
            return False
        if self.seconds() < until:
            return True
        del self._exiled[shape]
        return False

    def _work(self, work: Callable[[Reader], T]) -> T:
        try:
            return work(self._reader())
        except sqlite3.Error as error:
            raise self.connector.explained(error) from error

    def _reader(self) -> Reader:
        reader: Reader | None = getattr(self._local, "reader", None)
        if reader is None:
            reader = Reader(self.connector.reader(patient=True), self.connector.dialect)
            self._local.reader = reader
            self._readers.append(reader)
        return reader

    def _inline_reader(self) -> Reader | None:
        if not (self.settings.inline_reads or self.connector.in_memory):
            return None
        reader = Reader(self.connector.reader(patient=False), self.connector.dialect)
        if not self.connector.in_memory:
            reader.connection.set_progress_handler(self._tick, STEPS_PER_TICK)
            self._readers.append(reader)
        return reader

    def _tick(self) -> bool:
        # SQLite counts across runs of a cached statement, so a tick may come early: hence several.
        self._ticks_left -= 1
        return self._ticks_left < 0
