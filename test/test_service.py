"""The service: how it starts, what it owns, how it ends."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import pytest_twisted
from twisted.application.service import MultiService
from twisted.internet import reactor as the_reactor
from twisted.internet.defer import Deferred, gatherResults
from twisted.internet.task import Clock
from twisted.internet.testing import MemoryReactorClock
from twisted.logger import LogEvent, capturedLogs
from twisted.python.failure import Failure

from buildapi.data.gate import Action, Gate, Identity, Restriction, Scope
from buildapi.errors import CannotOpen, Stopping, Unavailable
from buildapi.service import BuildAPI
from buildapi.settings import Database, Server, Settings
from buildapi.testing import (
    NOON,
    RecordingSubscriber,
    WebClient,
    Wire,
    a_build,
    a_log,
    a_request,
    answered,
    in_memory_api,
    result_of,
)

reactor: Any = the_reactor
ANY_PORT = "tcp:0:interface=127.0.0.1"
SOMEWHERE = Settings(server=Server(listen=ANY_PORT), database=Database(url="sqlite://"))


def settings_for(
    folder: Path, listen: str | None = None, deadline: float = 10.0, **database: Any
) -> Settings:
    """Return the settings of a service with its database in this folder."""
    url = f"sqlite:///{folder}/state.sqlite"
    return Settings(
        server=Server(listen=listen, stop_deadline_s=deadline),
        database=Database(url=url, **database),
    )


def a_service(folder: Path, master: str | None = "test:/master", **settings: Any) -> BuildAPI:
    """Return a service that has not been started."""
    return BuildAPI(settings_for(folder, **settings), master=master)


async def failure_of(deferred: Deferred[Any]) -> BaseException:
    """Return what a Deferred fails with."""
    with pytest.raises(Exception) as raised:  # noqa: PT011  the caller looks at it
        await deferred
    return raised.value


@pytest_twisted.ensureDeferred
async def test_it_works_when_it_is_ready(tmp_path: Path) -> None:
    """Its master is known, its data can be read and changed, and it listens."""
    api = a_service(tmp_path, listen=ANY_PORT)
    assert api.reason_not_ready() is not None
    api.startService()

    assert await api.ready() is api

    assert api.reason_not_ready() is None
    assert api.masterid == 1
    assert (await api.data.get(("masters", 1)))["name"] == "test:/master"
    assert await api.data.updates.findBuilderId("runtests") == 1
    assert api.port is not None
    await api.stopService()


@pytest_twisted.ensureDeferred
async def test_ready_can_be_asked_at_any_time(tmp_path: Path) -> None:
    """Before the start, by several, and afterwards; who gives up hurts nobody."""
    api = a_service(tmp_path)
    early, given_up = api.ready(), api.ready()
    given_up.addErrback(lambda _: None)
    api.startService()
    given_up.cancel()

    assert await early is api
    assert await api.ready() is api
    await api.stopService()
    assert isinstance(await failure_of(api.ready()), Stopping)


@pytest_twisted.ensureDeferred
async def test_a_block_starts_and_stops_it(tmp_path: Path) -> None:
    """Whatever happens inside."""
    api = a_service(tmp_path, listen=ANY_PORT)
    with pytest.raises(ZeroDivisionError):
        async with api:
            raise ZeroDivisionError

    assert not api.running
    assert isinstance(await failure_of(api.data.updates.findBuilderId("x")), Stopping)


@pytest_twisted.ensureDeferred
async def test_a_block_does_not_begin_if_it_cannot_start(tmp_path: Path) -> None:
    """The error is the one of ready()."""
    with pytest.raises(CannotOpen, match="does not exist"):
        async with a_service(tmp_path / "missing"):
            pytest.fail("it has no database")


@pytest_twisted.ensureDeferred
async def test_a_parent_starts_and_stops_it(tmp_path: Path) -> None:
    """As masters do with their services."""
    parent = MultiService()
    api = a_service(tmp_path)
    api.setServiceParent(parent)  # type: ignore[no-untyped-call]
    parent.startService()
    await api.ready()

    await parent.stopService()

    assert not api.running
    async with a_service(tmp_path):
        pass


def test_a_service_that_was_never_started_stops(tmp_path: Path) -> None:
    """At once; who waits for it learns that it will never work."""
    api = a_service(tmp_path)
    waiting = api.ready()

    assert result_of(api.stopService()) is None

    with pytest.raises(Stopping):
        result_of(waiting)


@pytest_twisted.ensureDeferred
async def test_it_can_be_stopped_before_it_is_ready(tmp_path: Path) -> None:
    """It finishes the start first; nothing is left open."""
    api = a_service(tmp_path, listen=ANY_PORT)
    api.startService()

    await api.stopService()

    async with a_service(tmp_path):
        pass


@pytest_twisted.ensureDeferred
async def test_it_can_be_stopped_twice(tmp_path: Path) -> None:
    """At the same time or later; each call fires when it is closed."""
    api = a_service(tmp_path, listen=ANY_PORT)
    api.startService()
    await api.ready()

    await gatherResults([api.stopService(), api.stopService()])
    await api.stopService()

    async with a_service(tmp_path):
        pass


@pytest_twisted.ensureDeferred
async def test_who_gives_up_waiting_for_the_stop_does_not_end_it(tmp_path: Path) -> None:
    """A parent with a timeout of its own, say."""
    api = a_service(tmp_path)
    api.startService()
    await api.ready()
    impatient = api.stopService()
    impatient.addErrback(lambda _: None)

    impatient.cancel()

    await api.stopService()
    assert not api.running


@pytest_twisted.ensureDeferred
async def test_a_stop_finishes_what_was_accepted(tmp_path: Path) -> None:
    """Every update that was queued before fires, its events are heard, and it is durable."""
    api = a_service(tmp_path)
    api.startService()
    await api.ready()
    logid = await a_log(api)
    heard = RecordingSubscriber(api, "build.#")
    working = [api.data.updates.appendLog(logid, f"{i}\n") for i in range(500)]

    stopping = api.stopService()
    results = await gatherResults(working)
    await stopping

    assert results[-1] == (499, 499)
    assert len(heard.topics) == 500
    async with a_service(tmp_path) as again:
        contents = await again.data.get(("logs", logid, "contents"))
        assert contents["content"] == "".join(f"{i}\n" for i in range(500))


@pytest_twisted.ensureDeferred
async def test_nothing_is_accepted_after_the_stop(tmp_path: Path) -> None:
    """Reads, changes and subscriptions say so."""
    api = a_service(tmp_path)
    api.startService()
    await api.ready()
    await api.stopService()

    assert isinstance(await failure_of(api.data.updates.findBuilderId("x")), Stopping)
    assert isinstance(await failure_of(api.data.get("builders")), Unavailable)
    with pytest.raises(Stopping):
        api.mq.listen(["#"], print)
    assert api.reason_not_ready() == "the service is being stopped"


@pytest_twisted.ensureDeferred
async def test_a_download_under_way_is_finished(tmp_path: Path) -> None:
    """It was accepted; then the connection is closed, and those without a request at once."""
    api = a_service(tmp_path)
    api.startService()
    await api.ready()
    line = "x" * 1023 + "\n"
    logid = await a_log(api)
    for _ in range(4):
        await api.data.updates.appendLog(logid, line * 1_000)
    idle, wire = Wire(api), Wire(api)
    half = Wire(api)
    half.send(b"GET /api/v2/logs/1/raw HT")
    wire.slow = True
    wire.send(b"GET /api/v2/logs/1/raw HTTP/1.1\r\nHost: x\r\n\r\n")
    await wire.arrival()

    stopping = api.stopService()
    received = b""
    while not wire.closed:
        received += wire.sip()
        await wire.arrival()
    await stopping

    assert answered(received + wire.sip()).body == line.encode() * 4_000
    assert idle.closed
    assert half.closed


@pytest_twisted.ensureDeferred
async def test_a_download_that_takes_too_long_is_cut_off(tmp_path: Path) -> None:
    """At the deadline."""
    api = a_service(tmp_path, deadline=0.1)
    api.startService()
    await api.ready()
    logid = await a_log(api)
    for _ in range(4):
        await api.data.updates.appendLog(logid, "x" * 500_000 + "\n")
    wire = Wire(api)
    wire.slow = True
    wire.send(b"GET /api/v2/logs/1/raw HTTP/1.1\r\nHost: x\r\n\r\n")
    await wire.arrival()

    with capturedLogs() as logs:
        await api.stopService()

    assert wire.cut
    assert "deadline" in logs[0]["log_format"]
    async with a_service(tmp_path):
        pass


@pytest_twisted.ensureDeferred
async def test_a_write_that_takes_too_long_is_given_up(tmp_path: Path) -> None:
    """Another program holds the database: the stop does not wait for it for ever."""
    api = a_service(tmp_path, deadline=0.1, busy_timeout_s=1.5)
    api.startService()
    await api.ready()
    other = sqlite3.connect(tmp_path / "state.sqlite", isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    waiting = api.data.updates.findBuilderId("late")

    with capturedLogs():
        await api.stopService()

    assert isinstance(await failure_of(waiting), Unavailable)
    other.close()


@pytest_twisted.ensureDeferred
async def test_a_port_in_use_is_an_error_of_the_start(tmp_path: Path) -> None:
    """It says which; the database is free for the next one."""
    async with a_service(tmp_path, listen=ANY_PORT) as first:
        assert first.port is not None
        host: Any = first.port.getHost()
        taken = f"tcp:{host.port}:interface=127.0.0.1"
        (tmp_path / "other").mkdir()
        second = a_service(tmp_path / "other", listen=taken)
        second.startService()

        error = await failure_of(second.ready())

        assert isinstance(error, CannotOpen)
        assert str(host.port) in error.sentence
        assert "in use" in error.sentence
        assert second.reason_not_ready() == error.sentence
        async with a_service(tmp_path / "other"):
            pass
        await second.stopService()


@pytest.mark.parametrize("listen", ["8010", "nosuch:1", "unix:/nosuch/dir/socket", "tcp:x", "x\\"])
@pytest_twisted.ensureDeferred
async def test_an_address_that_cannot_be_is_an_error_of_the_start(
    tmp_path: Path, listen: str
) -> None:
    """A sentence; nothing is left open."""
    api = a_service(tmp_path, listen=listen)
    api.startService()

    assert isinstance(await failure_of(api.ready()), CannotOpen)
    async with a_service(tmp_path):
        pass
    await api.stopService()


@pytest_twisted.ensureDeferred
async def test_a_second_writer_is_an_error_of_the_start(tmp_path: Path) -> None:
    """In the same process as in another; a reader may come."""
    async with a_service(tmp_path) as first:
        second = a_service(tmp_path)
        second.startService()
        assert isinstance(await failure_of(second.ready()), CannotOpen)

        await first.data.updates.findBuilderId("runtests")
        async with a_service(tmp_path, read_only=True) as reader:
            assert reader.masterid == first.masterid
            assert (await reader.data.get("builders"))[0]["name"] == "runtests"
            assert isinstance(await failure_of(reader.data.updates.findBuilderId("x")), CannotOpen)


@pytest_twisted.ensureDeferred
async def test_an_error_that_nobody_waits_for_is_logged(tmp_path: Path) -> None:
    """Or a master would never learn why nobody answers."""
    api = a_service(tmp_path / "missing")
    with capturedLogs() as logs:
        api.startService()
        while api._outcome is None:
            await _soon()

    (event,) = (event for event in logs if event["log_level"].name == "error")
    assert "does not exist" in event["sentence"]
    await api.stopService()


def _soon() -> Deferred[None]:
    fired: Deferred[None] = Deferred()
    reactor.callLater(0, fired.callback, None)
    return fired


@pytest_twisted.ensureDeferred
async def test_a_restart_goes_on_where_it_was(tmp_path: Path) -> None:
    """The same master, the same log of events, the next position."""
    async with a_service(tmp_path) as first:
        await a_build(first)
        before, identity, master = first.seq(), first.database.identity, first.masterid

    async with a_service(tmp_path) as second:
        assert second.masterid == master
        assert second.database.identity == identity
        assert second.seq() is not None
        since = second.seq() or 0
        assert since >= (before or 0)
        heard = RecordingSubscriber(second)
        await a_request(second)

        seqs = [event.seq for event in heard.events]
        assert seqs == list(range(since + 1, since + 1 + len(seqs)))
        assert second.mq.last_seq == second.seq() == seqs[-1]


@pytest_twisted.ensureDeferred
async def test_two_in_one_process_have_nothing_to_do_with_each_other(tmp_path: Path) -> None:
    """Each has its database, its bus, its port."""
    folders = [tmp_path / name for name in ("one", "two")]
    for folder in folders:
        folder.mkdir()
    async with (
        a_service(folders[0], listen=ANY_PORT) as one,
        a_service(folders[1], "other:/master", listen=ANY_PORT) as two,
    ):
        heard = RecordingSubscriber(two)
        await a_build(one)

        assert heard.events == []
        assert (await two.data.get("builds")).total == 0
        assert one.database.identity != two.database.identity
        answers = [await WebClient(api).fetch("GET", "/api/v2/masters") for api in (one, two)]
        names = [answer.json()["masters"][0]["name"] for answer in answers]
        assert names == ["test:/master", "other:/master"]


@pytest_twisted.ensureDeferred
async def test_a_server_without_a_name_is_no_master(tmp_path: Path) -> None:
    """It serves; what only a master can do is refused."""
    async with a_service(tmp_path, None) as api:
        assert api.masterid is None
        assert (await api.data.get("masters")).total == 0


@pytest_twisted.ensureDeferred
async def test_read_only_has_no_position_to_tell_without_a_log(tmp_path: Path) -> None:
    """A master that this database has never seen has no id."""
    async with a_service(tmp_path):
        pass

    async with a_service(tmp_path, "nobody:/nowhere", read_only=True) as api:
        assert api.masterid is None
        assert api.seq() is None


def test_events_are_heard_before_the_update_fires() -> None:
    """Who waits for an update may rely on what its subscribers have done."""
    api = in_memory_api()
    heard = RecordingSubscriber(api)
    order: list[Any] = []
    api.mq.listen(["builder.#"], lambda event: order.append(event.topic))

    api.data.updates.findBuilderId("runtests").addCallback(order.append)

    assert order == ["builder.1.new", 1]
    assert heard.events[-1].seq == api.seq()


def test_time_is_the_reactors() -> None:
    """So that a test can let it stand still."""
    clock = Clock()
    clock.advance(NOON)
    api = in_memory_api(clock=clock)
    clock.advance(60)

    result_of(a_build(api))

    assert result_of(api.data.get(("builds", 1)))["started_at"] == NOON + 60


def test_a_fault_of_ours_at_the_start_is_logged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With its traceback; who waits gets it as well."""
    api = BuildAPI(Settings(server=Server(listen=None), database=Database(url="sqlite://")))
    failure = RuntimeError(f"a bug in {tmp_path}")

    def fail() -> Deferred[None]:
        raise failure

    monkeypatch.setattr(api, "_find_master", fail)
    with capturedLogs() as logs:
        api.startService()

    with pytest.raises(RuntimeError):
        result_of(api.ready())
    assert [_failed(event) for event in logs if "log_failure" in event] == [failure]


def _failed(event: LogEvent) -> BaseException | None:
    failure: Failure = event["log_failure"]
    return failure.value


class Rush(MemoryReactorClock):
    """A reactor on which clients come in the moment that a server listens."""

    knock: Callable[[], None]

    def listenTCP(self, *args: Any, **kwargs: Any) -> Any:
        """Let them in before anybody hears that it listens."""
        self.knock()
        return super().listenTCP(*args, **kwargs)  # type: ignore[no-untyped-call]


@dataclass(frozen=True)
class Closed(Gate):
    """Lets strangers do nothing, and hides the first builder from them."""

    def refusal(self, identity: Identity, action: Action, scope: Scope) -> str | None:  # noqa: ARG002  a gate's signature
        """Return why not."""
        return None if identity.trusted else "not you"

    def restriction(self, identity: Identity) -> Restriction | None:
        """Return what is hidden."""
        return None if identity.trusted else Restriction(frozenset({1}))


@pytest.mark.parametrize(("gate", "statuses"), [(Gate, [200, 200, 404]), (Closed, [404, 403, 403])])
def test_the_first_request_finds_the_gate_that_was_given(
    gate: type[Gate], statuses: list[int]
) -> None:
    """Whoever comes before ready() fires is judged by the same rules as all others."""
    reactor = Rush()  # type: ignore[no-untyped-call]
    api = BuildAPI(SOMEWHERE, "test:/master", reactor, gate)
    web, seen = WebClient(api), list[int]()

    def knock() -> None:
        assert api.reason_not_ready() is not None
        result_of(api.data.updates.findBuilderId("runtests"))
        answers = [web.get("/api/v2/builders/1"), web.get("/api/audit")]
        answers.append(web.call("/api/v2/workers/1", "pause"))
        seen.extend(answer.status for answer in answers)

    reactor.knock = knock
    api.startService()

    assert result_of(api.ready()) is api
    assert seen == statuses


@pytest.mark.parametrize(("listen", "local"), [("tcp:0", False), (ANY_PORT, True), (None, True)])
def test_a_gate_is_told_whether_only_this_machine_can_ask(listen: str | None, local: bool) -> None:
    """So one that changes other rules keeps the one about control."""
    told = list[bool]()

    def gate(loopback_only: bool) -> Gate:
        told.append(loopback_only)
        return Closed(loopback_only)

    api = BuildAPI(Settings(server=Server(listen=listen)), gate=gate)

    assert told == [local]
    assert api.data.gate == Closed(local)
