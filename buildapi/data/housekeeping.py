"""
When a master stops or is lost: its builds end, its requests go back, its workers, schedulers and
change sources are freed.
"""

from __future__ import annotations

import sqlalchemy as sa

from buildapi.data.builders import BuilderUpdates
from buildapi.data.buildrequests import BuildRequest
from buildapi.data.builds import Build
from buildapi.data.changesources import ChangeSourceUpdates
from buildapi.data.logs import Log
from buildapi.data.masters import Master, MasterUpdates, tell
from buildapi.data.results import RETRY
from buildapi.data.schedulers import SchedulerUpdates
from buildapi.data.steps import Step
from buildapi.data.updates import Flag, Id, must_exist, update
from buildapi.data.workers import WorkerUpdates
from buildapi.db.tables import (
    buildrequest_claims,
    buildrequests,
    builds,
    changesource_masters,
    connected_workers,
    logs,
    masters,
    scheduler_masters,
    steps,
)
from buildapi.db.transaction import Tx

# A master that has not said for ten minutes that it runs is lost.
EXPIRY_S = 600
# What a build and a step say that their master left behind.
INTERRUPTED = "interrupted: the master has gone"

_BUILDS = (
    sa.select(builds.c.id)
    .where(builds.c.masterid == sa.bindparam("masterid"), builds.c.complete_at.is_(None))
    .order_by(builds.c.id)
)
_STEPS = (
    sa.select(steps.c.id)
    .where(steps.c.buildid == sa.bindparam("buildid"), steps.c.complete_at.is_(None))
    .order_by(steps.c.id)
)
_LOGS = (
    sa.select(logs.c.id)
    .where(logs.c.stepid == sa.bindparam("stepid"), logs.c.complete == sa.literal_column("0"))
    .order_by(logs.c.id)
)
_CLAIMS = (
    sa.select(buildrequest_claims.c.brid)
    .join(buildrequests, buildrequests.c.id == buildrequest_claims.c.brid)
    .where(
        buildrequest_claims.c.masterid == sa.bindparam("masterid"),
        buildrequests.c.complete == sa.literal_column("0"),
    )
    .order_by(buildrequest_claims.c.brid)
)
_UNCLAIM = sa.delete(buildrequest_claims).where(buildrequest_claims.c.brid == sa.bindparam("brid_"))
_SCHEDULERS = (
    sa.select(scheduler_masters.c.schedulerid)
    .where(scheduler_masters.c.masterid == sa.bindparam("masterid"))
    .order_by(scheduler_masters.c.schedulerid)
)
_CHANGE_SOURCES = (
    sa.select(changesource_masters.c.changesourceid)
    .where(changesource_masters.c.masterid == sa.bindparam("masterid"))
    .order_by(changesource_masters.c.changesourceid)
)
_CONNECTED = (
    sa.select(connected_workers.c.workerid)
    .where(connected_workers.c.masterid == sa.bindparam("masterid"))
    .order_by(connected_workers.c.workerid)
)
_SILENT = (
    sa.select(masters.c.id)
    .where(
        masters.c.active != sa.literal_column("0"),
        masters.c.last_active < sa.bindparam("before"),
        masters.c.id != sa.bindparam("me"),
    )
    .order_by(masters.c.id)
)


def finish_step(tx: Tx, stepid: int, results: int) -> None:
    """End a step and its logs."""
    for (logid,) in tx.rows(_LOGS, {"stepid": stepid}):
        tx.change(logs, logid, complete=1)
        tx.memory.pop(("log", logid), None)
        tx.emit(Log, logid, "complete")
    tx.change(
        steps, stepid, complete_at=tx.now, results=results, hidden=0, state_string=INTERRUPTED
    )
    tx.emit(Step, stepid, "finished")


def finish_build(tx: Tx, buildid: int, results: int) -> None:
    """End a build with its steps and logs."""
    for (stepid,) in tx.rows(_STEPS, {"buildid": buildid}):
        finish_step(tx, stepid, results)
    tx.change(builds, buildid, complete_at=tx.now, results=results, state_string=INTERRUPTED)
    tx.emit(Build, buildid, "finished")


def release_work(tx: Tx, masterid: int) -> None:
    """End a master's unfinished builds as RETRY and give back the requests that it claimed."""
    for (buildid,) in tx.rows(_BUILDS, {"masterid": masterid}):
        finish_build(tx, buildid, RETRY)
    for (brid,) in tx.rows(_CLAIMS, {"masterid": masterid}):
        tx.run(_UNCLAIM, {"brid_": brid}, only=brid)
        tx.emit(BuildRequest, brid, "unclaimed")


class Housekeeping(
    MasterUpdates, BuilderUpdates, SchedulerUpdates, ChangeSourceUpdates, WorkerUpdates
):
    """The end of masters."""

    @update
    def masterStopped(self, tx: Tx, name: str, masterid: Id) -> None:  # noqa: ARG002  the contract has both
        """
        Note that a master has stopped, and clear up after it.  Publishes ``stopped`` if it was
        active.
        """
        self._stopped(tx, masterid, force=False)

    @update
    def expireMasters(self, tx: Tx, forceHouseKeeping: Flag = False) -> None:
        """
        Note that masters are lost which have been silent for ten minutes, and clear up after them.

        forceHouseKeeping: clear up after masters that are known to have stopped, too.
        """
        me = -1 if self.masterid is None else self.masterid
        lost = [row[0] for row in tx.rows(_SILENT, {"before": tx.now - EXPIRY_S, "me": me})]
        for masterid in lost:
            self._stopped(tx, masterid, force=False)
        if forceHouseKeeping:
            for (masterid,) in tx.rows(_INACTIVE, {}):
                self._stopped(tx, masterid, force=True)

    def _stopped(self, tx: Tx, masterid: int, *, force: bool) -> None:
        was_active = must_exist(tx, Master, masterid)[3]
        if not was_active and not force:
            return
        tx.change(masters, masterid, active=0)
        release_work(tx, masterid)
        for (workerid,) in tx.rows(_CONNECTED, {"masterid": masterid}):
            self.workerDisconnected.within(tx, workerid, masterid)
        self.deconfigureAllWorkersForMaster.within(tx, masterid)
        self.updateBuilderList.within(tx, masterid, [])
        for (schedulerid,) in tx.rows(_SCHEDULERS, {"masterid": masterid}):
            self.trySetSchedulerMaster.within(tx, schedulerid, None)
        for (changesourceid,) in tx.rows(_CHANGE_SOURCES, {"masterid": masterid}):
            self.trySetChangeSourceMaster.within(tx, changesourceid, None)
        if was_active:
            tell(tx, masterid, "stopped", active=False)


_INACTIVE = (
    sa.select(masters.c.id).where(masters.c.active == sa.literal_column("0")).order_by(masters.c.id)
)
