"""``watch``: a query's rows and how they change, over the WebSocket."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import pytest
import sqlalchemy as sa
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from twisted.internet.defer import Deferred
from twisted.python.failure import Failure

from buildapi.data.api import AllUpdates
from buildapi.data.gate import Gate, Identity, Restriction
from buildapi.data.watches import TICKS_PER_BOOKMARK
from buildapi.db.tables import (
    build_data,
    build_properties,
    buildrequest_claims,
    builds,
    logchunks,
    logs,
    steps,
)
from buildapi.db.transaction import Tx
from buildapi.errors import BuildAPIError
from buildapi.service import BuildAPI
from buildapi.settings import Limits, Settings
from buildapi.testing import (
    WebClient,
    WebSocketClient,
    Wire,
    a_build,
    a_log,
    a_step,
    in_memory_api,
    result_of,
)

TICK_S = Limits().bookmark_s / TICKS_PER_BOOKMARK


class Mirror:
    """
    What a client has that was written from the protocol's page alone.

    ``seq``: the position of what it has.  ``deltas``: how many it got.
    """

    def __init__(self, ws: WebSocketClient, path: str, sub: int | str = 1, **more: Any) -> None:
        self.path = path
        self.sub = sub
        self.deltas = 0
        self._ws = ws
        ws.send({"cmd": "watch", "path": path, "_id": sub, **more})
        ws.sync()
        (self.reply,) = [frame for frame in ws.frames if frame.get("_id") == sub]
        assert self.reply["code"] == 200, self.reply
        ws.frames.remove(self.reply)
        self.seq = self.reply["seq"]
        self.meta = self.reply["meta"]
        self._rows = dict(zip(self.reply["ids"], self.reply["rows"], strict=True))

    @property
    def rows(self) -> list[Any]:
        """Return the rows, in order."""
        return list(self._rows.values())

    @property
    def ids(self) -> list[Any]:
        """Return the ids of the rows, in order."""
        return list(self._rows)

    def catch_up(self) -> None:
        """Apply what has come."""
        for frame in self._ws.sync():
            if frame.get("sub") == self.sub:
                self._apply(frame)
        self._ws.frames[:] = [one for one in self._ws.frames if one.get("sub") != self.sub]

    def _apply(self, frame: dict[str, Any]) -> None:
        if "bookmark" in frame:
            assert frame["bookmark"] >= self.seq
            self.seq = frame["bookmark"]
            return
        assert frame["seq"] >= self.seq
        self.deltas += 1
        self.seq, self.meta = frame["seq"], frame.get("meta", self.meta)
        for ident in frame["leave"]:
            del self._rows[ident]
        for ident, row in frame["update"]:
            assert ident in self._rows
            self._rows[ident] = row
        for ident, row in frame["enter"]:
            assert ident not in self._rows
            self._rows[ident] = row
        if "order" in frame:
            assert set(frame["order"]) == set(self._rows)
            self._rows = {ident: self._rows[ident] for ident in frame["order"]}


def get(api: BuildAPI, path: str) -> tuple[list[Any], dict[str, Any], int]:
    """Return rows, meta and position of a GET; no rows where there is no such object."""
    answer = WebClient(api).get(f"/api/v2/{path}", {"Accept": "application/json"})
    body, seq = answer.json(), int(answer.headers["X-Seq"])
    if answer.status == 404:
        return [], {}, seq
    assert answer.status == 200, body
    meta = body.pop("meta")
    (rows,) = body.values()
    return rows, meta, seq


@pytest.fixture
def ws(api: BuildAPI) -> WebSocketClient:
    """Return a client that is connected."""
    return WebSocketClient(Wire(api))


def refused(ws: WebSocketClient, **frame: Any) -> tuple[int, str]:
    """Return code and sentence with which a watch is refused."""
    reply = ws.ask("watch", **frame)
    return reply["code"], reply["error"]


def builderid_of(api: BuildAPI, name: str) -> int:
    """Return the id of a builder."""
    found: int = result_of(api.data.updates.findBuilderId(name))
    return found


def test_the_reply_is_what_a_get_answers(api: BuildAPI, ws: WebSocketClient) -> None:
    """With its position, and the ids of the rows."""
    for _ in range(3):
        result_of(a_build(api))
    watch = Mirror(ws, "builds?order=-buildid&limit=2")

    assert (watch.rows, watch.meta, watch.seq) == get(api, "builds?order=-buildid&limit=2")
    assert watch.ids == [3, 2]
    assert set(watch.reply) == {"msg", "code", "_id", "seq", "rows", "ids", "meta"}


def test_rows_enter_change_and_leave(api: BuildAPI, ws: WebSocketClient) -> None:
    """What has no place at the end comes with the order of all."""
    first = result_of(a_build(api))
    Mirror(
        ws, "builds?complete=false&order=-buildid&field=buildid&field=complete&field=state_string"
    )
    ws.frames.clear()
    second = result_of(a_build(api))
    result_of(api.data.updates.setBuildStateString(first, "halfway"))
    result_of(api.data.updates.finishBuild(second, 0))
    row = {"buildid": first, "complete": False, "state_string": "halfway"}
    frames = [frame for frame in ws.sync() if frame.get("sub") == 1]
    entered = frames[0]["enter"][0]

    assert entered[0] == second
    assert frames[0]["order"] == [second, first]
    assert frames[0]["meta"] == {"total": 2}
    assert [frame["update"] for frame in frames[-2:]] == [[[first, row]], []]
    assert frames[-1] == {
        "sub": 1,
        "seq": api.seq(),
        "enter": [],
        "update": [],
        "leave": [second],
        "meta": {"total": 1},
    }


def test_the_id_is_told_though_it_was_not_asked_for(api: BuildAPI, ws: WebSocketClient) -> None:
    """Rows have the fields that the GET has."""
    buildid = result_of(a_build(api))
    watch = Mirror(ws, "builds?field=state_string")
    result_of(api.data.updates.setBuildStateString(buildid, "halfway"))
    watch.catch_up()

    assert watch.ids == [buildid]
    assert watch.rows == [{"state_string": "halfway"}]


@pytest.mark.parametrize(
    ("path", "ids"),
    [
        ("/", ["builders", "builds"]),
        ("application.spec?order=path&offset=1", ["application.spec", "branches/n:branchid"]),
        ("builds/1/properties", [0]),
        ("builds/1/property_list", ["owner"]),
        ("masters", [1]),
        ("builds/1", [1]),
        ("forceschedulers", []),
        ("builds/1/data", ["note"]),
    ],
)
def test_a_row_is_told_by_id_or_name_or_path(
    api: BuildAPI, ws: WebSocketClient, path: str, ids: list[Any]
) -> None:
    """What has none of them is 0: then there is but one."""
    buildid = result_of(a_build(api))
    result_of(api.data.updates.setBuildProperty(buildid, "owner", "alice", "test"))
    result_of(api.data.updates.setBuildData(buildid, "note", b"text", "test"))
    watch = Mirror(ws, path)

    assert watch.ids[:2] == ids
    assert watch.rows == get(api, path)[0]


def test_one_object_that_is_deleted_leaves_and_may_come_back(
    api: BuildAPI, ws: WebSocketClient
) -> None:
    """The watch goes on."""
    buildid = result_of(a_build(api))
    result_of(api.data.updates.setBuildData(buildid, "note", b"text", "test"))
    watch = Mirror(ws, f"builds/{buildid}/data/note")
    result_of(api.data.transaction(lambda tx: tx.run(sa.delete(build_data))))
    watch.catch_up()
    gone = watch.rows
    result_of(api.data.updates.setBuildData(buildid, "note", b"more", "test"))
    watch.catch_up()

    assert gone == []
    assert watch.rows == get(api, watch.path)[0] != []


@pytest.mark.parametrize(
    ("frame", "code", "words"),
    [
        ({}, 400, "path"),
        ({"path": 5}, 400, "path"),
        ({"path": "nowhere"}, 404, "Invalid path"),
        ({"path": "builds/77"}, 404, "not found"),
        ({"path": "builds?colour=red"}, 400, "colour"),
        ({"path": "builds?limit=10001"}, 400, "10000 rows"),
        ({"path": "logs/1/raw"}, 400, "follow"),
        ({"path": "builds", "slow": "maybe"}, 400, "resume, latest, close"),
        ({"path": "builds", "since": 5}, 400, "since"),
    ],
)
def test_what_cannot_be_watched_is_refused(
    ws: WebSocketClient, frame: dict[str, Any], code: int, words: str
) -> None:
    """As a GET of it would be."""
    refusal = refused(ws, **frame)

    assert refusal[0] == code
    assert words in refusal[1]


def test_a_name_is_taken_once(api: BuildAPI, ws: WebSocketClient) -> None:
    """A refused watch frees it again, and so does unsubscribe."""
    Mirror(ws, "builds", sub="a")
    ws.send({"cmd": "watch", "path": "builds", "_id": "a"})
    (taken,) = ws.sync()
    ws.frames.clear()
    assert ws.ask("unsubscribe", sub="a")["code"] == 200
    result_of(a_build(api))

    assert taken["code"] == 409
    assert ws.sync() == []
    assert len(api.watches) == 0
    assert Mirror(ws, "builds", sub="a").rows


@pytest.fixture
def small() -> Iterator[BuildAPI]:
    """Return a service with small limits, and three builds."""
    limits = Limits(watches=2, watch_rows=2, watch_bytes=3_000, subscription_bytes=10_000)
    api = in_memory_api(Settings(limits=limits))
    for _ in range(3):
        result_of(a_build(api))
    yield api
    api.stopService()


def test_a_socket_has_so_many_watches(small: BuildAPI) -> None:
    """One that ends makes room for another."""
    ws = WebSocketClient(Wire(small))
    Mirror(ws, "builds", sub=1)
    Mirror(ws, "builders", sub=2)
    refusal = refused(ws, path="masters")
    ws.ask("unsubscribe", sub=1)

    assert refusal == (409, "a socket can have 2 watches, not more")
    assert Mirror(ws, "masters", sub=3).rows


def test_a_watch_has_so_many_rows(small: BuildAPI) -> None:
    """Who gives no limit gets as many as there may be, and is told that there are more."""
    ws = WebSocketClient(Wire(small))
    cut = Mirror(ws, "builds?field=buildid")

    assert (cut.ids, cut.meta) == ([1, 2], {"total": 3, "truncated": True})
    assert refused(ws, path="builds?limit=3")[0] == 400


def test_a_watch_has_so_many_bytes(small: BuildAPI) -> None:
    """One that outgrows them ends, with an error that says so."""
    ws = WebSocketClient(Wire(small))
    Mirror(ws, "builds/1?field=state_string", sub="grows")
    result_of(small.data.updates.setBuildStateString(1, "x" * 2_000))
    inside = ws.sync()[-1]
    result_of(small.data.updates.setBuildStateString(1, "x" * 4_000))
    outside = ws.sync()[-1]

    assert "update" in inside
    assert (outside["sub"], outside["code"]) == ("grows", 400)
    assert "3000 bytes" in outside["error"]
    assert len(small.watches) == 0
    assert refused(ws, path="builds/1")[0] == 400


@pytest.mark.systems("sqlite")
def test_without_an_event_log_nothing_is_watched() -> None:
    """Changes that another program makes are told by nobody."""
    settings = Settings()
    api = in_memory_api(replace(settings, database=replace(settings.database, foreign_writer=True)))
    code, sentence = refused(WebSocketClient(Wire(api)), path="builds")
    api.stopService()

    assert code == 409
    assert "another program" in sentence


def test_an_idle_watch_tells_its_position(api: BuildAPI, ws: WebSocketClient) -> None:
    """As often as a stream of events does, however much happens elsewhere."""
    watch = Mirror(ws, "masters")
    result_of(a_build(api))
    for _ in range(2 * TICKS_PER_BOOKMARK):
        api.reactor.advance(TICK_S)
        ws.read()

    assert watch.seq < (api.seq() or 0)
    assert ws.sync() == [{"sub": 1, "bookmark": api.seq()}] * 2


@pytest.mark.systems("sqlite")
def test_how_often_a_watch_tells_its_position_is_a_setting() -> None:
    """The one that streams of events have."""
    api = in_memory_api(Settings(limits=Limits(bookmark_s=4.0)))
    ws = WebSocketClient(Wire(api))
    Mirror(ws, "masters")
    for _ in range(12):
        api.reactor.advance(1.0)

    assert ws.sync() == [{"sub": 1, "bookmark": api.seq()}] * 3
    api.stopService()


@dataclass(frozen=True)
class Hiding(Gate):
    """Hides some builders from everybody but the master itself."""

    hidden: frozenset[int] = frozenset()

    def restriction(self, identity: Identity) -> Restriction | None:
        """Hide them."""
        if identity.trusted or not self.hidden:
            return None
        return Restriction(self.hidden)


def test_rows_that_may_not_be_seen_any_more_leave(api: BuildAPI, ws: WebSocketClient) -> None:
    """And come back with the right: at the next batch, whatever that is about, or at a bookmark."""
    builderid = builderid_of(api, "runtests")
    result_of(a_build(api))
    result_of(a_build(api, builder="docs"))
    watch, one = Mirror(ws, "builds", sub=1), Mirror(ws, "builds/1", sub=2)
    seen = [watch.ids]
    hiding = partial(Hiding, hidden=frozenset({builderid}))
    for gate in (hiding(), Gate(), hiding()):
        api.data.gate = gate
        result_of(api.data.updates.findWorkerId(f"worker {len(seen)}"))
        watch.catch_up()
        one.catch_up()
        seen.append(watch.ids)

    api.data.gate = Gate()
    api.reactor.advance(TICK_S)
    watch.catch_up()
    seen.append(watch.ids)

    assert seen == [[1, 2], [2], [1, 2], [2], [1, 2]]
    assert one.ids == []


def read_by(
    api: BuildAPI, monkeypatch: pytest.MonkeyPatch, change: Callable[[], Deferred[Any]]
) -> list[str]:
    """Return the patterns of the paths that are read while something changes."""
    read: list[str] = []
    fetch = api.data.fetch

    def noting(ask: Any, *args: Any) -> Any:
        read.append(ask.match.route.pattern)
        return fetch(ask, *args)

    with monkeypatch.context() as patch:
        patch.setattr(api.data, "fetch", noting)
        result_of(change())
    return sorted(read)


def test_a_change_costs_only_those_whom_it_may_concern(
    api: BuildAPI, ws: WebSocketClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By table, by row, by parent; whoever asks the same is answered by one read."""
    updates = api.data.updates
    logid = result_of(a_log(api))
    other = result_of(a_build(api, builder="docs"))
    mine = builderid_of(api, "runtests")
    paths = [
        "masters",
        "builds/1",
        f"builds?builderid={mine}",
        f"builders/{mine}/builds",
        "builds?complete=false",
        "builds/1/steps",
        "steps/1/logs",
        f"logs/{logid}",
        f"builds/{other}/steps?order=name",
    ]
    second = WebSocketClient(Wire(api))
    for number, path in enumerate(paths):
        Mirror(ws, path, sub=number)
        Mirror(second, path, sub=number)
    read = partial(read_by, api, monkeypatch)

    assert read(lambda: updates.appendLog(logid, "x\n")) == ["logs/n:logid", "steps/n:stepid/logs"]
    assert read(lambda: updates.setBuildStateString(other, "x")) == ["builds"]
    assert read(lambda: updates.addStep(other, "x")) == ["builds/n:buildid/steps"]
    assert read(lambda: updates.findWorkerId("somebody")) == []
    assert read(lambda: updates.setBuildStateString(1, "x")) == [
        *("builders/n:builderid/builds", "builds", "builds", "builds/n:buildid"),
    ]


# What is asked about the first builder, its builds, and what else the other one has no part in.
MINE = [
    "builders/1",
    "builders/1/builds",
    "builds?builderid=1&complete=false&order=-buildid&limit=20",
    "builds?builderid=1&property=*",
    "builds/1",
    "builds/1?property=*",
    "builds/1/properties",
    "builds/1/steps",
    "builds/1/steps/0",
    "builds/1/data",
    "steps/1",
    "steps/1/logs",
    "logs/1",
    "logs/1/contents",
    "builders/1/buildrequests",
    "buildrequests?builderid=1",
    "buildrequests/1",
    "changes?branch=main&author=a",
    "workers/1",
    "masters/1",
    "changesources",
]
# What happens to the build 2 of another builder, whose step is 2, its log 2 and its request 2.
OTHERS: dict[str, Callable[[AllUpdates], Deferred[Any]]] = {
    "state": lambda u: u.setBuildStateString(2, "busy"),
    "property": lambda u: u.setBuildProperty(2, "a", 1, "test"),
    "property again": lambda u: u.setBuildProperty(2, "a", 2, "test"),
    "step": lambda u: u.addStep(2, "another"),
    "step state": lambda u: u.setStepStateString(2, "busy"),
    "log": lambda u: u.addLog(2, "more", "s"),
    "append": lambda u: u.appendLog(2, "oline\n"),
    "log ends": lambda u: u.finishLog(2),
    "compress": lambda u: u.compressLog(2),
    "step ends": lambda u: u.finishStep(2, 0, hidden=False),
    "build ends": lambda u: u.finishBuild(2, 0),
    "build": lambda u: u.newBuild(2, 2, 1),
    "builder": lambda u: u.findBuilderId("new"),
    "worker": lambda u: u.findWorkerId("new"),
    "scheduler": lambda u: u.findSchedulerId("new"),
    "unclaim": lambda u: u.unclaimBuildRequests([2]),
    "claim": lambda u: u.claimBuildRequests([2]),
    "complete": lambda u: u.completeBuildRequests([2], 0),
}


def test_what_happens_to_others_costs_no_read(
    api: BuildAPI, ws: WebSocketClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever is watched of one builder's builds, and whatever becomes of another's."""
    result_of(a_log(api, "line\n"))
    other = result_of(a_build(api, builder="docs"))
    stepid = result_of(api.data.updates.addStep(other, "compile"))[0]
    assert (other, stepid) == (2, 2)
    assert result_of(api.data.updates.addLog(stepid, "stdio", "s")) == 2
    for number, path in enumerate(MINE):
        ws.send({"cmd": "watch", "path": path, "_id": number})
    ws.sync()

    assert len(api.watches) == len(MINE)
    for name, change in OTHERS.items():
        before = api.seq()
        assert read_by(api, monkeypatch, lambda: change(api.data.updates)) == [], name  # noqa: B023
        assert name == "compress" or api.seq() != before, name


@pytest.mark.systems("sqlite")
def test_who_is_not_concerned_costs_no_sql(api: BuildAPI, ws: WebSocketClient) -> None:
    """The database gets the same statements as if nobody watched."""
    result_of(a_step(api))
    buildid = result_of(a_build(api, builder="docs"))
    reader = api.database._inline
    assert reader is not None

    def traced(change: Callable[[], Deferred[Any]]) -> list[str]:
        found: list[str] = []
        reader.connection.set_trace_callback(found.append)
        result_of(change())
        reader.connection.set_trace_callback(None)
        return [statement.split(" ")[0] for statement in found]

    updates = api.data.updates
    changes = [
        lambda: updates.setBuildStateString(buildid, "same"),
        lambda: updates.setBuildProperty(buildid, "a", 1, "test"),
    ]
    # The first time is another one: of a property, an insertion.
    for change in changes:
        traced(change)
    alone = [traced(change) for change in changes]
    for path in MINE:
        ws.ask("watch", path=path)

    assert len(api.watches) > 10
    assert [traced(change) for change in changes] == alone


def test_many_changes_of_a_transaction_are_one_difference(
    api: BuildAPI, ws: WebSocketClient
) -> None:
    """And one read."""
    buildid = result_of(a_build(api))
    updates = api.data.updates
    watch = Mirror(ws, "builds")
    reads = api.watches.reads

    def body(tx: Tx) -> None:
        for number in range(20):
            updates.setBuildStateString.within(tx, buildid, f"state {number}")

    result_of(api.data.transaction(body))
    watch.catch_up()

    assert watch.deltas == 1
    assert api.watches.reads == reads + 1
    assert watch.rows[0]["state_string"] == "state 19"


@pytest.mark.parametrize("slow", [None, "resume", "latest"])
def test_a_slow_client_gets_one_difference_when_it_reads_again(
    api: BuildAPI, slow: str | None
) -> None:
    """Nothing waits for it in the server meanwhile."""
    buildid = result_of(a_build(api))
    wire = Wire(api)
    ws = WebSocketClient(wire)
    more = {} if slow is None else {"slow": slow}
    watch = Mirror(ws, "builds", **more)
    wire.slow = True
    for number in range(300):
        state = f"{number} " + "x" * 1000
        result_of(api.data.updates.setBuildStateString(buildid, state))
    waiting = wire.waiting
    wire.slow = False
    watch.catch_up()

    assert waiting < Wire.FULL + 2_000
    assert watch.deltas < 100
    assert watch.rows == get(api, "builds")[0]
    assert ws.ended is None


def test_a_slow_client_that_wants_it_is_closed(small: BuildAPI) -> None:
    """As soon as more waits for it than may."""
    wire = Wire(small)
    ws = WebSocketClient(wire)
    Mirror(ws, "builds/1", slow="close")
    wire.slow = True
    for number in range(200):
        state = f"{number} " + "x" * 1000
        result_of(small.data.updates.setBuildStateString(1, state))
    wire.slow = False
    ws.read()

    assert ws.ended is not None
    assert ws.ended[0] == 4008
    assert len(small.watches) == 0


def test_who_goes_away_leaves_nothing_behind(api: BuildAPI) -> None:
    """Neither watches nor timers."""
    wire = Wire(api)
    ws = WebSocketClient(wire)
    timers = len(api.reactor.getDelayedCalls())
    for number, path in enumerate(["builds", "builds/1/steps", "masters"]):
        Mirror(ws, path, sub=number)
    wire.hang_up()
    reads = api.watches.reads
    result_of(a_build(api))

    assert len(api.watches) == 0
    assert api.watches.reads == reads
    assert len(api.reactor.getDelayedCalls()) < timers


QUERIES = [
    "builds",
    "builds/1",
    "builds?complete=false&order=-buildid&limit=3",
    "builds?order=state_string&order=-number&limit=2&offset=1",
    "builds?builderid=1&field=state_string&field=builderid",
    "builds?builderid=2&builderid=1&complete=true",
    "builds?property=a&property=b&limit=5",
    "builds?builderid=1&property=*",
    "builds/1?property=*",
    "builds/2/property_list",
    "builds?limit=0",
    "builds/1/properties",
    "builds/1/property_list?order=name",
    "builders/1/builds?results=0",
    "builders/1/builds/1/steps",
    "builds/1/steps?order=-name",
    "builds/2/steps?complete=false",
    "steps/1/logs",
    "logs/1",
    "logs/1/contents",
    "builders?order=-name",
    "builders/1/buildrequests?order=-buildrequestid&limit=2",
    "buildrequests?claimed=false&limit=4",
    "buildrequests/1",
    "buildrequests?builderid=2&order=-claimed",
    "changes?branch=a&order=-changeid&limit=2",
    "changes?author=b&field=files&field=author",
    "changes/1",
    "buildsets?complete=false",
    "workers?paused=true",
    "schedulers",
    "forceschedulers",
    "masters",
    "/",
]

# By what a number and a text change something.
CHANGES: dict[str, Callable[[AllUpdates, int, str], Deferred[Any]]] = {
    "build": lambda u, n, _: u.newBuild(n, 1, 1),
    "finish": lambda u, n, t: u.finishBuild(n, len(t) % 3),
    "state": lambda u, n, t: u.setBuildStateString(n, t),
    "property": lambda u, n, t: u.setBuildProperty(n, "ab"[n % 2], t, "test"),
    "step": lambda u, n, t: u.addStep(n, "xyz"[len(t) % 3]),
    "step ends": lambda u, n, _: u.finishStep(n, 0, hidden=False),
    "log": lambda u, n, _: u.addLog(n, "stdio", "t"),
    "append": lambda u, n, t: u.appendLog(n, f"{t}\n"),
    "builder": lambda u, _, t: u.findBuilderId(f"builder {t[:1]}"),
    "describe": lambda u, n, t: u.updateBuilderInfo(n, t, None, None, None, [t[:1] or "tag"]),
    "request": lambda u, n, t: u.addBuildset(builderids=[n], sourcestamps=[], reason=t),
    "claim": lambda u, n, _: u.claimBuildRequests([n]),
    "unclaim": lambda u, n, _: u.unclaimBuildRequests([n]),
    "change": lambda u, n, t: u.addChange(author="ab"[n % 2], files=[t], branch=t[:1]),
    "log ends": lambda u, n, _: u.finishLog(n),
    "compress": lambda u, n, _: u.compressLog(n),
    "complete": lambda u, n, _: u.completeBuildRequests([n], 0),
    "pause": lambda u, n, _: u.set_worker_paused(1, n == 1),
    "scheduler": lambda u, n, _: u.findSchedulerId(f"scheduler {n}"),
}
# The same without a word to anybody.
SILENT: dict[str, Callable[[Tx, int, str], object]] = {
    "move": lambda tx, n, t: tx.change(builds, n, builderid=1 + len(t) % 2),
    "set": lambda tx, _, t: tx.run(sa.update(builds).values(state_string=t)),
    "forget": lambda tx, *_: tx.run(sa.delete(build_properties)),
    "cut": lambda tx, n, _: tx.run(sa.delete(logchunks).where(logchunks.c.logid == n)),
    "rename": lambda tx, n, t: tx.run(
        sa.update(build_properties).where(build_properties.c.buildid == n).values(source=t), only=n
    ),
    "unclaim all": lambda tx, *_: tx.run(sa.delete(buildrequest_claims)),
    "delete": lambda tx, n, _: tx.run(sa.delete(logs).where(logs.c.id == n)),
    "hide": lambda tx, n, t: tx.change(steps, n, hidden=1, name=t or "x"),
}

operations = st.tuples(
    st.sampled_from([*CHANGES, *SILENT]), st.integers(1, 2), st.text("abcé", max_size=4)
)


def make(api: BuildAPI, name: str, number: int, text: str) -> None:
    """Make a change; one that is refused is none."""
    if name in CHANGES:
        changed = CHANGES[name](api.data.updates, number, text)
    else:
        changed = api.data.transaction(lambda tx: SILENT[name](tx, number, text))
    refused: list[Failure] = []
    changed.addErrback(refused.append)
    assert [one for one in refused if not one.check(BuildAPIError, sa.exc.DBAPIError)] == []


@settings(
    # 50, or thousands with the profile "thorough".
    max_examples=settings().max_examples // 4,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(
    queries=st.lists(st.sampled_from(QUERIES), min_size=1, max_size=6, unique=True),
    changes=st.lists(operations, min_size=1, max_size=12),
)
def test_what_a_client_has_is_what_a_get_answers(
    api: BuildAPI, queries: list[str], changes: list[tuple[str, int, str]]
) -> None:
    """After every change, at its position, whatever changes and whatever is watched."""
    if not result_of(api.data.get("builds")):
        result_of(a_step(api))
        result_of(a_build(api, builder="docs"))
    wire = Wire(api)
    ws = WebSocketClient(wire)
    watches = [Mirror(ws, path, sub=n) for n, path in enumerate(queries) if get(api, path)[0]]
    for change in changes:
        make(api, *change)
        for watch in watches:
            watch.catch_up()
            rows, meta, seq = get(api, watch.path)
            assert (watch.rows, watch.meta) == (rows, meta), (watch.path, change)
            assert watch.seq <= seq
    wire.hang_up()

    assert len(api.watches) == 0


def test_the_gate_is_asked_for_the_sockets_identity(api: BuildAPI, ws: WebSocketClient) -> None:
    """What is hidden is not there."""
    builderid = builderid_of(api, "runtests")
    result_of(a_build(api))
    api.data.gate = Hiding(hidden=frozenset({builderid}))

    assert Mirror(ws, "builds").ids == []
    assert refused(ws, path="builds/1")[0] == 404
