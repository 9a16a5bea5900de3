"""Workers: where the steps of builds run."""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa

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
from buildapi.data.values import Json
from buildapi.db.tables import builder_masters, configured_workers, connected_workers, workers

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
    pair = sa.func.json_object(
        sa.literal_column("'masterid'"),
        builder_masters.c.masterid,
        sa.literal_column("'builderid'"),
        builder_masters.c.builderid,
    )
    where = sa.and_(
        configured_workers.c.workerid == workers.c.id, *_narrowed(narrowing.keys)
    )
    return json_array(pair, _configured, where)


def _connected_to(narrowing: Narrowing) -> Column:
    where: Condition = connected_workers.c.workerid == workers.c.id
    if "masterid" in narrowing.keys:
        where = sa.and_(where, connected_workers.c.masterid == sa.bindparam("masterid"))
    one = sa.func.json_object(sa.literal_column("'masterid'"), connected_workers.c.masterid)
    return json_array(one, connected_workers, where)


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

    workerid: int = field(workers.c.id, "Unique id of this worker.")
    name: str = field(workers.c.name, "Its name, unique.")
    connected_to: list[Json] = field(
        _connected_to, "The masters it is connected to: a list of {masterid}."
    )
    configured_on: list[Json] = field(
        _configured_on, "The builders it is configured for: a list of {masterid, builderid}."
    )
    workerinfo: Json = field(workers.c.info, "What it tells of itself: an object of any keys.")
    paused: bool = field(workers.c.paused, "Whether it starts no new builds.")
    pause_reason: str | None = field(workers.c.pause_reason, "Why it is paused, if a reason was given.")
    graceful: bool = field(workers.c.graceful, "Whether it stops once its builds are done.")

    @classmethod
    def located(cls, pattern: str) -> tuple[sa.FromClause, list[Condition]]:
        """Find by id or name, among those that one configuration row links to the path's master and builder."""
        keys = key_names(pattern)
        found: list[Any] = [
            key == sa.bindparam(name)
            for name, key in cls.keys.items()
            if name in keys
        ]
        narrowed = _narrowed(keys)
        if narrowed:
            linked = sa.select(configured_workers.c.workerid).select_from(_configured).where(*narrowed)
            found.append(workers.c.id.in_(linked))
        return cls.source, found
