"""
Asking for builds: build sets and their requests, from the first wish to the last result.

The updates of both stand together, because a set is complete when its requests are.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import datetime
from typing import Annotated, Any

import sqlalchemy as sa
from pydantic import Field

from buildapi.data.announce import told
from buildapi.data.builders import Builder
from buildapi.data.buildrequests import BuildRequest
from buildapi.data.builds import Build
from buildapi.data.buildsets import Buildset
from buildapi.data.properties import of_buildset
from buildapi.data.results import CANCELLED, worst
from buildapi.data.sourcestamps import Wanted, stamp
from buildapi.data.updates import (
    Flag,
    Id,
    Moment,
    ResultCode,
    Sourced,
    Text256,
    Updates,
    is_id,
    must_exist,
    update,
)
from buildapi.db.hashes import shortened
from buildapi.db.tables import (
    buildrequest_claims,
    buildrequests,
    builds,
    buildset_properties,
    buildset_sourcestamps,
    buildsets,
)
from buildapi.db.transaction import Tx
from buildapi.errors import BadArgument, NoSuchResource

_FIRST_BUILD = (
    sa.select(builds.c.id)
    .where(builds.c.buildrequestid == sa.bindparam("brid"))
    .order_by(builds.c.id)
    .limit(sa.literal_column("1"))
)
_STAMPS = sa.select(buildset_sourcestamps.c.sourcestampid).where(
    buildset_sourcestamps.c.buildsetid == sa.bindparam("bsid")
)
_REQUESTS = sa.select(buildrequests.c.complete, buildrequests.c.results).where(
    buildrequests.c.buildsetid == sa.bindparam("bsid")
)
_FINISH = (
    sa.update(buildsets)
    .where(buildsets.c.id == sa.bindparam("bsid"), buildsets.c.complete == sa.literal_column("0"))
    .values(complete=1, complete_at=sa.bindparam("at"), results=sa.bindparam("worst"))
)
_REASON_CHARACTERS = 256

Priority = Annotated[int, Field(ge=-(2**31), lt=2**31)]


def complete_if_done(tx: Tx, bsid: int) -> None:
    """Complete a build set whose requests all are; once, with the worst of their results."""
    requests = tx.rows(_REQUESTS, {"bsid": bsid})
    if not all(complete for complete, _ in requests):
        return
    result = worst(results for _, results in requests)
    if tx.run(_FINISH, {"bsid": bsid, "at": tx.now, "worst": result}):
        tx.emit(Buildset, bsid, "complete")


class BuildsetUpdates(Updates):
    """What asks for builds."""

    @update
    def addBuildset(
        self,
        tx: Tx,
        waited_for: Flag = False,
        scheduler: str | None = None,
        sourcestamps: list[Wanted] | None = None,
        reason: str = "",
        properties: Sourced | None = None,
        builderids: list[Id] | None = None,
        external_idstring: Text256 | None = None,
        rebuilt_buildid: Id | None = None,
        parent_buildid: Id | None = None,
        parent_relationship: str | None = None,
        priority: Priority = 0,
    ) -> tuple[int, dict[int, int]]:
        """
        Ask for a build on each builder; return ``(bsid, {builderid: buildrequestid})``.

        sourcestamps: ids, objects of the API, or dictionaries of branch, revision, repository,
        project, codebase and patch_body, patch_level, patch_author, patch_comment, patch_subdir.
        properties: ``{name: (value, source)}``. Publishes ``new`` of the set and of each request; a
        set without builders is complete at once.
        """
        for builderid in builderids or ():
            must_exist(tx, Builder, builderid, "builderids")
        for parameter, buildid in (
            ("rebuilt_buildid", rebuilt_buildid),
            ("parent_buildid", parent_buildid),
        ):
            if buildid is not None:
                must_exist(tx, Build, buildid, parameter)
        stamps = [stamp(tx, one) for one in sourcestamps or ()]
        bsid = tx.insert(
            buildsets,
            external_idstring=external_idstring,
            reason=shortened(reason, _REASON_CHARACTERS),
            submitted_at=tx.now,
            complete=0,
            results=-1,
            parent_buildid=parent_buildid,
            parent_relationship=parent_relationship,
            rebuilt_buildid=rebuilt_buildid,
        )
        for ssid in dict.fromkeys(stamps):
            tx.insert(buildset_sourcestamps, buildsetid=bsid, sourcestampid=ssid)
        for name, it in (properties or {}).items():
            tx.insert_later(buildset_properties, (bsid, name, it.pair))
        brids = {
            builderid: tx.insert(
                buildrequests,
                buildsetid=bsid,
                builderid=builderid,
                priority=priority,
                complete=0,
                results=-1,
                submitted_at=tx.now,
                waited_for=int(waited_for),
            )
            for builderid in dict.fromkeys(builderids or ())
        }
        # After its requests are there, so that the event has their scope.
        _announce(tx, bsid, scheduler)
        for brid in brids.values():
            tx.emit(BuildRequest, brid, "new")
        if not brids:
            complete_if_done(tx, bsid)
        return bsid, brids

    @update
    def maybeBuildsetComplete(self, tx: Tx, bsid: Id) -> None:
        """Complete a build set if all its requests are.  Publishes ``complete``, once per set."""
        must_exist(tx, Buildset, bsid)
        complete_if_done(tx, bsid)


def _announce(tx: Tx, bsid: int, scheduler: str | None) -> None:
    body = dict(told(Buildset, tx, bsid).object)
    del body["parent_relationship"]
    body.update(complete=False, complete_at=None, results=None, scheduler=scheduler)
    tx.emit(Buildset, bsid, "new", body=body)


_COMPLETE = (
    sa.update(buildrequests)
    .where(
        buildrequests.c.id == sa.bindparam("brid"),
        buildrequests.c.complete.is_distinct_from(sa.literal_column("1")),
    )
    .values(complete=1, results=sa.bindparam("outcome"), complete_at=sa.bindparam("at"))
)
_UNCLAIM = sa.delete(buildrequest_claims).where(
    buildrequest_claims.c.brid == sa.bindparam("brid_"),
    buildrequest_claims.c.masterid == sa.bindparam("masterid_"),
)
_STATE = (
    sa.select(buildrequests.c.complete, buildrequests.c.buildsetid, buildrequest_claims.c.masterid)
    .select_from(BuildRequest.source)
    .where(buildrequests.c.id == sa.bindparam("brid"))
)


@dataclass(frozen=True)
class RequestState:
    """How far a request has come.  claimed_by: the id of a master, if one has claimed it."""

    complete: bool
    claimed_by: int | None


def state_of(tx: Tx, brid: int) -> RequestState:
    """Read how far a request has come; NoSuchResource if there is none."""
    row = tx.first(_STATE, {"brid": brid})
    if row is None:
        raise NoSuchResource(f"brid: there is no build request {brid}")
    return RequestState(bool(row[0]), row[2])


def complete(tx: Tx, brid: int, results: int, at: int) -> int:
    """
    Complete a request and say so; return its build set. The caller has looked that it is open.
    """
    buildsetid: int = must_exist(tx, BuildRequest, brid)[1]
    tx.run(_COMPLETE, {"brid": brid, "outcome": results, "at": at}, only=brid)
    tx.emit(BuildRequest, brid, "complete")
    return buildsetid


def _epoch(moment: datetime | int | None, now: int) -> int:
    if moment is None:
        return now
    return int(moment.timestamp()) if isinstance(moment, datetime) else moment


class BuildRequestUpdates(BuildsetUpdates):
    """What becomes of requests for builds."""

    @update
    def claimBuildRequests(self, tx: Tx, brids: list[Id], claimed_at: Moment | None = None) -> bool:
        """
        Claim requests for the serving master: all, or none (false) if one is not to be had.

        Publishes ``claimed`` of each.
        """
        wanted = list(dict.fromkeys(brids))
        for brid in wanted:
            row = tx.first(_STATE, {"brid": brid})
            if row is None or row[0] or row[2] is not None:
                return False
        for brid in wanted:
            tx.insert_later(buildrequest_claims, (brid, self.serving, _epoch(claimed_at, tx.now)))
            tx.emit(BuildRequest, brid, "claimed")
        return True

    @update
    def unclaimBuildRequests(self, tx: Tx, brids: list[Id]) -> None:
        """Give back the requests that the serving master has claimed.  Publishes ``unclaimed``."""
        for brid in dict.fromkeys(brids):
            if tx.run(_UNCLAIM, {"brid_": brid, "masterid_": self.serving}, only=brid):
                tx.emit(BuildRequest, brid, "unclaimed")

    @update
    def completeBuildRequests(
        self,
        tx: Tx,
        brids: list[Id],
        results: ResultCode,
        complete_at: Moment | None = None,
    ) -> bool:
        """
        Complete requests that the serving master has claimed: all, or none (false).

        Publishes ``complete`` of each, and of the build sets that are complete by it.
        """
        wanted = list(dict.fromkeys(brids))
        for brid in wanted:
            row = tx.first(_STATE, {"brid": brid})
            if row is None or row[0] or row[2] != self.serving:
                return False
        sets = [complete(tx, brid, results, _epoch(complete_at, tx.now)) for brid in wanted]
        for bsid in dict.fromkeys(sets):
            complete_if_done(tx, bsid)
        return True

    @update
    def cancelBuildRequest(self, tx: Tx, brid: Id) -> bool:
        """
        Cancel a request that nobody builds: unclaimed, or claimed by the serving master.

        Returns whether it was; false if it is complete, or another master has it.
        Publishes ``complete`` of the request and perhaps of its set, then ``cancel``.
        """
        state = state_of(tx, brid)
        if state.complete or state.claimed_by not in (None, self.masterid):
            return False
        if state.claimed_by is None and self.masterid is not None:
            # As Buildbot's masters do: whoever answers a request has claimed it.
            tx.insert_later(buildrequest_claims, (brid, self.masterid, tx.now))
        complete_if_done(tx, complete(tx, brid, CANCELLED, tx.now))
        tx.emit(BuildRequest, brid, "cancel")
        return True

    @update
    def setBuildRequestPriority(self, tx: Tx, brid: Id, priority: Priority) -> None:
        """Make a request more or less urgent.  Publishes ``priority``."""
        must_exist(tx, BuildRequest, brid, "brid")
        tx.change(buildrequests, brid, priority=priority)
        tx.emit(BuildRequest, brid, "priority")

    @update
    def rebuildBuildrequest(
        self, tx: Tx, buildrequest: dict[str, Any]
    ) -> tuple[int, dict[int, int]]:
        """
        Ask again for what a request asked for; return ``(bsid, {builderid: buildrequestid})``.

        buildrequest: its object. The new set has scheduler ``rebuild``, the same source stamps and
        properties, and as ``rebuilt_buildid`` the first build of the original chain.
        """
        brid = buildrequest.get("buildrequestid")
        if not is_id(brid):
            raise BadArgument("rebuildBuildrequest: buildrequest: an object of the API is wanted")
        must_exist(tx, BuildRequest, brid, "buildrequest")
        request = told(BuildRequest, tx, brid).object
        bsid = request["buildsetid"]
        original = told(Buildset, tx, bsid).object
        first_build = tx.first(_FIRST_BUILD, {"brid": brid})
        return self.addBuildset.within(
            tx,
            scheduler="rebuild",
            sourcestamps=[row[0] for row in tx.rows(_STAMPS, {"bsid": bsid})],
            reason="rebuild",
            properties={n: (json.loads(v), s) for n, v, s in of_buildset(tx, bsid)},
            builderids=[request["builderid"]],
            external_idstring=original["external_idstring"],
            rebuilt_buildid=_still_there(tx, original["rebuilt_buildid"])
            or (first_build[0] if first_build else None),
            parent_buildid=_still_there(tx, original["parent_buildid"]),
            parent_relationship=original["parent_relationship"],
        )


def _still_there(tx: Tx, buildid: int | None) -> int | None:
    """Return the id of a build that an old build set names, or None if it has been deleted."""
    if buildid is None or tx.first(_BUILD, {"buildid": buildid}) is None:
        return None
    return buildid


_BUILD = sa.select(builds.c.id).where(builds.c.id == sa.bindparam("buildid"))
