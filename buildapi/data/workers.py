"""Workers: where the steps of builds run."""

from __future__ import annotations

from typing import Annotated, Any

import sqlalchemy as sa

from buildapi.data.masters import Master
from buildapi.data.schema import (
    Column,
    Condition,
    Narrowing,
    Resource,
    field,
    happens,
    json_array,
    key_names,
)
from buildapi.data.updates import (
    Flag,
    Id,
    JsonObject,
    Seconds,
    ShortName,
    Updates,
    found_or_made,
    must_exist,
    update,
)
from buildapi.data.values import Json, nested
from buildapi.db import spelling
from buildapi.db.tables import (
    builder_masters,
    builders,
    configured_workers,
    connected_workers,
    workers,
)
from buildapi.db.transaction import Tx
from buildapi.errors import NoSuchResource

_configured = configured_workers.join(
    builder_masters, builder_masters.c.id == configured_workers.c.buildermasterid
)


def _narrowed(keys: frozenset[str]) -> list[Condition]:
    """Return the conditions on a configuration that a path with a master or builder means."""
    return [
        builder_masters.c[name] == sa.bindparam(name)
        for name in ("builderid", "masterid")
        if name in keys
    ]


def _configured_on(narrowing: Narrowing) -> Column:
    pair = spelling.json_object(
        sa.literal_column("'masterid'"),
        builder_masters.c.masterid,
        sa.literal_column("'builderid'"),
        builder_masters.c.builderid,
    )
    where = sa.and_(configured_workers.c.workerid == workers.c.id, *_narrowed(narrowing.keys))
    return json_array(pair, _configured, where)


def _connected_to(narrowing: Narrowing) -> Column:
    where: Condition = connected_workers.c.workerid == workers.c.id
    if "masterid" in narrowing.keys:
        where = sa.and_(where, connected_workers.c.masterid == sa.bindparam("masterid"))
    one = spelling.json_object(sa.literal_column("'masterid'"), connected_workers.c.masterid)
    return json_array(one, connected_workers, where)


MasterId = Annotated[Any, nested("master_id", masterid=int)]
MasterBuilder = Annotated[Any, nested("master_builder", masterid=int, builderid=int)]


class Worker(Resource):
    """A machine, container or process that runs the steps of builds for a master."""

    plural, table = "workers", workers
    keys = {"workerid": workers.c.id, "name": workers.c.name}
    one = (
        "workers/n:workerid",
        "workers/i:name",
        "builders/n:builderid/workers/n:workerid",
        "builders/n:builderid/workers/i:name",
        "masters/n:masterid/workers/n:workerid",
        "masters/n:masterid/workers/i:name",
        "masters/n:masterid/builders/n:builderid/workers/n:workerid",
        "masters/n:masterid/builders/n:builderid/workers/i:name",
    )
    many = (
        "workers",
        "builders/n:builderid/workers",
        "masters/n:masterid/workers",
        "masters/n:masterid/builders/n:builderid/workers",
    )
    topic = "worker.{workerid}"
    slash_keys = ("workers/{workerid}",)
    events = {
        "new": happens("The worker is known.", slash=None),
        "configured": happens("The builders it is configured for changed.", slash=None),
        "connected": happens("It connected to a master."),
        "disconnected": happens("It disconnected from a master."),
        "missing": happens("It is missed.  Body: also last_connection (epoch seconds) and notify."),
        "state_updated": happens("It was paused or resumed, or will stop gracefully."),
    }
    actions = {
        "stop": "Let it stop once its builds are done.  Parameter: reason.",
        "pause": "Let it start no new builds.  Parameter: reason.",
        "unpause": "Let it start builds again.",
        "kill": "End it at once, whatever it builds.  Parameter: reason.",
    }

    workerid: int = field(workers.c.id, "Unique id of this worker.")
    name: str = field(workers.c.name, "Its name, unique.")
    connected_to: list[MasterId] = field(
        _connected_to, "The masters it is connected to: a list of {masterid}."
    )
    configured_on: list[MasterBuilder] = field(
        _configured_on, "The builders it is configured for: a list of {masterid, builderid}."
    )
    workerinfo: Json = field(workers.c.info, "What it tells of itself: an object of any keys.")
    paused: bool = field(workers.c.paused, "Whether it starts no new builds.")
    pause_reason: str | None = field(
        workers.c.pause_reason, "Why it is paused, if a reason was given."
    )
    graceful: bool = field(workers.c.graceful, "Whether it stops once its builds are done.")

    @classmethod
    def located(cls, pattern: str) -> tuple[sa.FromClause, list[Condition]]:
        """
        Find by id or name, among those that one configuration row links to the path's master and
        builder.
        """
        keys = key_names(pattern)
        found: list[Any] = [
            key == sa.bindparam(name) for name, key in cls.keys.items() if name in keys
        ]
        narrowed = _narrowed(keys)
        if narrowed:
            linked = (
                sa.select(configured_workers.c.workerid).select_from(_configured).where(*narrowed)
            )
            found.append(workers.c.id.in_(linked))
        return cls.source, found


_BUILDER = sa.select(builders.c.id).where(builders.c.id == sa.bindparam("builderid"))
_CONFIGURED = sa.select(builder_masters.c.id, builder_masters.c.builderid).where(
    builder_masters.c.masterid == sa.bindparam("masterid")
)
_DECONFIGURE = sa.delete(configured_workers).where(
    configured_workers.c.workerid == sa.bindparam("workerid_"),
    configured_workers.c.buildermasterid.in_(
        sa.select(builder_masters.c.id).where(
            builder_masters.c.masterid == sa.bindparam("masterid")
        )
    ),
)
_CONFIGURED_HERE = (
    sa.select(configured_workers.c.workerid)
    .select_from(_configured)
    .where(builder_masters.c.masterid == sa.bindparam("masterid"))
    .distinct()
    .order_by(configured_workers.c.workerid)
)
_OF_BUILDER = (
    sa.select(configured_workers.c.workerid)
    .where(configured_workers.c.buildermasterid == sa.bindparam("buildermasterid"))
    .order_by(configured_workers.c.workerid)
)
_LEAVE_BUILDER = sa.delete(configured_workers).where(
    configured_workers.c.buildermasterid == sa.bindparam("buildermasterid_")
)
_CONNECTION = sa.select(connected_workers.c.id).where(
    connected_workers.c.workerid == sa.bindparam("workerid"),
    connected_workers.c.masterid == sa.bindparam("masterid"),
)
_DISCONNECT = sa.delete(connected_workers).where(
    connected_workers.c.workerid == sa.bindparam("workerid_"),
    connected_workers.c.masterid == sa.bindparam("masterid_"),
)


def deconfigure(tx: Tx, workerid: int, masterid: int) -> None:
    """Take a worker from all builders of a master."""
    tx.run(_DECONFIGURE, {"workerid_": workerid, "masterid": masterid})


def take_workers(tx: Tx, buildermasterid: int) -> None:
    """Take all workers from a builder on a master, before it leaves that master."""
    configured = tx.rows(_OF_BUILDER, {"buildermasterid": buildermasterid})
    tx.run(_LEAVE_BUILDER, {"buildermasterid_": buildermasterid})
    for (workerid,) in configured:
        tx.emit(Worker, workerid, "configured")


class WorkerUpdates(Updates):
    """What changes workers."""

    @update
    def findWorkerId(self, tx: Tx, name: ShortName) -> int:
        """
        Return the id of the worker of this name (at most 50 characters); make it if there is none.
        """
        return found_or_made(tx, Worker, name, info="{}")

    @update
    def workerConfigured(self, tx: Tx, workerid: Id, masterid: Id, builderids: list[Id]) -> None:
        """
        Make these the builders of a master that a worker builds; those that are not on the master
        do not count.  Publishes ``configured``.
        """
        must_exist(tx, Worker, workerid)
        must_exist(tx, Master, masterid)
        for builderid in builderids:
            if tx.first(_BUILDER, {"builderid": builderid}) is None:
                raise NoSuchResource(f"builderids: there is no builder {builderid}")
        deconfigure(tx, workerid, masterid)
        here = {
            builderid: ident for ident, builderid in tx.rows(_CONFIGURED, {"masterid": masterid})
        }
        for builderid in dict.fromkeys(builderids):
            if builderid in here:
                tx.insert(configured_workers, buildermasterid=here[builderid], workerid=workerid)
        tx.emit(Worker, workerid, "configured")

    @update
    def deconfigureAllWorkersForMaster(self, tx: Tx, masterid: Id) -> None:
        """Take all workers from all builders of a master.  Publishes ``configured`` for each."""
        must_exist(tx, Master, masterid)
        for (workerid,) in tx.rows(_CONFIGURED_HERE, {"masterid": masterid}):
            deconfigure(tx, workerid, masterid)
            tx.emit(Worker, workerid, "configured")

    @update
    def workerConnected(self, tx: Tx, workerid: Id, masterid: Id, workerinfo: JsonObject) -> None:
        """Note that a worker connected to a master, and what it tells of itself."""
        must_exist(tx, Worker, workerid)
        must_exist(tx, Master, masterid)
        tx.change(workers, workerid, info=workerinfo)
        if tx.first(_CONNECTION, {"workerid": workerid, "masterid": masterid}) is None:
            tx.insert(connected_workers, workerid=workerid, masterid=masterid)
        tx.emit(Worker, workerid, "connected")

    @update
    def workerDisconnected(self, tx: Tx, workerid: Id, masterid: Id) -> None:
        """Note that a worker is no longer connected to a master."""
        must_exist(tx, Worker, workerid)
        must_exist(tx, Master, masterid)
        tx.run(_DISCONNECT, {"workerid_": workerid, "masterid_": masterid})
        tx.emit(Worker, workerid, "disconnected")

    @update
    def workerMissing(
        self,
        tx: Tx,
        workerid: Id,
        masterid: Id,
        last_connection: Seconds,
        notify: list[str],
    ) -> None:
        """
        Tell that a worker is missed.  last_connection: epoch seconds.  notify: mail addresses.
        """
        must_exist(tx, Worker, workerid)
        must_exist(tx, Master, masterid)
        tx.emit(Worker, workerid, "missing", last_connection=last_connection, notify=notify)

    @update
    def set_worker_paused(
        self, tx: Tx, workerid: Id, paused: Flag, pause_reason: str | None = None
    ) -> None:
        """Let a worker start no new builds, or let it again.  Publishes ``state_updated``."""
        must_exist(tx, Worker, workerid)
        tx.change(workers, workerid, paused=int(paused), pause_reason=pause_reason)
        tx.emit(Worker, workerid, "state_updated")

    @update
    def set_worker_graceful(self, tx: Tx, workerid: Id, graceful: Flag) -> None:
        """Let a worker stop once its builds are done, or not.  Publishes ``state_updated``."""
        must_exist(tx, Worker, workerid)
        tx.change(workers, workerid, graceful=int(graceful))
        tx.emit(Worker, workerid, "state_updated")
