"""
Append to logs and change builds inside a build master, when told so from outside.

The update methods have the same names in buildapi and in Buildbot, so this module runs in both. It
therefore imports nothing but Twisted and its neighbour ``figures``.

Orders are lines of JSON over TCP; each is answered by one line:

    {"order": "append", "buildids": [...], "appends": 10000, "most_s": 20}
        One log in each build; each build appends one line after the other, all builds at once.
        -> {"appends", "seconds", "p50_ms", "p99_ms", "logs": {logid: lines appended}}
    {"order": "open", "buildid": 7}
        -> {"logid"}: a new log
    {"order": "pace", "logid": 60, "per_second": 500, "seconds": 4}
        Appends evenly, each line stamped with the time of its append, then finishes the log.
        -> {"appends", "seconds"}
    {"order": "tell", "buildid": 7, "events": 4000, "per_second": 1000}
        Gives the build new state strings, each stamped; all at once if per_second is 0.
        -> {"events", "seconds"}
    {"order": "property", "buildid": 7, "events": 1000, "size": 10000}
        Sets a property of the build again and again, to texts of that size.
        -> {}
    {"order": "cost"}
        -> {"cpu_s", "rss_bytes", "peak_bytes"}: what this process has used, uses, and had at most
"""

from __future__ import annotations

import json
import resource
import time
from pathlib import Path
from typing import Any

from twisted.internet.defer import Deferred, DeferredQueue, ensureDeferred, gatherResults
from twisted.internet.protocol import Factory
from twisted.internet.task import LoopingCall
from twisted.protocols.basic import LineReceiver

from benchmarks.figures import percentile

STDOUT = "o"
FILLER = "gcc -O2 -c src/part/file.c -o build/file.o"


def line(producer: int, number: int) -> str:
    """The line that a producer appends as its ``number``-th, without the newline."""
    return f"{STDOUT}{producer} {number} {FILLER}"


def stamped(number: int) -> str:
    """A line that carries the moment it was made, on the clock that all processes share."""
    return f"{STDOUT}{number} {time.monotonic_ns()} {FILLER}"


def stamp(text: str) -> tuple[int, int]:
    """The number of a stamped line, and its moment in nanoseconds."""
    number, moment, _ = text[len(STDOUT) :].split(" ", 2)
    return int(number), int(moment)


def resident_bytes() -> int:
    """The memory that this process has now."""
    pages = Path("/proc/self/statm").read_text().split()[1]
    return int(pages) * resource.getpagesize()


class Orders(LineReceiver):
    """Carries out the orders that come in on one connection."""

    delimiter = b"\n"

    def lineReceived(self, data: bytes) -> None:
        """Carry out one order and answer it."""
        order = json.loads(data)
        method = getattr(self, f"order_{order.pop('order')}")
        done = Deferred.fromCoroutine(method(**order))
        done.addErrback(lambda failure: {"error": failure.getTraceback()})
        done.addCallback(self._answer)

    def _answer(self, answer: dict[str, Any]) -> None:
        self.sendLine(json.dumps(answer).encode())

    async def order_append(
        self, buildids: list[int], appends: int, most_s: float
    ) -> dict[str, Any]:
        """Append as fast as the commits allow."""
        logids = [await self._new_log(buildid) for buildid in buildids]
        took: list[float] = []
        started = time.monotonic()
        stored = await gatherResults(
            [
                Deferred.fromCoroutine(
                    self._produce(producer, logid, appends // len(logids), started + most_s, took)
                )
                for producer, logid in enumerate(logids)
            ],
            consumeErrors=True,
        )
        seconds = time.monotonic() - started
        for logid in logids:
            await self._updates.finishLog(logid)
        return {
            "appends": sum(stored),
            "seconds": seconds,
            "p50_ms": percentile(took, 0.5) * 1000,
            "p99_ms": percentile(took, 0.99) * 1000,
            "logs": dict(zip(logids, stored, strict=True)),
        }

    async def order_open(self, buildid: int) -> dict[str, Any]:
        """Make a new log."""
        return {"logid": await self._new_log(buildid)}

    async def order_pace(self, logid: int, per_second: int, seconds: float) -> dict[str, Any]:
        """
        Append at an even rate.

        What has come due waits its turn with its stamp on it: a slow master can't hide its delay.
        """
        due: DeferredQueue[str] = DeferredQueue()
        wanted = int(per_second * seconds)
        made = 0

        def come_due(times: int) -> None:
            nonlocal made
            for _ in range(min(times, wanted - made)):
                due.put(stamped(made))
                made += 1

        started = time.monotonic()
        clock = LoopingCall.withCount(come_due)
        clock.start(1 / per_second).addErrback(lambda failure: failure.printTraceback())
        for _ in range(wanted):
            await self._updates.appendLog(logid, await due.get() + "\n")
        clock.stop()
        took = time.monotonic() - started
        await self._updates.finishLog(logid)
        return {"appends": wanted, "seconds": took}

    async def order_tell(self, buildid: int, events: int, per_second: float) -> dict[str, Any]:
        """Publish events; one does not wait for the other."""
        started = time.monotonic()
        changes: list[Any] = []
        done: Deferred[None] = Deferred()

        def come_due(times: int) -> None:
            for _ in range(min(times, events - len(changes))):
                text = stamped(len(changes))[len(STDOUT) :]
                change = self._updates.setBuildStateString(buildid, text)
                changes.append(ensureDeferred(change))
            if len(changes) == events and not done.called:
                done.callback(None)

        if per_second:
            clock = LoopingCall.withCount(come_due)
            clock.start(1 / per_second).addErrback(done.errback)
            await done
            clock.stop()
        else:
            come_due(events)
        await gatherResults(changes, consumeErrors=True)
        return {"events": events, "seconds": time.monotonic() - started}

    async def order_property(self, buildid: int, events: int, size: int) -> dict[str, Any]:
        """Publish big events, one after the other."""
        for number in range(events):
            value = f"{number} ".ljust(size, ".")
            await self._updates.setBuildProperty(buildid, "bench", value, "bench")
        return {}

    async def order_cost(self) -> dict[str, Any]:
        """Say what this process costs."""
        peak_kib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return {
            "cpu_s": time.process_time(),
            "rss_bytes": resident_bytes(),
            "peak_bytes": peak_kib * 1024,
        }

    async def _new_log(self, buildid: int) -> int:
        stepid, _, _ = await self._updates.addStep(buildid, "bench")
        await self._updates.startStep(stepid)
        logid: int = await self._updates.addLog(stepid, "stdio", "s")
        return logid

    async def _produce(
        self, producer: int, logid: int, lines: int, until: float, took: list[float]
    ) -> int:
        for number in range(lines):
            began = time.monotonic()
            if began > until:
                return number
            await self._updates.appendLog(logid, line(producer, number) + "\n")
            took.append(time.monotonic() - began)
        return lines

    @property
    def _updates(self) -> Any:
        return self.factory.updates


class OrderFactory(Factory):
    """Takes orders for the update methods of one master."""

    protocol = Orders
    noisy = False

    def __init__(self, updates: Any) -> None:
        self.updates = updates
