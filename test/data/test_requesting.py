"""Build sets and requests: from the wish to the last result."""

from __future__ import annotations

import base64
from datetime import UTC, datetime
from typing import Any

import pytest
import sqlalchemy as sa
from hypothesis import given
from hypothesis import strategies as st

from buildapi.data.results import worst
from buildapi.db import tables as t
from buildapi.errors import NoSuchResource
from buildapi.service import BuildAPI
from buildapi.testing import NOON, RecordingSubscriber, in_memory_api, result_of

Row = dict[str, Any]
FROM_BEST_TO_WORST = [3, 0, 1, 2, 4, 5, 6]


def get(api: BuildAPI, *path: int | str, **query: Any) -> Any:
    """Read something."""
    return result_of(api.data.get(path, **query))


def ask(api: BuildAPI, builders: int = 1, **values: Any) -> tuple[int, list[int]]:
    """Ask for builds on so many builders; return the set and its requests."""
    ids = [result_of(api.data.updates.findBuilderId(f"b{n}")) for n in range(builders)]
    bsid, brids = result_of(api.data.updates.addBuildset(builderids=ids, **values))
    return bsid, [brids[builderid] for builderid in ids]


def rows(api: BuildAPI, table: sa.Table) -> list[Any]:
    """Return all rows of a table."""
    found: list[Any] = result_of(api.data.database.read(lambda r: r.rows(sa.select(table), {})))
    return found


# Build sets


def test_a_build_set_has_what_was_asked_for(api: BuildAPI) -> None:
    """Incomplete: its results are -1, its requests pending."""
    bsid, (brid,) = ask(
        api,
        reason="why",
        priority=5,
        waited_for=True,
        external_idstring="id",
        properties={"p": ([1], "test")},
    )

    buildset, request = get(api, "buildsets", bsid), get(api, "buildrequests", brid, properties="*")
    assert (buildset["complete"], buildset["complete_at"], buildset["results"]) == (False, None, -1)
    assert (buildset["reason"], buildset["external_idstring"]) == ("why", "id")
    assert (request["complete"], request["claimed"], request["results"]) == (False, False, -1)
    assert (request["priority"], request["waited_for"]) == (5, True)
    assert request["submitted_at"] == buildset["submitted_at"] == NOON
    assert (
        request["properties"] == get(api, "buildsets", bsid, "properties") == {"p": [[1], "test"]}
    )


def test_a_builder_is_asked_once(api: BuildAPI) -> None:
    """However often it stands in the list; so is a source stamp."""
    builderid = result_of(api.data.updates.findBuilderId("b"))
    bsid, brids = result_of(
        api.data.updates.addBuildset(
            builderids=[builderid] * 3, sourcestamps=[{"branch": "x"}, {"branch": "x"}, 1]
        )
    )

    assert list(brids) == [builderid]
    assert get(api, "buildsets", bsid, "sourcestamps").total == 1


def test_a_long_reason_is_shortened(api: BuildAPI) -> None:
    """The column is 256 wide; two long ones with the same beginning stay different."""
    first, second = (get(api, "buildsets", ask(api, reason="x" * 300 + end)[0]) for end in "ab")

    assert len(first["reason"]) == 168
    assert first["reason"] != second["reason"]


def test_a_set_without_builders_is_complete_at_once(api: BuildAPI) -> None:
    """Successfully: there is nothing to do."""
    bsid, brids = ask(api, builders=0)
    buildset = get(api, "buildsets", bsid)

    assert brids == []
    assert (buildset["complete"], buildset["complete_at"], buildset["results"]) == (True, NOON, 0)


# Source stamps


def stamps(api: BuildAPI, *given: Any) -> list[Row]:
    """Ask for a build of these sources; return the source stamps of the set."""
    bsid, _ = ask(api, sourcestamps=list(given))
    return list(get(api, "buildsets", bsid, "sourcestamps"))


def test_equal_sources_are_one_stamp(api: BuildAPI) -> None:
    """What is missing is null, or empty; null is not the empty text."""
    (one,) = stamps(api, {"branch": "main", "codebase": "app"})
    (same,) = stamps(api, {"codebase": "app", "branch": "main", "revision": None, "project": ""})
    (other,) = stamps(api, {"branch": "main", "codebase": "app", "revision": ""})

    assert one == same
    assert one["ssid"] != other["ssid"]


def test_a_stamp_may_be_an_id_or_an_object_of_the_api(api: BuildAPI) -> None:
    """An object with a patch too: its id says which."""
    (patched,) = stamps(api, {"branch": "main", "patch_body": b"diff"})

    for one in (patched, patched["ssid"], str(patched["ssid"]), {"ssid": patched["ssid"]}):
        assert stamps(api, one) == [patched]


def test_each_patch_makes_a_new_stamp(api: BuildAPI) -> None:
    """Its bytes are kept, and never shown."""
    patch = {
        "patch_body": "diff ☃",
        "patch_level": 2,
        "patch_author": "alice",
        "patch_comment": "try",
        "patch_subdir": "src",
    }
    (one,) = stamps(api, {"branch": "main", **patch})
    (two,) = stamps(api, {"branch": "main", **patch})

    assert one["ssid"] != two["ssid"]
    assert one["patch"] == {
        "patchid": 1,
        "level": 2,
        "author": "alice",
        "comment": "try",
        "subdir": "src",
        "body": None,
    }
    assert base64.b64decode(rows(api, t.patches)[0][2]).decode() == "diff ☃"


@pytest.mark.parametrize("body", [b"", "", None])
def test_an_empty_patch_is_no_patch(api: BuildAPI, body: Any) -> None:
    """Whatever else is said of it."""
    (bare,) = stamps(api, {"branch": "main"})
    (same,) = stamps(api, {"branch": "main", "patch_body": body, "patch_author": "alice"})

    assert same == bare
    assert rows(api, t.patches) == []


# Claims


def test_claims_are_all_or_none(api: BuildAPI) -> None:
    """One that is claimed, complete or missing spoils it."""
    updates = api.data.updates
    _, (first, second, third) = ask(api, builders=3)
    assert result_of(updates.claimBuildRequests([first]))
    assert result_of(updates.cancelBuildRequest(second))

    for spoilt in ([third, first], [third, second], [third, 99]):
        assert result_of(updates.claimBuildRequests(spoilt)) is False
    assert get(api, "buildrequests", third)["claimed"] is False
    assert result_of(updates.claimBuildRequests([])) is True


def test_a_claim_says_who_and_when(api: BuildAPI) -> None:
    """The serving master; now, unless told otherwise."""
    _, (first, second) = ask(api, builders=2)
    result_of(api.data.updates.claimBuildRequests([first]))
    result_of(api.data.updates.claimBuildRequests([second], datetime.fromtimestamp(1000, tz=UTC)))

    one, two = get(api, "buildrequests", first), get(api, "buildrequests", second)
    assert (one["claimed"], one["claimed_by_masterid"], one["claimed_at"]) == (True, 1, NOON)
    assert two["claimed_at"] == 1000


def test_another_masters_claims_are_not_ours(api: BuildAPI) -> None:
    """They are neither given back, completed nor cancelled here."""
    updates = api.data.updates
    _, (brid,) = ask(api)
    other = result_of(updates.findMasterId("other:/"))
    updates.masterid, mine = other, updates.masterid
    assert result_of(updates.claimBuildRequests([brid]))
    updates.masterid = mine
    recorded = RecordingSubscriber(api)

    result_of(updates.unclaimBuildRequests([brid]))
    assert result_of(updates.claimBuildRequests([brid])) is False
    assert result_of(updates.completeBuildRequests([brid], 0)) is False
    assert result_of(updates.cancelBuildRequest(brid)) is False
    assert get(api, "buildrequests", brid)["claimed_by_masterid"] == other
    assert recorded.topics == []


# Results


def test_the_last_request_completes_its_set(api: BuildAPI) -> None:
    """Once, with the worst result of all."""
    updates = api.data.updates
    bsid, brids = ask(api, builders=3)
    result_of(updates.claimBuildRequests(brids))
    recorded = RecordingSubscriber(api, "buildset.#")
    for brid, results in zip(brids, (1, 2, 0), strict=True):
        assert get(api, "buildsets", bsid)["complete"] is False
        assert result_of(updates.completeBuildRequests([brid], results))
    result_of(updates.maybeBuildsetComplete(bsid))

    assert recorded.topics == [f"buildset.{bsid}.complete"]
    buildset = get(api, "buildsets", bsid)
    assert (buildset["complete"], buildset["complete_at"], buildset["results"]) == (True, NOON, 2)


def test_requests_that_are_completed_together_complete_their_set_once(api: BuildAPI) -> None:
    """In one transaction; each keeps its own event."""
    bsid, brids = ask(api, builders=2)
    result_of(api.data.updates.claimBuildRequests(brids))
    recorded = RecordingSubscriber(api)
    assert result_of(api.data.updates.completeBuildRequests([*brids, brids[0]], 1, 1000))

    assert recorded.topics == [
        *(f"buildrequest.{brid}.complete" for brid in brids),
        f"buildset.{bsid}.complete",
    ]
    assert get(api, "buildrequests", brids[1])["complete_at"] == 1000


@given(st.lists(st.sampled_from([*FROM_BEST_TO_WORST, None, -1, 99])))
def test_the_worst_result_counts(results: list[int | None]) -> None:
    """Beginning with success, as Buildbot does: a set of skipped requests is a success."""
    known = [FROM_BEST_TO_WORST.index(r) for r in results if r in FROM_BEST_TO_WORST]

    assert worst(results) == FROM_BEST_TO_WORST[max([1, *known])]


# Cancelling


def test_a_pending_request_is_cancelled(api: BuildAPI) -> None:
    """The master claims it for that, as Buildbot's do; the set ends with the result."""
    bsid, (brid,) = ask(api)

    assert result_of(api.data.updates.cancelBuildRequest(brid)) is True
    request = get(api, "buildrequests", brid)
    assert (request["complete"], request["complete_at"], request["results"]) == (True, NOON, 6)
    assert (request["claimed"], request["claimed_by_masterid"]) == (True, 1)
    assert get(api, "buildsets", bsid)["results"] == 6
    assert result_of(api.data.updates.cancelBuildRequest(brid)) is False


def test_a_claimed_request_is_cancelled_by_its_master(api: BuildAPI) -> None:
    """It keeps its claim."""
    _, (brid,) = ask(api)
    result_of(api.data.updates.claimBuildRequests([brid], 1000))

    assert result_of(api.data.updates.cancelBuildRequest(brid)) is True
    assert get(api, "buildrequests", brid)["claimed_at"] == 1000


def test_a_server_that_is_no_master_cancels_without_a_claim() -> None:
    """Nobody could have made one."""
    api = in_memory_api(master=None)
    _, (brid,) = ask(api)

    assert result_of(api.data.updates.cancelBuildRequest(brid)) is True
    assert get(api, "buildrequests", brid)["claimed"] is False


def test_cancelling_a_missing_request_leaves_nothing_behind(api: BuildAPI) -> None:
    """The reference leaves a claim."""
    with pytest.raises(NoSuchResource):
        result_of(api.data.updates.cancelBuildRequest(99))
    assert rows(api, t.buildrequest_claims) == []


# Rebuilding


def a_build(api: BuildAPI, brid: int) -> int:
    """Make a build of a request."""
    workerid = result_of(api.data.updates.findWorkerId("w"))
    builderid = get(api, "buildrequests", brid)["builderid"]
    buildid: int = result_of(api.data.updates.newBuild(builderid, brid, workerid))[0]
    return buildid


def rebuilt(api: BuildAPI, brid: int) -> tuple[Row, int]:
    """Rebuild a request; return the new build set and the new request."""
    request = get(api, "buildrequests", brid)
    bsid, brids = result_of(api.data.updates.rebuildBuildrequest(request))
    return get(api, "buildsets", bsid), brids[request["builderid"]]


def test_a_rebuild_is_of_the_same_source_with_the_same_properties(api: BuildAPI) -> None:
    """Not waited for, of no priority."""
    bsid, (brid, _) = ask(
        api,
        builders=2,
        waited_for=True,
        priority=9,
        sourcestamps=[{"codebase": "app", "patch_body": b"x"}, {"codebase": "lib"}],
        properties={"p": (float("nan"), "test"), "q": ({"a": [None]}, "other")},
    )
    a_build(api, brid)
    buildset, again = rebuilt(api, brid)
    request = get(api, "buildrequests", again)

    same = get(api, "buildsets", bsid)
    assert buildset["sourcestamps"] == same["sourcestamps"]
    assert list(get(api, "buildsets", buildset["bsid"], "properties_list")) == list(
        get(api, "buildsets", bsid, "properties_list")
    )
    assert (buildset["reason"], request["priority"], request["waited_for"]) == ("rebuild", 0, False)
    assert get(api, "buildrequests", filters={"buildsetid": buildset["bsid"]}).total == 1


def test_a_chain_of_rebuilds_remembers_its_first_build(api: BuildAPI) -> None:
    """Not the last one: all attempts are found by it."""
    _, (brid,) = ask(api)
    first = a_build(api, brid)
    a_build(api, brid)
    for _ in range(3):
        buildset, brid = rebuilt(api, brid)
        assert buildset["rebuilt_buildid"] == first
        a_build(api, brid)


def test_a_request_that_was_never_built_can_be_asked_for_again(api: BuildAPI) -> None:
    """There is no first build then."""
    _, (brid,) = ask(api)

    assert rebuilt(api, brid)[0]["rebuilt_buildid"] is None


def test_a_rebuild_survives_the_end_of_what_triggered_it(api: BuildAPI) -> None:
    """Old builds are deleted: their numbers are not carried on."""
    parent = a_build(api, ask(api)[1][0])
    _, (brid,) = ask(api, parent_buildid=parent, parent_relationship="by", rebuilt_buildid=parent)
    assert rebuilt(api, brid)[0]["parent_buildid"] == parent
    gone = sa.delete(t.builds).where(t.builds.c.id == parent)
    result_of(api.data.transaction(lambda tx: tx.run(gone)))

    buildset, _ = rebuilt(api, brid)
    assert (buildset["parent_buildid"], buildset["rebuilt_buildid"]) == (None, None)
    assert buildset["parent_relationship"] == "by"


def test_triggered_builds_are_those_of_sets_with_this_parent(api: BuildAPI) -> None:
    """However many sets it triggered; a missing build triggered none."""
    parent = a_build(api, ask(api)[1][0])
    children = [
        a_build(api, brid)
        for _ in range(2)
        for brid in ask(api, builders=2, parent_buildid=parent)[1]
    ]

    found = get(api, "builds", parent, "triggered_builds", properties="*")
    assert [build["buildid"] for build in found] == children
    assert found[0]["properties"] == {}
    assert list(get(api, "builds", 99, "triggered_builds")) == []
