"""Masters: the processes that schedule builds."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import sqlalchemy as sa

from buildapi.data.schema import Resource, field, happens
from buildapi.data.updates import Id, Name, Updates, found_or_made, must_exist, update
from buildapi.data.values import Time
from buildapi.db.tables import builder_masters, masters
from buildapi.db.transaction import Tx


class Master(Resource):
    """A build master process, known by host and folder."""

    plural, table = "masters", masters
    keys = {
        "masterid": masters.c.id,
        "builderid": lambda value: masters.c.id.in_(
            sa.select(builder_masters.c.masterid).where(builder_masters.c.builderid == value)
        ),
    }
    one = ("masters/n:masterid", "builders/n:builderid/masters/n:masterid")
    many = ("masters", "builders/n:builderid/masters")
    topic = "master.{masterid}"
    slash_keys = ("masters/{masterid}",)
    events = {
        "new": happens("The master is known; it has not started.", slash=None),
        "started": happens("It became active.  Body: masterid, name, active."),
        "stopped": happens("It is no longer active.  Body: masterid, name, active."),
    }

    masterid: int = field(masters.c.id, "Unique id of this master.")
    name: str = field(masters.c.name, "Host and base directory, host:/path.")
    active: bool = field(masters.c.active, "Whether it is running.")
    last_active: Time = field(masters.c.last_active, "When it last said that it is running.")


class MasterUpdates(Updates):
    """What changes masters; their house-keeping stands in ``housekeeping``."""

    @update
    def findMasterId(self, tx: Tx, name: Name) -> int:
        """Return the id of the master of this name; make it, not active, if there is none."""
        return found_or_made(tx, Master, name, active=0, last_active=tx.now)

    @update
    def masterActive(self, tx: Tx, name: str, masterid: Id) -> None:  # noqa: ARG002  the contract has both
        """Note that a master is running.  Publishes ``started`` if it was not active before."""
        was_active = must_exist(tx, Master, masterid)[3]
        tx.change(masters, masterid, active=1, last_active=tx.now)
        if not was_active:
            tell(tx, masterid, "started", active=True)


def tell(tx: Tx, masterid: int, event: str, *, active: bool) -> None:
    """Publish that a master became active, or is no longer."""
    name = must_exist(tx, Master, masterid)[1]
    tx.emit(Master, masterid, event, body={"masterid": masterid, "name": name, "active": active})


@lru_cache
def _links(links: sa.Table) -> tuple[sa.Select[Any], sa.Delete]:
    (key,) = links.primary_key.columns
    found = sa.select(links.c.masterid).where(key == sa.bindparam("ident"))
    return found, sa.delete(links).where(key == sa.bindparam("ident"))


def try_set_master(
    tx: Tx, resource: type[Resource], links: sa.Table, ident: int, masterid: int | None
) -> bool:
    """
    Give an object that runs on one master at most to a master, or take it from its master (None).

    links: which is on which master.  Returns whether it is so now: false if another master has it.
    Publishes ``master`` if anything changed.
    """
    must_exist(tx, resource, ident)
    if masterid is not None:
        must_exist(tx, Master, masterid)
    of_object, leave = _links(links)
    row = tx.first(of_object, {"ident": ident})
    current = row[0] if row else None
    if current == masterid:
        return True
    if current is not None and masterid is not None:
        return False
    if masterid is None:
        tx.run(leave, {"ident": ident})
    else:
        tx.insert_later(links, (ident, masterid))
    tx.emit(resource, ident, "master")
    return True
