"""
What all who follow one log share: one look at its end, and what is made of it, for all of them.

A hub hears of its log as long as somebody follows it. Who has read all that there is waits at the
hub; it looks again when lines have come, and hands what it finds to all who wait. Who is behind, or
slow, reads for himself until he has come to the end: nobody is waited for, and nothing is kept.

The first line after a pause is looked for at once; while more come they are gathered for some
milliseconds. A flag tells that there are some, not a queue: however many, one look is enough.
When a thousand wait they are told in slices, and of much that has come part by part; between these
the reactor does other work.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any, Protocol

from twisted.internet.defer import Deferred, succeed
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.python.failure import Failure

from buildapi.data.api import DataAPI
from buildapi.data.gate import Scope
from buildapi.data.loglines import Growth, Place, Selection, growth, scope
from buildapi.db.connect import Reader
from buildapi.db.engine import LOGS, TooLarge
from buildapi.errors import Stopping, Unavailable
from buildapi.mq.bus import Bus
from buildapi.mq.event import Event
from buildapi.settings import Limits

# The more have to be told, the longer lines are gathered: for so many, twice as long.
FOLLOWERS_TO_DOUBLE = 100
MOST_GATHERED_S = 0.05
# So many are told in one turn of the reactor: that takes about a millisecond.
TOLD_AT_ONCE = 100


class Member(Protocol):
    """Somebody who waits at a hub.  place: how far he has come."""

    place: Place | None

    def take(self, found: Growth) -> bool:
        """Take what has come; say whether to wait on."""

    def release(self, result: Failure | None) -> None:
        """Wait no more: look for yourself, or fail."""


class Hubs:
    """
    The hubs of all followed logs.

    clock: gives the time.
    """

    def __init__(self, data: DataAPI, bus: Bus, clock: IReactorTime, limits: Limits) -> None:
        self.data = data
        self.bus = bus
        self.clock = clock
        self.limits = limits
        self.followers = 0
        self._open: dict[tuple[int, Selection], Hub] = {}
        self._to_stop: set[Callable[[], None]] = set()
        self._closed = False

    def admit(self, stop: Callable[[], None]) -> None:
        """
        Take in one more follower, who is told to ``stop`` when the server does.

        Raises Unavailable if there are too many, Stopping.
        """
        if self._closed:
            raise Stopping("the service is being stopped; logs are followed no more")
        if self.followers >= self.limits.followers:
            most = self.limits.followers
            raise Unavailable(f"{most} followers of logs are here already; come again later")
        self.followers += 1
        self._to_stop.add(stop)

    def dismiss(self, stop: Callable[[], None]) -> None:
        """Take note that a follower has gone."""
        if stop in self._to_stop:
            self._to_stop.discard(stop)
            self.followers -= 1

    def enter(self, logid: int, wanted: Selection) -> Hub:
        """Return the hub of a log, for one more, who leaves it by ``leave``."""
        key = (logid, wanted)
        hub = self._open.get(key)
        if hub is None:
            hub = self._open[key] = Hub(self, logid, wanted)
        hub.users += 1
        return hub

    def leave(self, hub: Hub) -> None:
        """Leave a hub; the last one closes it."""
        hub.users -= 1
        if hub.users == 0:
            hub.close()
            del self._open[hub.logid, hub.wanted]

    def close(self) -> None:
        """Stop all followers, and take no more."""
        self._closed = True
        for stop in list(self._to_stop):
            stop()


class Hub:
    """
    Where those wait who follow one log, and want the same of it.

    heard: how often something has happened.  users: how many follow it, waiting or not.
    """

    def __init__(self, hubs: Hubs, logid: int, wanted: Selection) -> None:
        self.logid = logid
        self.wanted = wanted
        self.heard = 0
        self.users = 0
        self.scope: Scope | None = None
        self._hubs = hubs
        self._place = Place(0, 0)
        self._total = 0
        # In the order in which they came.
        self._waiting: dict[Member, None] = {}
        self._looking: Deferred[Any] | None = None
        self._looking_from = self._place
        self._telling: IDelayedCall | None = None
        # From a look until all have been told of what it found.
        self._busy = False
        self._again = False
        self._looked_at = float("-inf")
        self._timer: IDelayedCall | None = None
        self._listener = hubs.bus.listen(f"build.*.step.*.log.{logid}.*", self._hear)

    def read(self, place: Place | None, offset: int, *, small: bool) -> Growth | Deferred[Growth]:
        """
        Read what comes next.

        small: there is little to read, so there is no need for a thread; but to search takes time.
        """
        logid, wanted = self.logid, self.wanted
        limits, database = self._hubs.limits, self._hubs.data.database

        def read(reader: Reader) -> Growth:
            most, longest = limits.follow_frame_bytes, limits.follow_line_bytes
            return growth(reader, logid, place, offset, wanted, most, longest)

        if small and wanted.is_all:
            try:
                return database.inline("log growth", read)
            except TooLarge:
                pass
        return database.read(read, LOGS)

    async def belongs_to(self) -> Scope:
        """Return what the log belongs to, by which rights are decided; or raise NoSuchResource."""
        if self.scope is None:
            database = self._hubs.data.database
            self.scope = await database.read(lambda reader: scope(reader, self.logid), LOGS)
        return self.scope

    def wait(self, member: Member, found: Growth, heard: int) -> bool:
        """
        Let somebody wait who has read everything; False if there is more to read by now.

        found: what he read.  heard: what ``heard`` was before.
        """
        place = member.place
        assert place is not None  # noqa: S101  he has read
        if self._looking is not None and not _reaches(place, self._looking_from):
            # What is being read begins behind what he has: the lines between would be lost.
            return False
        if not self._waiting:
            self._place = place
        elif found.total < self._total:
            return False
        elif place.seen < self._place.seen:
            # The others wait for lines that are yet to come.
            self._place = replace(place, told=min(place.told, self._place.told))
        elif place.told < self._place.told:
            # With a context: some lines that he may still want the others don't.
            self._place = replace(self._place, told=place.told)
        self._total = found.total
        self._waiting[member] = None
        if heard != self.heard:
            self._look_soon()
        return True

    def forget(self, member: Member) -> None:
        """Take note that somebody waits no more."""
        self._waiting.pop(member, None)

    def close(self) -> None:
        """Hear no more."""
        self._listener.close()
        self._cancel_timer()
        if self._looking is not None:
            self._looking.cancel()
        if self._telling is not None:
            self._telling.cancel()

    def _hear(self, event: Event) -> None:
        self.heard += 1
        if not self._waiting:
            return
        # The events of a batch come one after the other, and one look has found all of them.
        if not event.topic.endswith(".append"):
            self._look_soon(at_once=True)
        elif event.message["num_lines"] > self._place.seen:
            self._look_soon()

    def _look_soon(self, *, at_once: bool = False) -> None:
        if self._busy:
            self._again = True
            return
        gathered_s = 0.0 if at_once else self._gathered_s()
        wait_s = self._looked_at + gathered_s - self._now()
        # Who waits longer has a clock that was set back.
        if not 0 < wait_s <= 2 * gathered_s:
            self._look()
        elif self._timer is None:
            self._timer = self._hubs.clock.callLater(wait_s, self._look_now)

    def _gathered_s(self) -> float:
        least_s = self._hubs.limits.follow_gather_ms / 1000
        longer_s = least_s * (1 + len(self._waiting) / FOLLOWERS_TO_DOUBLE)
        return max(least_s, min(MOST_GATHERED_S, longer_s))

    def _now(self) -> float:
        return self._hubs.clock.seconds()

    def _look_now(self) -> None:
        self._timer = None
        if self._waiting:
            self._look_soon(at_once=True)

    def _cancel_timer(self) -> None:
        timer, self._timer = self._timer, None
        if timer is not None:
            timer.cancel()

    def _look(self) -> None:
        self._cancel_timer()
        self._busy = True
        self._again = False
        self._looked_at = self._now()
        try:
            found = self.read(self._place, 0, small=True)
        except Exception:  # noqa: BLE001  whatever it is, those who wait get it
            self._failed(Failure())
            return
        if not isinstance(found, Deferred):
            self._found(found)
            return
        self._looking, self._looking_from = found, self._place
        found.addCallbacks(self._found, self._failed)
        # Not an error of those two, which nobody would hear of.
        found.addErrback(self._failed)

    def _found(self, found: Growth) -> None:
        self._looking = None
        self._place = found.place
        self._total = found.total
        self._tell(found, list(self._waiting))

    def _tell(self, found: Growth, members: list[Member]) -> None:
        """Tell these, who may have left, some now and the others in the next turns."""
        self._telling = None
        try:
            for member in members[:TOLD_AT_ONCE]:
                if member in self._waiting and not member.take(found):
                    self.forget(member)
        except Exception:  # noqa: BLE001  whatever it is, those who wait get it
            self._failed(Failure())
            return
        rest = members[TOLD_AT_ONCE:]
        if rest and self._waiting:
            self._telling = self._hubs.clock.callLater(0, self._tell, found, rest)
        else:
            self._told(found)

    def _told(self, found: Growth) -> None:
        if self._waiting and not found.at_end:
            # Not here: others have their turn, however much there is to be told.
            self._telling = self._hubs.clock.callLater(0, self._look_on)
            return
        self._busy = False
        if self._waiting and self._again:
            self._look_soon()

    def _look_on(self) -> None:
        self._telling = None
        self._busy = False
        if self._waiting:
            self._look()

    def _failed(self, failure: Failure) -> None:
        self._looking = None
        self._busy = False
        waiting, self._waiting = self._waiting, {}
        for member in waiting:
            member.release(failure)


def _reaches(place: Place, other: Place) -> bool:
    """Say whether somebody at this place lacks nothing of what is before the other one."""
    return place.seen >= other.seen and place.told >= other.told


def ready(value: Growth | Deferred[Growth]) -> Deferred[Growth]:
    """Return something to await."""
    return value if isinstance(value, Deferred) else succeed(value)
