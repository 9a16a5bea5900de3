"""
``Database``: reads that never block the reactor, and one writer.

On an embedded database small reads run on the reactor thread under a budget of its time, which
costs less than a hop to another thread; on a server they have a lane of threads for themselves, and
a short time, and what is one statement may need no thread.  What exceeds that, and everything that
is known to be large, runs in a lane for long lists; another is for the contents of logs.
"""

from __future__ import annotations

import gc
from collections.abc import Callable
from functools import partial
from time import thread_time
from traceback import clear_frames
from typing import TYPE_CHECKING, Any, TypeVar

import sqlalchemy as sa
from twisted.internet.defer import Deferred, execute, fail, maybeDeferred
from twisted.internet.interfaces import IReactorThreads
from twisted.internet.threads import deferToThreadPool
from twisted.python.failure import Failure

from buildapi.db import migrate
from buildapi.db.connect import Answered, Compiled, Params, Reader, Rows, sentence
from buildapi.db.contact import Contact
from buildapi.db.groupcommit import Committed, GroupCommit
from buildapi.db.readers import Lane, Readers
from buildapi.db.retention import DAY_S, Retention, trim
from buildapi.db.systems import connector
from buildapi.db.tables import buildapi_events
from buildapi.db.transaction import Announce, Tx
from buildapi.db.writer import Writer
from buildapi.errors import CannotOpen, TooSlow, Unavailable
from buildapi.settings import Database as DatabaseSettings
from buildapi.settings import Events

if TYPE_CHECKING:
    from buildapi.db.pipeline import Pipeline

T = TypeVar("T")

# The budget of a read on the reactor thread, in seconds of the processor: who waits for a cold disk
# holds nothing up but himself.
INLINE_S = 0.002
# The budget of a quick read in a thread.
QUICK_S = 0.05
# How long a query shape that exceeded the budget goes straight to the pool, and how many may.
EXILE_S = 10.0
MOST_EXILED = 1_000

# Made once: it is remembered what it is compiled to.
_ANSWER = sa.select(sa.literal(1))


# The lanes.
QUICK, LISTS, LOGS, EVENTS = "quick", "lists", "logs", "events"


class TooLarge(Exception):
    """The read needs more than the budget, or a lock: it belongs in the pool."""


class Database:
    """
    One database: its readers, its writer, its threads.  It is opened and closed once.

    deliver: called on the reactor thread with what each batch changed, before its Deferreds fire.
    announce: makes changes into events.  holder: who writes, for others who would.
    reactor: gives the time, and threads; with one that has none, as a ``Clock``, and with a
    database in memory, everything is done in the caller's thread.  events: how long the event log
    remembers.
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
        self._quick_s = min(QUICK_S, settings.statement_timeout_s)
        self.connector = connector(
            settings.url, read_only=settings.read_only, busy_timeout_s=settings.busy_timeout_s
        )
        self.identity: str | None = None
        self.seconds: Callable[[], float] = reactor.seconds
        self.writer: Writer | None = None
        self._holder = holder
        self._reactor = reactor
        threaded = IReactorThreads.providedBy(reactor) and not self.connector.in_memory
        from_thread = reactor.callFromThread if threaded else None
        contact = Contact(self.connector.name)
        if not settings.read_only:
            patience_s = settings.busy_timeout_s
            commits = GroupCommit(
                self.connector,
                self.seconds,
                announce,
                patience_s,
                alone=not settings.foreign_writer,
                contact=contact,
            )
            self.writer = Writer(commits, deliver, from_thread, settings.max_queued_writes)
        self._pipeline: Pipeline | None = None
        self._readers: Readers | None = None
        if from_thread is not None:
            self._readers = Readers(self.connector, from_thread, self._lanes(), contact)
        self.retention = Retention([_forgetting(events or Events())], self.write, reactor)
        self._inline: Reader | None = None
        # Makes all reads where there are no threads.
        self._here: Reader | None = None
        # When the inline read was first asked whether to go on; most are never asked.
        self._asked_at: float | None = None
        self._collected = 0
        self._exiled: dict[Any, float] = {}
        self._is_open = False
        self._closing: Deferred[None] | None = None

    def _lanes(self) -> list[Lane]:
        limit_s = self.settings.statement_timeout_s
        slow = partial(
            TooSlow,
            f"the database took longer than {limit_s:g} seconds; ask for less, by filters or limit",
        )
        return [
            Lane(QUICK, self.settings.quick_threads, self._quick_s, TooLarge),
            Lane(LISTS, self.settings.reader_threads, limit_s, slow),
            Lane(LOGS, self.settings.log_threads, limit_s, slow),
            Lane(EVENTS, 1, limit_s, slow),
        ]

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
            self._open_readers()
            if self.writer is not None:
                self.connector.sign(self._holder)
                self.writer.start()
        except BaseException as error:
            self._close_inline()
            self.connector.unlock()
            if isinstance(error, (self.connector.Error, sa.exc.SQLAlchemyError, OSError)):
                cause = sentence(error.__cause__ or error)
                raise CannotOpen(f"cannot open {self.connector.name}: {cause}") from None
            raise

    def _open_readers(self) -> None:
        connector = self.connector
        if connector.in_memory or (connector.EMBEDDED and self.settings.inline_reads):
            self._inline = connector.reader(self._spent, QUICK_S, patient=False)
        if connector.in_memory:
            self._here = self._inline
        elif self._readers is None:
            self._here = connector.reader(
                lambda: False, self.settings.statement_timeout_s, patient=True
            )

    def _checked(self) -> str | None:
        connection = self.connector.inspector()
        try:
            writable = self.writer is not None
            begin = self.connector.BEGIN if writable else self.connector.BEGIN_SNAPSHOT
            return migrate.opened(self.connector.alchemy(connection), begin, writable=writable)
        finally:
            self.connector.close(connection)

    def _opened(self, _: None) -> None:
        self._is_open = True
        if self._readers is not None:
            self._readers.start()
            if self.settings.inline_reads:
                self._pipeline = self.connector.pipeline(self._reactor, self._quick_s)
        if self.writer is not None:
            self.retention.start()

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

    @property
    def waiting_reads(self) -> dict[str, int]:
        """How many reads wait for a thread, by lane."""
        return self._readers.waiting if self._readers is not None else {}

    def read(self, work: Callable[[Reader], T], lane: str = LISTS) -> Deferred[T]:
        """
        Run ``work`` with a reader in a thread of this lane; fire with its result.

        Fails with Unavailable, TooSlow, or with what ``work`` raised.  Cancelled, it is
        interrupted.
        """
        if not self._is_open:
            return fail(Unavailable("the database is not open"))
        if self._readers is None:
            return execute(self._read_here, work)
        return self._readers.submit(lane, work)

    def answers(self) -> Deferred[None]:
        """Fire once the database has answered; fails with Unavailable if it does not."""
        return maybeDeferred(
            self.near, _ANSWER, lambda reader, _: reader.rows(_ANSWER, {}), small=True
        ).addCallback(lambda _: None)

    def near(
        self,
        shape: Any,
        work: Callable[[Reader, bool], T],
        *,
        small: bool = False,
        all_of_it: tuple[Compiled, Params] | None = None,
    ) -> T | Deferred[T]:
        """
        Run ``work`` as near as it can be: on this thread, in the quick lane, or with the lists.

        work: gets a reader, and whether it has to be quick; if it finds then that there is more to
        read than a little, it raises TooLarge, and is called again elsewhere.
        shape: as for ``inline``.  small: it is known to be little.  all_of_it: the one statement
        that it runs, if it does no more: a server may be asked that by this thread.
        """
        try:
            return self.inline(shape, lambda reader: work(reader, True))
        except TooLarge:
            pass
        if self._readers is None or not small or self._inline is not None or self._in_exile(shape):
            return self.read(lambda reader: work(reader, False))
        asked = None
        if self._pipeline is not None and all_of_it is not None:
            asked = self._pipeline.ask(*all_of_it)
        if asked is None:
            return self._quickly(shape, work)
        return asked.addCallback(self._answered, shape, work)

    def _answered(
        self, rows: Rows | None, shape: Any, work: Callable[[Reader, bool], T]
    ) -> T | Deferred[T]:
        if rows is None:
            return self._quickly(shape, work)
        return work(Answered(rows, self.connector), True)

    def _quickly(self, shape: Any, work: Callable[[Reader, bool], T]) -> Deferred[T]:
        quick = self.read(lambda reader: work(reader, True), QUICK)
        return quick.addErrback(self._not_quick, shape, work)

    def _not_quick(
        self, failure: Failure, shape: Any, work: Callable[[Reader, bool], T]
    ) -> Deferred[T]:
        failure.trap(TooLarge)
        self._exile(shape)
        return self.read(lambda reader: work(reader, False))

    def inline(self, shape: Any, work: Callable[[Reader], T]) -> T:
        """
        Run ``work`` here and now on the reactor thread, or raise TooLarge.

        shape: what the read looks like without its values; one that exceeded the budget goes
        to the pool for some seconds.
        """
        reader = self._inline
        if reader is None or (self._exiled and self._in_exile(shape)):
            raise TooLarge
        self._asked_at = None
        try:
            return work(reader)
        except Exception as error:
            self._end_snapshot(reader, error)
            # Interrupted by the budget, or a lock that nobody may wait for here; if it is something
            # else that the database has against it, the pool finds out.
            if isinstance(error, (TooLarge, self.connector.Error)):
                self._exile(shape)
                raise TooLarge from error
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
        self.retention.stop()
        # Reads first: a long text on its way into a log is cut in the pool, then written.
        if self._pipeline is not None:
            await self._pipeline.stop()
        if self._readers is not None:
            await self._readers.stop()
        self._close_inline()
        # The last connection to be closed tidies up the WAL: not on the reactor thread.
        if self.writer is not None:
            await self.writer.stop()
        self.connector.forget()
        self.connector.unlock()

    def _give_up(self, _: object) -> None:
        if self._pipeline is not None:
            self._pipeline.give_up()
        if self._readers is not None:
            self._readers.give_up()
        if self.writer is not None:
            self.writer.give_up()

    def _close_inline(self) -> None:
        for reader in (self._inline, self._here):
            if reader is not None:
                self.connector.close(reader.connection)
        self._inline = self._here = None

    def _read_here(self, work: Callable[[Reader], T]) -> T:
        assert self._here is not None  # noqa: S101  without threads there is one
        try:
            return work(self._here)
        except self.connector.Error as error:
            self._end_snapshot(self._here, error)
            raise self.connector.explained(error) from error

    def _spent(self) -> bool:
        # Not by the clock: a machine that is busy makes no read large.  Nor by instructions: a
        # search in long texts takes few of them.
        now = thread_time()
        if self._asked_at is not None and now - self._asked_at <= INLINE_S:
            return False
        # Nor does a collection of garbage, which may happen at any time and takes longer than that.
        collected = gc.get_stats()[-1]["collections"]
        if self._asked_at is None or collected != self._collected:
            self._asked_at, self._collected = now, collected
            return False
        return True

    def _end_snapshot(self, reader: Reader, error: Exception) -> None:
        """End what would make every later read on this connection show the past."""
        # A cursor that is still open in a frame of the traceback holds its snapshot.
        clear_frames(error.__traceback__)
        # The budget may have interrupted the very COMMIT that ends one.
        self._asked_at = None
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
