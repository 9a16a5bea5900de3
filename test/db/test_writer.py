"""The queue before group commit: who waits, who is turned away, and when everybody hears."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

import pytest
import pytest_twisted
from twisted.internet.defer import CancelledError, Deferred, gatherResults
from twisted.internet.task import Clock
from twisted.logger import ILogObserver, LogEvent, globalLogPublisher

from buildapi.db.groupcommit import Committed
from buildapi.db.writer import MOST_BODIES_PER_BATCH
from buildapi.errors import Conflict, QueueFull, Stopping
from buildapi.mq.event import Event
from buildapi.testing import in_memory_api, result_of

if TYPE_CHECKING:
    from buildapi.db.transaction import Tx
    from test.db.conftest import Opener


def fails(_: Tx) -> None:
    """Stand for a body that fails."""
    raise Conflict("a build cannot be finished twice")


@pytest_twisted.ensureDeferred
async def test_what_is_queued_is_committed_together(opening: Opener) -> None:
    """While the writer is busy, others queue; then one transaction takes them all."""
    database = await opening()
    release, held = database.held()
    adding = [database.add(f"m{number}") for number in range(50)]
    release.set()
    await held

    assert await gatherResults(adding) == list(range(1, 51))
    assert [len(one.events) for one in database.committed] == [0, 50]
    assert database.seen.is_sound()


@pytest_twisted.ensureDeferred
async def test_a_batch_has_its_limit(opening: Opener) -> None:
    """So that nobody waits for thousands of others."""
    database = await opening()
    release, held = database.held()
    adding = [database.add(f"m{number}") for number in range(MOST_BODIES_PER_BATCH + 1)]
    release.set()
    await held
    await gatherResults(adding)

    assert [len(one.events) for one in database.committed] == [0, MOST_BODIES_PER_BATCH, 1]
    assert database.seen.is_sound()


@pytest_twisted.ensureDeferred
async def test_a_deferred_fires_when_others_see_the_row(opening: Opener) -> None:
    """Whoever hears that it is done can rely on it, in every process."""
    database = await opening()
    seen = database.add("a").addCallback(lambda _: database.seen.names())

    assert await seen == ["a"]


@pytest_twisted.ensureDeferred
async def test_events_are_delivered_before_the_results_and_both_in_order(opening: Opener) -> None:
    """Who gets a result has had the events that belong to it."""
    database = await opening()
    heard: list[Any] = []
    release, held = database.held()
    adding = [
        database.add(f"m{number}").addCallback(
            lambda ident: heard.append((ident, database.delivered[-1]))
        )
        for number in range(3)
    ]
    release.set()
    await held
    await gatherResults(adding)

    assert heard == [(1, 3), (2, 3), (3, 3)]
    assert database.delivered == [1, 2, 3]


@pytest_twisted.ensureDeferred
async def test_a_failing_body_fails_alone(opening: Opener) -> None:
    """Its neighbours in the queue do not notice."""
    database = await opening()
    release, held = database.held()
    first, failing, last = database.add("a"), database.write(fails), database.add("b")
    release.set()
    await held

    with pytest.raises(Conflict, match="twice"):
        await failing
    # A server gives no number twice, be it undone or not.
    one, other = await gatherResults([first, last])
    assert database.seen.rows("SELECT id, name FROM masters ORDER BY id") == [
        (one, "a"),
        (other, "b"),
    ]
    assert database.delivered == [1, 2]
    assert database.seen.is_sound()


@pytest_twisted.ensureDeferred
async def test_a_full_queue_turns_away_and_tells_when_there_is_room(opening: Opener) -> None:
    """Room is when it is half empty again, so that not everybody comes for every single place."""
    database = await opening(max_queued_writes=4)
    assert database.writer is not None
    release, held = database.held()
    adding = [database.add(f"m{number}") for number in range(3)]
    room = database.writer.room()

    with pytest.raises(QueueFull, match="4 writes are waiting"):
        await database.add("one too many")
    assert not room.called
    release.set()
    await room
    assert await database.add("next") == 4
    await gatherResults([held, *adding])


@pytest_twisted.ensureDeferred
async def test_there_is_room_in_an_empty_queue(opening: Opener) -> None:
    """Who asks without need is not held up."""
    database = await opening()
    assert database.writer is not None

    assert database.writer.room().called


@pytest_twisted.ensureDeferred
async def test_what_was_accepted_before_the_stop_is_finished(opening: Opener) -> None:
    """What comes after it is turned away at once."""
    database = await opening()
    assert database.writer is not None
    release, held = database.held()
    adding = [database.add(f"m{number}") for number in range(20)]
    stopped = database.writer.stop()
    late = database.add("late")

    with pytest.raises(Stopping):
        await late
    release.set()
    await stopped
    await gatherResults([held, *adding])
    assert len(database.seen.names()) == 20
    assert database.seen.is_sound()


@pytest_twisted.ensureDeferred
async def test_a_close_that_is_cancelled_gives_up_what_waits(opening: Opener) -> None:
    """Each caller hears so, and the database is free for the next one."""
    database = await opening()
    release, held = database.held()
    adding = database.add("a")
    closing = database.close()
    closing.cancel()

    with pytest.raises(CancelledError):
        await closing
    release.set()
    await held
    with pytest.raises(Stopping, match="not written"):
        await adding
    await database.close()
    again = await opening()
    assert await again.add("b") == 1


@pytest_twisted.ensureDeferred
async def test_who_no_longer_waits_for_a_write_disturbs_nobody(opening: Opener) -> None:
    """It is written all the same."""
    database = await opening()
    release, held = database.held()
    first, second = database.add("a"), database.add("b")
    first.cancel()
    release.set()

    with pytest.raises(CancelledError):
        await first
    assert await second == 2
    await held
    assert database.seen.names() == ["a", "b"]


@pytest_twisted.ensureDeferred
async def test_results_arrive_though_the_delivery_of_events_fails(opening: Opener) -> None:
    """What is committed is committed; the failure is logged."""
    database = await opening()
    assert database.writer is not None
    logged: list[LogEvent] = []

    def refuse(_: Committed) -> None:
        raise ValueError

    database.writer._deliver = refuse
    observe = cast("ILogObserver", logged.append)
    globalLogPublisher.addObserver(observe)
    try:
        assert await database.add("a") == 1
    finally:
        globalLogPublisher.removeObserver(observe)
    assert [event["log_format"] for event in logged] == ["a committed batch could not be delivered"]


def test_in_memory_a_write_inside_a_delivery_waits_its_turn() -> None:
    """One connection has one transaction at a time; in the end all of them are done."""
    api = in_memory_api(clock=Clock())
    order: list[str] = []

    def heard(event: Event) -> None:
        order.append(event.topic)
        if event.topic == "builder.1.new":
            second = api.data.updates.findBuilderId("second")
            second.addCallback(lambda ident: order.append(f"made {ident}"))
            order.append("the second waits")

    api.mq.listen("builder.*.new", heard)
    first = api.data.updates.findBuilderId("first")

    assert result_of(first) == 1
    assert order == ["builder.1.new", "the second waits", "builder.2.new", "made 2"]
    result_of(api.stopService())


def test_in_memory_a_stop_inside_a_delivery_lets_others_finish() -> None:
    """What was accepted is finished there, too."""
    api = in_memory_api(clock=Clock())
    later: list[Deferred[Any]] = []

    def heard(event: Event) -> None:
        if event.topic == "builder.1.new":
            later.append(api.data.updates.findBuilderId("second"))
            later.append(api.stopService())

    api.mq.listen("builder.*.new", heard)

    assert result_of(api.data.updates.findBuilderId("first")) == 1
    assert result_of(later[0]) == 2
    result_of(later[1])
