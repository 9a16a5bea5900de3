"""
The one writer: a thread and a bounded queue before group commit.

It takes everything that is queued as one batch, has it committed, and hands the events and then the
results to the reactor. One writer makes commit order equal publish order, and "next number"
race-free.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from queue import Empty, SimpleQueue
from threading import Thread
from typing import Any, TypeVar

from twisted.internet.defer import Deferred, fail, succeed
from twisted.logger import Logger

from buildapi.db.groupcommit import Body, Committed, GroupCommit, Job
from buildapi.errors import QueueFull, Stopping
from buildapi.histogram import Histogram

T = TypeVar("T")

MOST_BODIES_PER_BATCH = 500


class Writer:
    """
    Runs bodies, a batch at a time.

    deliver: called on the reactor thread with each ``Committed``, before its Deferreds fire.
    from_thread: runs a callable on the reactor thread; None makes everything run at once in the
    caller's thread, as one connection in memory needs.  max_queued: bodies that may wait.
    """

    _log = Logger()

    def __init__(
        self,
        commits: GroupCommit,
        deliver: Callable[[Committed], None],
        from_thread: Callable[..., object] | None,
        max_queued: int,
    ) -> None:
        self._commits = commits
        self._deliver = deliver
        self._threaded = from_thread is not None
        self._from_thread = from_thread or _at_once
        self._max_queued = max_queued
        self._queue: SimpleQueue[list[Job] | None] = SimpleQueue()
        # Jobs that came while results were delivered: they go to the writer together.
        self._fresh: list[Job] | None = None
        self._waiting = 0
        self._room: deque[Deferred[None]] = deque()
        self._stopping = False
        self._stopped: Deferred[None] = Deferred()
        self._thread: Thread | None = None
        self._working_here = False

    @property
    def seq(self) -> int:
        """The position of the newest event that is committed."""
        return self._commits.seq

    @property
    def waiting(self) -> int:
        """How many bodies were taken and are not settled."""
        return self._waiting

    @property
    def durations(self) -> Histogram:
        """How long transactions took until they were durable, in seconds."""
        return self._commits.durations

    @property
    def sizes(self) -> Histogram:
        """How many bodies were committed together."""
        return self._commits.sizes

    def start(self) -> None:
        """Open the connection and begin."""
        self._commits.open()
        if self._threaded:
            self._thread = Thread(target=self._work, name="buildapi-writer", daemon=True)
            self._thread.start()

    def submit(self, body: Body[T]) -> Deferred[T]:
        """
        Queue ``body``; fire with what it returns once it is durably committed.

        Fails with QueueFull when too many wait (``room`` tells when to come again), with Stopping
        after ``stop``, with Unavailable when the database does not take it, or as the body did.
        Cancelled, the Deferred fails at once, but the body is run all the same.
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
        if self._fresh is not None:
            self._fresh.append(job)
        else:
            self._queue.put([job])
            self._work_here()
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
            if self._fresh:
                # They were accepted: before the end, not after it.
                self._queue.put(self._fresh)
                self._fresh = []
            self._queue.put(None)
            self._work_here()
        return self._stopped

    def give_up(self) -> None:
        """Fail what waits with Stopping, and try nothing again."""
        self._commits.give_up()

    def _delivered(self, committed: Committed | None, jobs: list[Job]) -> None:
        """Hand over the events and the results of a batch, on the reactor thread."""
        self._waiting -= len(jobs)
        # Who hears of a result often writes again at once: handed over one by one, the first of
        # them would make a batch of its own, and every second commit be one for a single job.
        self._fresh = []
        try:
            self._deliver_all(committed, jobs)
        finally:
            fresh, self._fresh = self._fresh, None
            if fresh:
                self._queue.put(fresh)
                self._work_here()

    def _deliver_all(self, committed: Committed | None, jobs: list[Job]) -> None:
        if committed is not None:
            try:
                self._deliver(committed)
            except Exception:  # noqa: BLE001  it is durable, and who wrote it must hear so
                self._log.failure("a committed batch could not be delivered")
        for job in jobs:
            job.done.callback(job.result)  # a Failure makes it an errback
        self._make_room()

    def _make_room(self) -> None:
        while self._room and self._waiting <= self._max_queued // 2:
            self._room.popleft().callback(None)

    def _work_here(self) -> None:
        """Work in the caller's thread where there is no other, but not inside its own work."""
        unstarted = self._threaded and not self._stopping
        if self._thread is not None or self._working_here or unstarted:
            return
        self._working_here = True
        try:
            while not self._queue.empty():
                self._turn()
        finally:
            self._working_here = False

    def _work(self) -> None:
        while self._turn():
            pass

    def _turn(self) -> bool:
        """Do what is queued; say whether to go on."""
        jobs, going = self._next_batch()
        if jobs:
            for committed, settled in self._commits.settled(jobs):
                self._from_thread(self._delivered, committed, settled)
        if not going:
            self._commits.close()
            self._from_thread(self._stopped.callback, None)
        return going

    def _next_batch(self) -> tuple[list[Job], bool]:
        """Wait for a job; return it with all that came meanwhile, and whether more may come."""
        some = self._queue.get()
        jobs: list[Job] = []
        while some is not None:
            jobs += some
            if len(jobs) >= MOST_BODIES_PER_BATCH:
                return jobs, True
            try:
                some = self._queue.get_nowait()
            except Empty:
                return jobs, True
        return jobs, False


def _at_once(function: Callable[..., object], *arguments: Any) -> None:
    function(*arguments)
