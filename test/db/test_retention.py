"""What the event log forgets, and what it never forgets."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import pytest_twisted
from twisted.internet.defer import Deferred, fail, gatherResults
from twisted.internet.task import Clock

from buildapi.db import eventlog
from buildapi.db.connect import Reader
from buildapi.db.eventlog import Draft
from buildapi.db.groupcommit import Committed
from buildapi.db.retention import DAY_S, EVERY_S, SLICE, Retention, trim
from buildapi.db.tables import buildapi_events
from buildapi.errors import QueueFull
from buildapi.settings import Events, Settings
from buildapi.testing import NOON, in_memory_api, result_of

if TYPE_CHECKING:
    from buildapi.db.transaction import Tx
    from buildapi.service import BuildAPI
    from test.db.conftest import Opener

pytestmark = pytest.mark.usefixtures("system")


class Kit:
    """A log in memory, and the clock by which it forgets."""

    def __init__(self, events: Events) -> None:
        self.clock = Clock()
        self.clock.advance(NOON)
        self.api: BuildAPI = in_memory_api(Settings(events=events), master=None, clock=self.clock)

    def say(self, number: int) -> None:
        """Append so many events at this moment."""

        def body(tx: Tx) -> None:
            for _ in range(number):
                tx.say(Draft("builder.1.new", (), b"{}"))

        result_of(self.api.database.write(body))

    def seqs(self) -> list[int]:
        """Return the positions of the events that are still there."""

        def read(reader: Reader) -> list[int]:
            return [event.seq for event in eventlog.stored(reader, 0, 100_000)]

        found: list[int] = result_of(self.api.database.read(read))
        return found

    def oldest(self) -> int:
        """Return what the log says of its beginning."""
        found: int = result_of(self.api.database.read(eventlog.oldest))
        return found

    def minute(self) -> None:
        """Let a minute pass."""
        self.clock.advance(EVERY_S)


def test_events_are_forgotten_after_days() -> None:
    """Those that are older than keep_days go within a minute."""
    kit = Kit(Events(keep_days=2))
    kit.say(3)
    kit.clock.advance(1.5 * DAY_S)
    kit.say(2)
    kit.clock.advance(0.4 * DAY_S)
    assert kit.seqs() == [1, 2, 3, 4, 5]

    kit.clock.advance(0.2 * DAY_S)

    assert kit.seqs() == [4, 5]
    assert kit.oldest() == 4


def test_events_that_are_too_many_are_forgotten() -> None:
    """The newest keep_count stay."""
    kit = Kit(Events(keep_count=4))
    kit.say(10)
    kit.minute()

    assert kit.seqs() == [7, 8, 9, 10]


@pytest.mark.parametrize("events", [Events(keep_days=0), Events(keep_count=1)])
def test_the_newest_event_is_never_forgotten(events: Events) -> None:
    """Whatever the settings say: from it one sees how far the log has come."""
    kit = Kit(events)
    kit.say(5)
    kit.clock.advance(DAY_S)

    assert kit.seqs() == [5]
    kit.say(1)
    assert kit.seqs() == [5, 6]


def test_an_empty_log_begins_with_its_next_event() -> None:
    """Whoever asks from there misses nothing."""
    kit = Kit(Events())
    kit.minute()

    assert kit.oldest() == 1
    kit.say(2)
    assert kit.oldest() == 1


def test_many_are_forgotten_a_slice_at_a_time() -> None:
    """So other writes come in between; within one minute all slices are done."""
    kit = Kit(Events(keep_count=10))
    kit.say(SLICE + 500)
    batches: list[Committed] = []
    kit.api.database.writer._deliver = batches.append  # type: ignore[union-attr]
    kit.minute()

    assert kit.seqs() == list(range(SLICE + 491, SLICE + 501))
    assert sum("buildapi_events" in batch.touched for batch in batches) == 2


def test_only_a_beginning_goes() -> None:
    """The clock was set back once: what stands behind a younger event waits until that is old."""
    kit = Kit(Events(keep_days=2))
    kit.say(2)

    def set_back(tx: Tx) -> None:
        tx.connection.execute("UPDATE buildapi_events SET at = at + 86400 WHERE seq = 1")

    result_of(kit.api.database.write(set_back))
    kit.clock.advance(2.5 * DAY_S)
    assert kit.seqs() == [1, 2]

    kit.clock.advance(DAY_S)
    assert kit.seqs() == [2]


def test_what_fails_once_is_tried_a_minute_later() -> None:
    """A queue that is full, or a database that is away, ends nothing."""
    clock, tries = Clock(), []

    def write(body: object) -> object:
        tries.append(body)
        return fail(QueueFull("too many"))

    retention = Retention([lambda _: 0], write, clock)  # type: ignore[arg-type]
    retention.start()
    clock.advance(EVERY_S)
    clock.advance(EVERY_S)

    assert len(tries) == 2
    retention.stop()
    assert not clock.getDelayedCalls()


def test_a_stopped_service_trims_no_more() -> None:
    """Its clock has nothing left to do."""
    kit = Kit(Events())
    result_of(kit.api.stopService())

    assert not kit.clock.getDelayedCalls()


def test_a_slice_tells_how_many_it_took() -> None:
    """So one knows whether there are more."""
    kit = Kit(Events(keep_count=3))
    kit.say(5)

    def one(tx: Tx) -> int:
        return trim(tx, buildapi_events, DAY_S, 3, most=1)

    assert [result_of(kit.api.database.write(one)) for _ in range(3)] == [1, 1, 0]
    assert kit.seqs() == [3, 4, 5]


@pytest_twisted.ensureDeferred
async def test_a_log_is_trimmed_while_others_write_and_read(opening: Opener) -> None:
    """
    On every system: at no moment has what is left a hole, or another beginning than it says.
    """
    database = await opening(Events(keep_count=50))

    def say(tx: Tx) -> None:
        for _ in range(100):
            tx.say(Draft("builder.1.new", (), b"{}"))

    def forget(tx: Tx) -> int:
        return trim(tx, buildapi_events, DAY_S, 50, most=70)

    def look(reader: Reader) -> bool:
        with reader.snapshot():
            oldest, newest = eventlog.oldest(reader), eventlog.newest(reader)
            found = [event.seq for event in eventlog.stored(reader, 0, 100_000)]
        return found == list(range(oldest, newest + 1))

    working: list[Deferred[Any]] = []
    for _ in range(20):
        working += [database.write(say), database.read(look)]
        working += [database.write(forget), database.read(look)]
    results = await gatherResults(working)
    await database.retention._trimmed()

    assert all(results[1::2])
    assert await database.read(eventlog.oldest) == 2000 - 50 + 1
    assert sum(results[2::4]) + database.retention.forgotten == 2000 - 50
