"""Builders, workers, schedulers and masters: what is configured where."""

from __future__ import annotations

from typing import Any

import pytest
import sqlalchemy as sa

from buildapi.db import tables as t
from buildapi.errors import NoSuchResource
from buildapi.service import BuildAPI
from buildapi.testing import RecordingSubscriber, result_of

HERE, THERE = 1, 2
A, B, C = 1, 2, 3
ONE, TWO = 1, 2


@pytest.fixture
def site(api: BuildAPI) -> BuildAPI:
    """Two masters: a and b here, b and c there; worker one on a, b here and b there, two on c."""
    updates = api.data.updates
    assert result_of(updates.findMasterId("there:/")) == THERE
    result_of(updates.updateBuilderList(HERE, ["a", "b"]))
    result_of(updates.updateBuilderList(THERE, ["b", "c"]))
    assert [result_of(updates.findWorkerId(name)) for name in ("one", "two")] == [ONE, TWO]
    result_of(updates.workerConfigured(ONE, HERE, [A, B, A]))
    result_of(updates.workerConfigured(ONE, THERE, [B]))
    result_of(updates.workerConfigured(TWO, THERE, [C]))
    for masterid in (HERE, THERE):
        result_of(updates.workerConnected(ONE, masterid, {"host": "☃"}))
    return api


def on(*pairs: tuple[int, int]) -> list[dict[str, int]]:
    """Return what ``configured_on`` shows of (master, builder) pairs."""
    return [{"masterid": masterid, "builderid": builderid} for masterid, builderid in sorted(pairs)]


def get(api: BuildAPI, path: str) -> Any:
    """Read something; the builders that a worker is configured on come in any order."""
    found = result_of(api.data.get(path))
    if "configured_on" in found:
        found["configured_on"].sort(key=lambda it: (it["masterid"], it["builderid"]))
    return found


# Workers


@pytest.mark.parametrize(
    ("path", "workers", "configured_on", "connected_to"),
    [
        ("workers", [ONE, TWO], on((HERE, A), (HERE, B), (THERE, B)), [HERE, THERE]),
        ("masters/1/workers", [ONE], on((HERE, A), (HERE, B)), [HERE]),
        ("masters/2/workers", [ONE, TWO], on((THERE, B)), [THERE]),
        ("builders/2/workers", [ONE], on((HERE, B), (THERE, B)), [HERE, THERE]),
        ("masters/2/builders/2/workers", [ONE], on((THERE, B)), [THERE]),
        ("masters/1/builders/3/workers", [], [], []),
        ("masters/9/workers", [], [], []),
        ("builders/9/workers", [], [], []),
    ],
)
def test_a_path_narrows_what_its_workers_show(
    site: BuildAPI,
    path: str,
    workers: list[int],
    configured_on: list[dict[str, int]],
    connected_to: list[int],
) -> None:
    """To its master and builder, in lists and in single objects, by id and by name."""
    found = get(site, path)

    assert [worker["workerid"] for worker in found] == workers
    if workers:
        assert found[0]["configured_on"] == configured_on
        assert found[0]["connected_to"] == [{"masterid": masterid} for masterid in connected_to]
        assert get(site, f"{path}/1") == get(site, f"{path}/one") == found[0]
    else:
        for name in ("1", "one"):
            with pytest.raises(NoSuchResource):
                get(site, f"{path}/{name}")


def test_to_configure_a_worker_replaces_what_it_was(site: BuildAPI) -> None:
    """On this master only; builders that are not on it do not count."""
    result_of(site.data.updates.workerConfigured(ONE, HERE, [B, C]))

    assert get(site, "workers/1")["configured_on"] == on((THERE, B), (HERE, B))


def test_all_workers_of_a_master_can_be_taken_away(site: BuildAPI) -> None:
    """The other master's stay, and connections too."""
    result_of(site.data.updates.deconfigureAllWorkersForMaster(THERE))

    assert get(site, "workers/1")["configured_on"] == on((HERE, A), (HERE, B))
    assert get(site, "workers/2")["configured_on"] == []
    assert len(get(site, "workers/1")["connected_to"]) == 2


def test_a_connection_is_kept_once(site: BuildAPI) -> None:
    """A second one brings what the worker tells of itself."""
    result_of(site.data.updates.workerConnected(ONE, HERE, {"host": "new", "n": [1]}))
    result_of(site.data.updates.workerDisconnected(ONE, THERE))
    result_of(site.data.updates.workerDisconnected(ONE, THERE))
    worker = get(site, "workers/1")

    assert worker["connected_to"] == [{"masterid": HERE}]
    assert worker["workerinfo"] == {"host": "new", "n": [1]}


def test_a_worker_is_paused_for_a_reason(site: BuildAPI) -> None:
    """Which goes when it is resumed."""
    result_of(site.data.updates.set_worker_paused(ONE, True, "broken"))
    paused = get(site, "workers/1")
    result_of(site.data.updates.set_worker_paused(ONE, paused=0))  # type: ignore[arg-type]  # 0 is as good
    resumed = get(site, "workers/1")
    result_of(site.data.updates.set_worker_graceful(ONE, graceful=True))

    assert (paused["paused"], paused["pause_reason"]) == (True, "broken")
    assert (resumed["paused"], resumed["pause_reason"]) == (False, None)
    assert get(site, "workers/1")["graceful"] is True


# Builders


def test_a_builder_that_leaves_a_master_takes_its_workers_along(site: BuildAPI) -> None:
    """Else the next builder would inherit them: SQLite uses the number of a row again."""
    result_of(site.data.updates.updateBuilderList(THERE, ["b"]))
    result_of(site.data.updates.updateBuilderList(THERE, ["b", "new"]))
    new = result_of(site.data.updates.findBuilderId("new"))

    assert get(site, "workers/2")["configured_on"] == []
    assert list(get(site, f"builders/{new}/workers")) == []
    left = site.data.database.read(
        lambda r: r.rows(sa.select(t.configured_workers.c.workerid).distinct(), {})
    )
    assert result_of(left) == [(ONE,)]


def test_the_builders_of_a_master(site: BuildAPI) -> None:
    """Those linked to it; a builder on several masters shows all of them."""
    assert [b["name"] for b in get(site, "masters/2/builders")] == ["b", "c"]
    assert [b["name"] for b in get(site, "workers/1/builders")] == ["a", "b"]
    assert get(site, "builders/b")["masterids"] == [HERE, THERE]
    assert [m["masterid"] for m in get(site, "builders/2/masters")] == [HERE, THERE]
    with pytest.raises(NoSuchResource):
        get(site, "masters/1/builders/3")
    with pytest.raises(NoSuchResource):
        get(site, "builders/1/masters/2")


def test_the_tags_of_a_builder_are_names_or_ids(site: BuildAPI) -> None:
    """Each once; a new list takes the place of the old one."""
    updates = site.data.updates
    result_of(updates.updateBuilderInfo(A, "what", "markdown", "<p>", None, ["x", "y", "x"]))
    result_of(updates.updateBuilderInfo(B, None, None, None, None, [2, "y"]))

    assert get(site, "builders/1")["tags"] == ["x", "y"]
    assert get(site, "builders/2")["tags"] == ["y"]
    assert [b["name"] for b in get(site, "builders?tags__contains=y")] == ["a", "b"]
    assert get(site, "builders/1")["description_html"] == "<p>"


def test_names_are_found_again(site: BuildAPI) -> None:
    """Whatever is in them, and however long they are."""
    updates = site.data.updates
    names = ("☃ / ?", "x" * 5000, " ", "b\n", "B")
    made = [result_of(updates.findBuilderId(name)) for name in names]

    assert made == [4, 5, 6, 7, 8]
    assert [result_of(updates.findBuilderId(name)) for name in names] == made
    for builderid, name in zip(made, names, strict=True):
        assert result_of(site.data.get(("builders", name)))["builderid"] == builderid


# Schedulers


def test_a_scheduler_is_on_one_master(site: BuildAPI) -> None:
    """Another one must wait until it is given back."""
    updates = site.data.updates
    schedulerid = result_of(updates.findSchedulerId("nightly"))
    moves = [HERE, HERE, THERE, None, None, THERE]
    outcomes = [
        result_of(updates.trySetSchedulerMaster(schedulerid, masterid)) for masterid in moves
    ]

    assert outcomes == [True, True, False, True, True, True]
    assert get(site, "schedulers/1")["master"] == get(site, "masters/2")
    assert get(site, "masters/1/schedulers").total == 0
    assert get(site, "masters/2/schedulers/1")["name"] == "nightly"
    with pytest.raises(NoSuchResource):
        get(site, "masters/1/schedulers/1")


# The end of masters


def busy(api: BuildAPI, masterid: int) -> dict[str, int]:
    """Let a master claim and build something, hold a scheduler; return the ids."""
    updates = api.data.updates
    serving, updates.masterid = updates.masterid, masterid
    _, brids = result_of(updates.addBuildset(builderids=[A, B, C]))
    result_of(updates.claimBuildRequests(list(brids.values())))
    buildid, _ = result_of(updates.newBuild(A, brids[A], ONE))
    stepid, _, _ = result_of(updates.addStep(buildid, "compile"))
    logid = result_of(updates.addLog(stepid, "stdio", "s"))
    result_of(updates.appendLog(logid, "oone\n"))
    done, _ = result_of(updates.newBuild(B, brids[B], ONE))
    result_of(updates.finishBuild(done, 0))
    result_of(updates.completeBuildRequests([brids[B]], 0))
    schedulerid = result_of(updates.findSchedulerId(f"of-{masterid}"))
    result_of(updates.trySetSchedulerMaster(schedulerid, masterid))
    updates.masterid = serving
    return {
        "builds": buildid,
        "steps": stepid,
        "logs": logid,
        "done": done,
        "schedulers": schedulerid,
        "running": brids[A],
        "waiting": brids[C],
        "answered": brids[B],
    }


def test_a_master_that_stops_leaves_nothing_half_done(site: BuildAPI) -> None:
    """Its builds end as RETRY with steps and logs, its requests, workers, schedulers are freed."""
    result_of(site.data.updates.masterActive("there:/", THERE))
    theirs, ours = busy(site, THERE), busy(site, HERE)
    result_of(site.data.updates.masterStopped("there:/", THERE))

    for plural, results in (("builds", 5), ("steps", 5)):
        ended = get(site, f"{plural}/{theirs[plural]}")
        assert (ended["complete"], ended["results"]) == (True, results)
        assert get(site, f"{plural}/{ours[plural]}")["complete"] is False
    assert get(site, f"logs/{theirs['logs']}")["complete"] is True
    assert get(site, f"builds/{theirs['done']}")["results"] == 0
    claimed = {name: get(site, f"buildrequests/{theirs[name]}")["claimed"] for name in theirs}
    assert [claimed[name] for name in ("running", "waiting", "answered")] == [False, False, True]
    assert get(site, f"buildrequests/{ours['running']}")["claimed"] is True
    assert get(site, "masters/2")["active"] is False
    assert get(site, "masters/2/builders").total == 0
    assert get(site, "masters/2/workers").total == 0
    assert get(site, "workers/1")["connected_to"] == [{"masterid": HERE}]
    assert get(site, f"schedulers/{theirs['schedulers']}")["master"] is None
    assert get(site, f"schedulers/{ours['schedulers']}")["master"]["masterid"] == HERE


def test_a_lost_master_is_cleared_up_after(site: BuildAPI) -> None:
    """After ten silent minutes; never the serving one."""
    updates = site.data.updates
    for masterid in (HERE, THERE):
        result_of(updates.masterActive("", masterid))
    theirs = busy(site, THERE)
    site.reactor.advance(600)
    result_of(updates.expireMasters())
    assert get(site, f"builds/{theirs['builds']}")["complete"] is False
    site.reactor.advance(1)
    result_of(updates.expireMasters())

    assert get(site, f"builds/{theirs['builds']}")["results"] == 5
    assert get(site, "masters/2")["active"] is False
    assert get(site, "masters/1")["active"] is True


def test_what_a_stopped_master_left_is_cleared_up_by_force(site: BuildAPI) -> None:
    """A master that died before it could say that it was active."""
    theirs = busy(site, THERE)
    result_of(site.data.updates.expireMasters())
    assert get(site, f"builds/{theirs['builds']}")["complete"] is False
    recorded = RecordingSubscriber(site, "master.#")
    result_of(site.data.updates.expireMasters(forceHouseKeeping=True))

    assert get(site, f"builds/{theirs['builds']}")["results"] == 5
    assert recorded.topics == []


# Builders


def test_below_a_worker_a_builder_has_the_masters_that_have_the_worker(site: BuildAPI) -> None:
    """Also where the list is filtered by master."""
    result_of(site.data.updates.workerConfigured(TWO, HERE, [B]))

    assert get(site, f"workers/{TWO}/builders") == [
        {**get(site, f"builders/{B}"), "masterids": [HERE]},
        {**get(site, f"builders/{C}"), "masterids": [THERE]},
    ]
    assert get(site, f"builders/{B}")["masterids"] == [HERE, THERE]
    there = site.data.get(f"workers/{TWO}/builders", filters={"masterids__contains": THERE})
    assert [row["builderid"] for row in result_of(there)] == [C]


def test_tags_keep_the_order_in_which_they_were_given(site: BuildAPI) -> None:
    """Not that of the alphabet, nor that in which the tags were first heard of."""
    given: dict[int, list[int | str]] = {A: ["y", "x"], B: ["x", "z", "y"]}
    for builderid, tags in given.items():
        result_of(site.data.updates.updateBuilderInfo(builderid, None, None, None, None, tags))

    assert get(site, f"builders/{A}")["tags"] == ["y", "x"]
    assert get(site, f"builders/{B}")["tags"] == ["x", "z", "y"]
    assert [row["tags"] for row in get(site, "builders")] == [["y", "x"], ["x", "z", "y"], []]
