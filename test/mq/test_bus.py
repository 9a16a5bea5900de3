"""The bus: who hears of what, in which order, and whom a failure hurts."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.defer import Deferred, fail
from twisted.logger import LogEvent

from buildapi.errors import BadArgument, BadQuery, Stopping
from buildapi.mq.bus import Bus
from buildapi.mq.event import Event
from buildapi.mq.listener import Consumer, Listener

BUILD_KEYS = ("builders/3/builds/7/new", "builds/10/new", "workers/2/builds/10/new")


def an_event(
    seq: int = 1,
    topic: str = "build.10.new",
    keys: tuple[str, ...] = (),
    body: bytes = b'{"buildid":10}',
) -> Event:
    """Make an event."""
    return Event(seq=seq, topic=topic, at=0.0, keys=keys, body=body)


class RecordingListener:
    """A callback that keeps what it heard, as (its name, seq), in a list shared with others."""

    def __init__(self, name: str, heard: list[tuple[str, int]]) -> None:
        self.name = name
        self.heard = heard

    def __call__(self, event: Event) -> None:
        """Hear an event."""
        self.heard.append((self.name, event.seq))


@pytest.fixture
def bus() -> Bus:
    """Make a bus."""
    return Bus()


def test_events_are_heard_in_order_by_all_who_match(bus: Bus) -> None:
    """Event by event, and for one event in the order in which the listeners came."""
    heard: list[tuple[str, int]] = []
    for name, pattern in [("a", "build.#"), ("b", "build.*.new"), ("c", "#"), ("d", "step.#")]:
        bus.listen([pattern], RecordingListener(name, heard))

    bus.publish([an_event(1), an_event(2, "build.10.finished"), an_event(3, "worker.1.new")])
    bus.publish([an_event(4)])

    assert heard == [
        *[("a", 1), ("b", 1), ("c", 1)],
        *[("a", 2), ("c", 2)],
        ("c", 3),
        *[("a", 4), ("b", 4), ("c", 4)],
    ]


@given(st.lists(st.sampled_from(["build.#", "build.*.new", "#", "#.new", "build.10.#"])))
def test_an_event_is_heard_once_however_many_patterns_match(patterns: list[str]) -> None:
    """A listener's patterns are alternatives."""
    bus, seqs = Bus(), list[int]()
    bus.listen([*patterns, "build.10.new"], lambda event: seqs.append(event.seq))

    bus.publish([an_event(1)])

    assert seqs == [1]


def test_a_single_pattern_need_not_stand_in_a_list(bus: Bus) -> None:
    """A string is one pattern, never its characters."""
    seqs: list[int] = []
    bus.listen("build.#", lambda event: seqs.append(event.seq))

    bus.publish([an_event(1)])

    assert seqs == [1]


@pytest.mark.parametrize("patterns", [[], "", ["build..new"]])
def test_a_bad_pattern_is_refused(bus: Bus, patterns: list[str]) -> None:
    """Also no pattern at all, which would never match."""
    with pytest.raises(BadQuery):
        bus.listen(patterns, print)

    assert bus.listeners == 0


def test_what_a_listener_publishes_comes_after_all_that_was_published_before(bus: Bus) -> None:
    """Delivery is never re-entrant: `first` has returned before anybody hears of event 9."""
    heard: list[tuple[str, int]] = []

    def first(event: Event) -> None:
        heard.append(("first", event.seq))
        if event.seq == 1:
            bus.publish([an_event(9)])
            heard.append(("first returns", event.seq))

    bus.listen("build.#", first)
    bus.listen("build.#", RecordingListener("second", heard))

    bus.publish([an_event(1), an_event(2)])

    assert heard == [
        *[("first", 1), ("first returns", 1), ("second", 1)],
        *[("first", 2), ("second", 2)],
        *[("first", 9), ("second", 9)],
    ]


def test_a_closed_listener_hears_nothing_more_even_of_the_present_event(bus: Bus) -> None:
    """Whoever closes a listener may tear down what it needs, at once."""
    heard: list[tuple[str, int]] = []
    bus.listen("build.#", lambda _: victim.close())
    victim = bus.listen("build.#", RecordingListener("victim", heard))
    bus.listen("build.#", RecordingListener("bystander", heard))

    bus.publish([an_event(1), an_event(2)])

    assert heard == [("bystander", 1), ("bystander", 2)]
    assert victim.closed


def test_a_listener_may_close_itself_while_it_hears(bus: Bus) -> None:
    """Hearing once is an ordinary thing to want; closing again is harmless."""
    seqs: list[int] = []

    def once(event: Event) -> None:
        seqs.append(event.seq)
        listener.close()
        listener.close()

    listener = bus.listen(["build.#", "#"], once)
    bus.publish([an_event(1), an_event(2)])

    assert seqs == [1]
    assert bus.listeners == 0


def test_a_listener_that_comes_during_delivery_hears_what_follows_last_seq(bus: Bus) -> None:
    """So `last_seq`, read at that moment, is the position from which it misses nothing."""
    heard: list[tuple[str, int]] = []
    positions: list[int] = []

    def host(event: Event) -> None:
        if event.seq == 1:
            positions.append(bus.last_seq)
            bus.listen("build.#", RecordingListener("guest", heard))

    bus.listen("build.#", host)
    bus.publish([an_event(1), an_event(2), an_event(3)])

    assert positions == [1]
    assert heard == [("guest", 2), ("guest", 3)]


def test_last_seq_goes_on_from_the_end_of_the_log(bus: Bus) -> None:
    """An event that was never stored has no position and moves none."""
    bus.begin_after(80)
    bus.begin_after(70)
    assert bus.last_seq == 80

    bus.publish([an_event(81), an_event(0)])

    assert bus.last_seq == 81


def raises(_: Event) -> None:
    """Fail at once."""
    raise ZeroDivisionError


def returns_failed_deferred(_: Event) -> Deferred[None]:
    """Fail by a Deferred."""
    return fail(ZeroDivisionError())


async def raises_later(_: Event) -> None:
    """Fail in a coroutine."""
    raise ZeroDivisionError


@pytest.mark.parametrize("failing", [raises, returns_failed_deferred, raises_later])
def test_a_failing_listener_is_logged_and_hurts_nobody(
    bus: Bus, logged: list[LogEvent], failing: Callable[[Event], object]
) -> None:
    """Not the others, not the publisher, and not itself: it hears the next event too."""
    heard: list[tuple[str, int]] = []
    bus.listen("build.#", RecordingListener("before", heard))
    bus.listen("build.#", failing)
    bus.listen("build.#", RecordingListener("after", heard))

    bus.publish([an_event(1), an_event(2)])

    assert heard == [("before", 1), ("after", 1), ("before", 2), ("after", 2)]
    assert [log["log_failure"].type for log in logged] == [ZeroDivisionError] * 2
    assert [log["seq"] for log in logged] == [1, 2]
    assert all(log["consumer"] is failing and log["topic"] == "build.10.new" for log in logged)
    assert bus.failed == 2
    logged.clear()


def test_a_failing_listener_does_not_stop_what_others_publish(
    bus: Bus, logged: list[LogEvent]
) -> None:
    """The bus is not left believing that it still delivers."""
    seqs: list[int] = []
    bus.listen("build.#", raises)
    bus.publish([an_event(1)])
    bus.listen("build.#", lambda event: seqs.append(event.seq))

    bus.publish([an_event(2)])

    assert seqs == [2]
    logged.clear()


def test_what_ends_the_process_is_not_swallowed(bus: Bus) -> None:
    """Ctrl-C inside a listener leaves publish; what was not delivered comes with the next call."""
    seqs: list[int] = []

    def interrupted(event: Event) -> None:
        if event.seq == 1:
            raise KeyboardInterrupt
        seqs.append(event.seq)

    bus.listen("build.#", interrupted)
    with pytest.raises(KeyboardInterrupt):
        bus.publish([an_event(1), an_event(2)])

    bus.publish([an_event(3)])

    assert seqs == [2, 3]


def test_a_slash_pattern_hears_of_the_event_under_the_key_that_matches(bus: Bus) -> None:
    """An event with several keys comes under the one that was asked for."""
    keys: list[tuple[str, int]] = []
    bus.listen_keys(["workers/*/builds/*/new"], lambda key, event: keys.append((key, event.seq)))

    bus.publish([an_event(1, keys=BUILD_KEYS), an_event(2, "build.10.created")])

    assert keys == [("workers/2/builds/10/new", 1)]


def test_an_event_is_heard_once_however_many_keys_match(bus: Bus) -> None:
    """Under the first of its keys; two listeners of one socket hear of it each."""
    keys: list[str] = []
    bus.listen_keys(["*/*/*", "*/*/*/*/*"], lambda key, _: keys.append(key))
    bus.listen_keys(["*/*/*/*/*"], lambda key, _: keys.append(key))

    bus.publish([an_event(1, keys=BUILD_KEYS)])

    assert keys == ["builders/3/builds/7/new"] * 2


@pytest.mark.parametrize("pattern", ["", "/", "#", "**", "builds/10/NEW", "builds/*", "*/" * 5000])
def test_any_text_is_accepted_as_a_slash_pattern(bus: Bus, pattern: str) -> None:
    """Most of it matches nothing, and even the longest leaves when it is closed."""
    keys: list[str] = []
    listener = bus.listen_keys([pattern], lambda key, _: keys.append(key))

    bus.publish([an_event(1, keys=BUILD_KEYS)])
    listener.close()

    assert keys == []
    assert bus.listeners == 0


def test_listeners_of_both_families_are_called_in_the_order_in_which_they_came(bus: Bus) -> None:
    """One event, two families of names, one order."""
    heard: list[str] = []
    bus.listen_keys("builds/*/new", lambda _, __: heard.append("slash first"))
    bus.listen("build.*.new", lambda _: heard.append("dotted"))
    bus.listen_keys("builds/*/new", lambda _, __: heard.append("slash last"))

    bus.publish([an_event(1, keys=BUILD_KEYS)])

    assert heard == ["slash first", "dotted", "slash last"]


class UntouchableKeys(tuple[str, ...]):
    """Slash keys that must not be looked at."""

    __slots__ = ()

    def __iter__(self) -> Iterator[str]:
        """Fail."""
        raise AssertionError("somebody looked at the slash keys")


def test_slash_keys_are_not_looked_at_while_nobody_listens_to_one(bus: Bus) -> None:
    """Those who use topics only do not pay for the second name."""
    seqs: list[int] = []
    bus.listen("build.#", lambda event: seqs.append(event.seq))
    bus.listen_keys("builds/*/new", lambda _, __: None).close()

    bus.publish([an_event(1, keys=UntouchableKeys(BUILD_KEYS))])

    assert seqs == [1]


def result_of(consuming: Deferred[Consumer]) -> Consumer:
    """Return the result of a Deferred that has fired."""
    results: list[Consumer] = []
    consuming.addCallback(results.append)
    return results[0]


def test_masters_code_consumes_with_tuples_and_dictionaries(bus: Bus) -> None:
    """The callback gets the key as a tuple and the message; stopConsuming's Deferred has fired."""
    messages: list[tuple[tuple[str, ...], object]] = []
    consumer = result_of(
        bus.startConsuming(
            lambda key, message: messages.append((key, message)), ("builds", None, "new")
        )
    )
    bus.publish([an_event(1, keys=BUILD_KEYS)])
    stopped = consumer.stopConsuming()
    bus.publish([an_event(2, keys=BUILD_KEYS)])

    assert messages == [(("builds", "10", "new"), {"buildid": 10})]
    assert stopped.called
    assert bus.listeners == 0


def test_a_failing_consumer_is_logged(bus: Bus, logged: list[LogEvent]) -> None:
    """Masters' callbacks return Deferreds; one that fails is not lost."""
    bus.startConsuming(lambda _, __: fail(ZeroDivisionError()), ("builds", None, "new"))

    bus.publish([an_event(1, keys=BUILD_KEYS)])

    assert [log["log_failure"].type for log in logged] == [ZeroDivisionError]
    logged.clear()


@pytest.mark.parametrize("routing_key", ["builds", ("builds", 10, "new")])
def test_a_bad_routing_key_fails_the_deferred(bus: Bus, routing_key: tuple[str]) -> None:
    """At the public edge nothing is raised beside the Deferred."""
    errors: list[object] = []
    bus.startConsuming(print, routing_key).addErrback(lambda failure: errors.append(failure.value))

    assert [type(error) for error in errors] == [BadArgument]


def test_counters_tell_events_and_deliveries(bus: Bus, logged: list[LogEvent]) -> None:
    """For metrics: published events, calls of listeners, and how many of these failed."""
    for callback in (lambda _: None, raises):
        bus.listen("build.#", callback)

    bus.publish([an_event(1), an_event(2), an_event(3, "worker.1.new")])

    assert (bus.published, bus.delivered, bus.failed) == (3, 4, 2)
    assert bus.listeners == 2
    logged.clear()


def test_a_closed_bus_has_no_listeners_and_takes_none(bus: Bus) -> None:
    """Closing may be done by a listener; nobody hears of what was still to be delivered."""
    heard: list[tuple[str, int]] = []
    bus.listen("build.#", lambda _: bus.close())
    bus.listen("build.#", RecordingListener("too late", heard))
    bus.listen_keys("builds/*/new", lambda _, __: heard.append(("key", 0)))

    bus.publish([an_event(1, keys=BUILD_KEYS), an_event(2)])

    assert heard == []
    assert bus.listeners == 0
    refused: list[Callable[[], Listener]] = [
        lambda: bus.listen("build.#", print),
        lambda: bus.listen_keys("builds/*/new", print),
    ]
    for attempt in refused:
        with pytest.raises(Stopping):
            attempt()


def test_who_comes_or_goes_changes_who_hears_of_the_next_event(bus: Bus) -> None:
    """The names of the events are the same; who wants them is not."""
    heard: list[tuple[str, int]] = []
    first = bus.listen("build.#", RecordingListener("first", heard))
    bus.publish([an_event(1)])
    bus.listen("build.*.new", RecordingListener("second", heard))
    bus.publish([an_event(2)])
    first.close()
    bus.publish([an_event(3)])

    assert heard == [("first", 1), ("first", 2), ("second", 2), ("second", 3)]


def test_events_of_one_topic_may_have_different_keys(bus: Bus) -> None:
    """Each event is heard by those whom its own keys concern."""
    heard: list[tuple[str, int]] = []
    bus.listen_keys("builds/10/new", lambda key, event: heard.append((key, event.seq)))

    bus.publish([an_event(1), an_event(2, keys=BUILD_KEYS), an_event(3, keys=("builds/11/new",))])
    bus.publish([an_event(4, keys=BUILD_KEYS)])

    assert heard == [("builds/10/new", 2), ("builds/10/new", 4)]


def test_what_is_remembered_of_listeners_is_bounded(
    bus: Bus, monkeypatch: pytest.MonkeyPatch
) -> None:
    """More kinds of events than are remembered reach who wants them all the same."""
    monkeypatch.setattr("buildapi.mq.bus.MOST_RECENT", 7)
    monkeypatch.setattr("buildapi.mq.bus.MOST_REMEMBERED", 10)
    seqs: list[int] = []
    for number in range(20):
        bus.listen(f"build.{number}.#", lambda event: seqs.append(event.seq))

    for turn in range(2):
        bus.publish([an_event(20 * turn + n, f"build.{n}.new") for n in range(20)])
        assert len(bus._recent) <= 7
        assert len(bus._audiences) <= 10

    assert seqs == list(range(40))
