"""
The pool of threads that make all reads but the small ones.

Each has a connection of its own. They are daemons: a query that does not end keeps no process from
ending.
"""

from __future__ import annotations

from collections.abc import Callable
from queue import SimpleQueue
from threading import Thread
from traceback import clear_frames
from typing import Any, TypeVar

from twisted.internet.defer import Deferred
from twisted.python.failure import Failure

from buildapi.db.connect import Read, Reader, SQLite, read_leniently
from buildapi.errors import Stopping

T = TypeVar("T")

# How often a query asks whether it is still wanted: every ten milliseconds or so.
STEPS_PER_TICK = 1_000_000


class Reading:
    """A read that waits for its thread, or runs there.  Cancel ``done`` and it is given up."""

    def __init__(self, work: Read) -> None:
        self.work = work
        self.given_up = False
        self.done: Deferred[Any] = Deferred(self._cancel)

    def _cancel(self, _: object) -> None:
        self.given_up = True

    def settle(self, result: Any) -> None:
        """Hand over what was read; a Failure makes the callback an errback."""
        if not self.given_up:
            self.done.callback(result)


class Readers:
    """
    Makes reads in threads.

    from_thread: runs a callable on the reactor thread.
    """

    def __init__(self, connector: SQLite, from_thread: Callable[..., object], threads: int) -> None:
        self.connector = connector
        self.from_thread = from_thread
        self.queue: SimpleQueue[Reading | None] = SimpleQueue()
        self.given_up = False
        self._threads = [ReaderThread(self, number) for number in range(threads)]
        self._running = 0
        self._stopped: Deferred[None] = Deferred()

    def start(self) -> None:
        """Begin; connections are opened when they are first needed."""
        for thread in self._threads:
            thread.start()
            self._running += 1

    def submit(self, work: Callable[[Reader], T]) -> Deferred[T]:
        """
        Run ``work`` with a reader; fire with its result.

        Cancelled, the query is interrupted: who went away costs nothing more.
        """
        reading = Reading(work)
        self.queue.put(reading)
        return reading.done

    def stop(self) -> Deferred[None]:
        """Make the reads that were asked for, close every connection; fire then."""
        self.queue.put(None)
        if self._running == 0:
            self._stopped.callback(None)
        return self._stopped

    def give_up(self) -> None:
        """Interrupt what is being read; what waits fails with Stopping."""
        self.given_up = True

    def ended(self) -> None:
        """Take note that a thread has ended."""
        self._running -= 1
        if self._running == 0:
            self._stopped.callback(None)


class ReaderThread(Thread):
    """One of the threads, with its connection."""

    def __init__(self, pool: Readers, number: int) -> None:
        super().__init__(name=f"buildapi-reader-{number}", daemon=True)
        self._pool = pool
        self._connector = pool.connector
        self._reader: Reader | None = None
        self._reading: Reading | None = None

    def run(self) -> None:
        """Read until there is nothing more to read."""
        pool = self._pool
        while (reading := pool.queue.get()) is not None:
            self._reading = reading
            pool.from_thread(reading.settle, self._result(reading))
            # What was read must not be kept until the next read.
            self._reading = reading = None
        # For the next thread.
        pool.queue.put(None)
        self._close()
        pool.from_thread(pool.ended)

    def _result(self, reading: Reading) -> Any:
        try:
            return self._read(reading.work)
        except BaseException as error:  # noqa: BLE001  whatever it is belongs to who asked
            self._end_snapshot(error)
            return Failure(self._connector.explained(error))

    def _read(self, work: Read) -> Any:
        if self._given_up():
            raise Stopping("the service is being stopped; it reads no more")
        reader = self._connected()
        try:
            return work(reader)
        except Exception as error:
            if not self._connector.is_undecodable(error):
                raise
        read_leniently(reader.connection)
        return work(reader)

    def _connected(self) -> Reader:
        if self._reader is None:
            self._reader = self._connector.reader(
                patient=True, give_up=self._given_up, every=STEPS_PER_TICK
            )
        return self._reader

    def _end_snapshot(self, error: BaseException) -> None:
        """End what would make every later read on this connection show the past."""
        # A cursor that is still open in a frame of the traceback holds its snapshot.
        clear_frames(error.__traceback__)
        if self._reader is not None and self._connector.in_transaction(self._reader.connection):
            self._close()

    def _given_up(self) -> bool:
        return self._pool.given_up or (self._reading is not None and self._reading.given_up)

    def _close(self) -> None:
        reader, self._reader = self._reader, None
        if reader is not None:
            self._connector.close(reader.connection)
