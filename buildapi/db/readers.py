"""
The threads that make all reads but the small ones, in lanes.

A read waits for others of its lane only: who reads one object never stands behind a long list, nor
behind the download of a log.  Each thread has a connection of its own.  They are daemons: a query
that does not end keeps no process from ending.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from queue import SimpleQueue
from threading import Condition, Thread
from time import monotonic
from traceback import clear_frames
from typing import Any, TypeVar

from twisted.internet.defer import Deferred
from twisted.python.failure import Failure

from buildapi.db.connect import Connector, Read, Reader, sentence
from buildapi.db.contact import Contact
from buildapi.errors import Stopping

T = TypeVar("T")


@dataclass(frozen=True)
class Lane:
    """
    Reads of one kind.

    threads: how many are made at once.  limit_s: how long one may take.  too_slow: the error of
    those that take longer.
    """

    name: str
    threads: int
    limit_s: float
    too_slow: Callable[[], Exception]


class Reading:
    """A read that waits for its thread, or runs there.  Cancel ``done`` and it is given up."""

    def __init__(self, work: Read) -> None:
        self.work = work
        self.given_up = False
        self.thread: ReaderThread | None = None
        self.done: Deferred[Any] = Deferred(self._cancel)

    def _cancel(self, _: object) -> None:
        self.given_up = True
        if self.thread is not None:
            self.thread.interrupt(self)

    def settle(self, result: Any) -> None:
        """Hand over what was read; a Failure makes the callback an errback."""
        if not self.given_up:
            self.done.callback(result)


class Readers:
    """
    Makes reads in threads.

    from_thread: runs a callable on the reactor thread.  contact: is told whether reads succeed.
    """

    def __init__(
        self,
        connector: Connector,
        from_thread: Callable[..., object],
        lanes: Iterable[Lane],
        contact: Contact,
    ) -> None:
        self.connector = connector
        self.from_thread = from_thread
        self.contact = contact
        self.given_up = False
        self._queues: dict[str, SimpleQueue[Reading | None]] = {}
        self._threads: list[ReaderThread] = []
        for lane in lanes:
            queue = self._queues[lane.name] = SimpleQueue()
            self._threads += [ReaderThread(self, lane, queue, n) for n in range(lane.threads)]
        self._running = 0
        self._stopped: Deferred[None] = Deferred()

    def start(self) -> None:
        """Begin; connections are opened when they are first needed."""
        for thread in self._threads:
            thread.start()
            self._running += 1

    def submit(self, lane: str, work: Callable[[Reader], T]) -> Deferred[T]:
        """
        Run ``work`` with a reader; fire with its result.

        Cancelled, the query is interrupted: who went away costs nothing more.
        """
        reading = Reading(work)
        self._queues[lane].put(reading)
        return reading.done

    @property
    def waiting(self) -> dict[str, int]:
        """How many reads no thread has begun with, by lane."""
        return {name: queue.qsize() for name, queue in self._queues.items()}

    def stop(self) -> Deferred[None]:
        """Make the reads that were asked for, close every connection; fire then."""
        for queue in self._queues.values():
            queue.put(None)
        if self._running == 0:
            self._stopped.callback(None)
        return self._stopped

    def give_up(self) -> None:
        """Interrupt what is being read; what waits fails with Stopping."""
        self.given_up = True
        for thread in self._threads:
            thread.interrupt(None)

    def ended(self) -> None:
        """Take note that a thread has ended."""
        self._running -= 1
        if self._running == 0:
            self._stopped.callback(None)


class ReaderThread(Thread):
    """One of the threads, with its connection."""

    def __init__(
        self, pool: Readers, lane: Lane, queue: SimpleQueue[Reading | None], number: int
    ) -> None:
        super().__init__(name=f"buildapi-{lane.name}-{number}", daemon=True)
        self._pool = pool
        self._lane = lane
        self._queue = queue
        self._connector = pool.connector
        self._reader: Reader | None = None
        self._reading: Reading | None = None
        self._until = 0.0
        # Held while the reading changes, and while it is interrupted: not the next one by mistake.
        self._switch = Condition()

    def run(self) -> None:
        """Read until there is nothing more to read."""
        pool = self._pool
        while (reading := self._queue.get()) is not None:
            self._begin(reading)
            result = self._result(reading.work)
            with self._switch:
                self._reading = reading.thread = None
                self._switch.notify_all()
            pool.from_thread(reading.settle, result)
            # What was read must not be kept until the next read.
            del reading, result
        # For the next thread.
        self._queue.put(None)
        self._close()
        pool.from_thread(pool.ended)

    def interrupt(self, reading: Reading | None) -> None:
        """
        Stop the query of this reading, or whatever is being read (None); from the reactor thread.

        An embedded database asks for itself whether to go on. A server has to be told, which may
        take time: by a thread for that alone.
        """
        if not self._connector.EMBEDDED:
            Thread(target=self._interrupt, args=[reading], daemon=True).start()

    def _interrupt(self, reading: Reading | None) -> None:
        with self._switch:
            wanted = self._reading if reading is None else reading
            # Again and again: the server forgets it if the query has not reached it yet.
            while wanted is not None and wanted is self._reading:
                if self._reader is not None:
                    with contextlib.suppress(Exception):
                        self._connector.interrupt(self._reader.connection)
                self._switch.wait(AGAIN_S)

    def _begin(self, reading: Reading) -> None:
        with self._switch:
            self._reading, reading.thread = reading, self
        self._until = monotonic() + self._lane.limit_s

    def _result(self, work: Read) -> Any:
        try:
            result = self._read(work)
        except BaseException as error:  # noqa: BLE001  whatever it is belongs to who asked
            if self._connector.is_lost(error):
                self._pool.contact.lost(sentence(error))
            slow = self._connector.is_interrupted(error) and not self._given_up()
            self._end_snapshot(error)
            return Failure(self._lane.too_slow() if slow else self._connector.explained(error))
        self._pool.contact.found()
        return result

    def _read(self, work: Read) -> Any:
        if self._given_up():
            raise Stopping("the service is being stopped; it reads no more")
        try:
            return work(self._connected())
        except Exception as error:
            if not self._may_work_now(error):
                raise
        return work(self._connected())

    def _may_work_now(self, error: Exception) -> bool:
        """Mend what can be mended; say whether to try once more."""
        if self._connector.is_undecodable(error):
            assert self._reader is not None  # noqa: S101  it read what it could not decode
            self._connector.read_leniently(self._reader.connection)
            return True
        if self._connector.is_lost(error):
            # The server was started again, perhaps, since the last read.
            self._close()
            return True
        # Interrupted before its time: that was meant for the reading before.
        early = self._connector.is_interrupted(error) and monotonic() < self._until - MARGIN_S
        return early and not self._given_up()

    def _connected(self) -> Reader:
        if self._reader is None:
            self._reader = self._connector.reader(self._stop_now, self._lane.limit_s, patient=True)
        return self._reader

    def _end_snapshot(self, error: BaseException) -> None:
        """End what would make every later read on this connection show the past."""
        # A cursor that is still open in a frame of the traceback holds its snapshot.
        clear_frames(error.__traceback__)
        if self._reader is None:
            return
        lost = self._connector.is_lost(error)
        if lost or self._connector.in_transaction(self._reader.connection):
            self._close()

    def _stop_now(self) -> bool:
        return monotonic() > self._until or self._given_up()

    def _given_up(self) -> bool:
        return self._pool.given_up or (self._reading is not None and self._reading.given_up)

    def _close(self) -> None:
        reader, self._reader = self._reader, None
        if reader is not None:
            self._connector.close(reader.connection)


# By how much a server may be early when it stops a query that takes too long.
MARGIN_S = 0.02
# When a query that was to be stopped, and was not, is to be stopped once more.
AGAIN_S = 0.1
