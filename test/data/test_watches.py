"""Watches in process: what happens while a view is read, and how often it is."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import orjson
import pytest
from twisted.internet.defer import CancelledError, Deferred

from buildapi.data.contents import NOTHING, Content, Delta, content
from buildapi.data.readings import REST, RETRY_S
from buildapi.data.watch import Watch
from buildapi.errors import Stopping, Unavailable
from buildapi.mq.rest import TURN_S
from buildapi.service import BuildAPI
from buildapi.testing import a_build, result_of

# What is tested is when it is read, not how.
pytestmark = pytest.mark.systems("sqlite")


class SlowReads:
    """
    Reads of a database that take their time: each is made at once and told when it is released.

    ``under_way``: those that are not.  costs_s: how long each takes, of the reactor's time.
    """

    def __init__(self, api: BuildAPI) -> None:
        self.under_way: list[tuple[Deferred[Any], Any]] = []
        self.made = 0
        self.costs_s = 0.0
        self.at_once = False
        self.failure: Exception | None = None
        self._api = api
        self._fetch = api.data.fetch

    def fetch(self, *args: Any) -> Any:
        """Read."""
        self.made += 1
        self._api.reactor.advance(self.costs_s)
        if self.failure is not None:
            raise self.failure
        answer = self._fetch(*args)
        if self.at_once:
            return answer
        waiting: Deferred[Any] = Deferred()
        self.under_way.append((waiting, answer))
        return waiting

    def release(self) -> None:
        """Tell what the oldest one has read."""
        waiting, answer = self.under_way.pop(0)
        waiting.callback(answer)


@pytest.fixture
def slow(api: BuildAPI, monkeypatch: pytest.MonkeyPatch) -> Iterator[SlowReads]:
    """Have reads take their time."""
    reads = SlowReads(api)
    monkeypatch.setattr(api.data, "fetch", reads.fetch)
    yield reads
    api.watches.close()


def watched(api: BuildAPI, path: str) -> Deferred[Watch]:
    """Open a watch."""
    return Deferred.fromCoroutine(api.watches.watch(path))


def state(watch: Watch) -> Any:
    """Return what a watch of one build tells of its state, what is new included."""
    watch.take()
    (row,) = watch.content.rows.values()
    return orjson.loads(row)["state_string"]


def set_state(api: BuildAPI, buildid: int, text: str) -> None:
    """Change what a watch shows."""
    result_of(api.data.updates.setBuildStateString(buildid, text))


def test_a_batch_that_comes_while_it_is_read_is_read_afterwards(
    api: BuildAPI, slow: SlowReads, buildid: int
) -> None:
    """However many come: once."""
    opening = watched(api, f"builds/{buildid}")
    slow.release()
    watch = result_of(opening)
    set_state(api, buildid, "one")
    for text in ("two", "three", "four"):
        set_state(api, buildid, text)
    slow.release()
    first, at_first = state(watch), watch.position
    slow.release()

    assert (first, state(watch)) == ("one", "four")
    assert (at_first, watch.position) == ((api.seq() or 0) - 3, api.seq())
    assert (slow.under_way, slow.made) == ([], 3)


def test_a_batch_that_was_read_before_it_is_told_is_not_read_for(
    api: BuildAPI, slow: SlowReads, buildid: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A snapshot may be newer than what has been delivered."""
    slow.at_once = True
    watch = result_of(watched(api, f"builds/{buildid}"))
    held: list[Any] = []
    deliver = api.watches.changed
    monkeypatch.setattr(api.watches, "changed", held.append)
    set_state(api, buildid, "one")
    set_state(api, buildid, "two")
    deliver(held[0])
    seen, made = state(watch), slow.made
    deliver(held[1])

    assert seen == "two"
    assert slow.made == made == 2


def test_who_comes_later_waits_for_what_is_there_now(
    api: BuildAPI, slow: SlowReads, buildid: int
) -> None:
    """Not for a read that began before; and one that is current is shared without a read."""
    first = watched(api, f"builds/{buildid}")
    set_state(api, buildid, "newer")
    second = watched(api, f"builds/{buildid}")
    slow.release()
    early = result_of(first)
    waits = not second.called
    slow.release()
    late = result_of(second)
    third = result_of(watched(api, f"builds/{buildid}"))

    assert waits
    assert state(late) == state(early) == state(third) == "newer"
    assert slow.made == 2


def test_who_gives_up_while_it_is_read_leaves_nothing_behind(
    api: BuildAPI, slow: SlowReads, buildid: int
) -> None:
    """The read is given up, too, if nobody else waits for it."""
    opening = watched(api, f"builds/{buildid}")
    opening.cancel()

    with pytest.raises(CancelledError):
        result_of(opening)
    assert len(api.watches) == 0
    assert slow.under_way[0][0].called


def test_a_database_that_is_busy_is_asked_again(
    api: BuildAPI, slow: SlowReads, buildid: int
) -> None:
    """A watch that is open goes on; one that is being opened is refused."""
    slow.at_once = True
    watch = result_of(watched(api, f"builds/{buildid}"))
    slow.failure = Unavailable("the database is busy")
    set_state(api, buildid, "later")
    refused = watched(api, "builds")
    slow.failure = None
    before = watch.take()
    api.reactor.advance(RETRY_S)

    assert before is None
    assert state(watch) == "later"
    with pytest.raises(Unavailable):
        result_of(refused)


def test_a_slow_view_rests_between_its_reads(api: BuildAPI, slow: SlowReads, buildid: int) -> None:
    """Some times as long as one took: it must not read all the time."""
    slow.at_once, slow.costs_s = True, TURN_S / 2
    watch = result_of(watched(api, f"builds/{buildid}"))
    for number in range(5):
        set_state(api, buildid, str(number))
    resting = slow.made
    slow.costs_s = 0
    api.reactor.advance(REST * TURN_S)

    assert (resting, slow.made) == (1, 2)
    assert state(watch) == "4"


def test_many_views_take_turns_with_everybody_else(
    api: BuildAPI, slow: SlowReads, buildid: int
) -> None:
    """After a while on the reactor's thread it is somebody else's turn."""
    slow.at_once = True
    for number in range(10):
        result_of(watched(api, f"builds?offset={number}"))
    made, slow.costs_s = slow.made, TURN_S
    set_state(api, buildid, "new")
    at_once = slow.made - made
    slow.costs_s = 0
    for _ in range(10):
        api.reactor.advance(10 * TURN_S)

    assert at_once < 10
    assert slow.made - made == 10


def test_a_watch_is_an_iterator_of_differences(api: BuildAPI, buildid: int) -> None:
    """Until it is closed."""
    found: list[Any] = []

    async def reading(watch: Watch) -> None:
        found.extend(
            [
                (watch.position, list(delta.enter), list(delta.update), delta.leave)
                async for delta in watch
            ]
        )

    watch = result_of(watched(api, "builds?complete=false"))
    done = Deferred.fromCoroutine(reading(watch))
    set_state(api, buildid, "new")
    after = api.seq()
    second = result_of(a_build(api))
    result_of(api.data.updates.finishBuild(buildid, 0))
    watch.close()

    assert found[0] == (after, [], [buildid], [])
    assert [second] in [enter for _, enter, _, _ in found]
    assert found[-1] == (api.seq(), [], [], [buildid])
    assert result_of(done) is None


def test_a_service_that_stops_ends_its_watches(api: BuildAPI) -> None:
    """And takes no new ones."""
    watch = result_of(watched(api, "builds"))
    news = watch.news()
    api.watches.close()

    assert result_of(news) is None
    assert watch.closed
    with pytest.raises(Stopping):
        result_of(watched(api, "builds"))


def test_a_delta_says_the_order_where_it_is_not_plain() -> None:
    """Plain is: what stays, as it was, then what enters."""
    old = Content({1: b"a", 2: b"b", 3: b"c"}, {"total": 3})
    plain = Delta(old, Content({1: b"a", 3: b"x", 4: b"d"}, {"total": 3}))
    turned = Delta(old, Content({2: b"b", 1: b"a", 3: b"c"}, {"total": 9}))

    assert (plain.enter, plain.update, plain.leave) == ({4: b"d"}, {3: b"x"}, [2])
    assert (plain.order, plain.meta) == (None, None)
    assert (turned.enter, turned.update, turned.leave) == ({}, {}, [])
    assert (turned.order, turned.meta) == ([2, 1, 3], {"total": 9})


def test_what_is_the_same_is_kept() -> None:
    """Rows, too: who is slow shares them with everybody else."""
    old = content([(1, b"a"), (2, b"b")], {}, NOTHING)
    new = content([(2, bytes([98])), (1, b"c")], {}, old)

    assert content([(1, b"a"), (2, b"b")], {}, old) is old
    assert new.rows[2] is old.rows[2]


def test_rows_of_one_id_are_told_apart() -> None:
    """Only a damaged database has them."""
    found = content([("a", b"1"), ("a", b"2"), ("a", b"3")], {}, NOTHING)

    assert list(found.rows) == ["a", "a#2", "a#3"]
