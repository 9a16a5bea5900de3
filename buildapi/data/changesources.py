"""Change sources: what notices changes."""

from __future__ import annotations

import sqlalchemy as sa

from buildapi.data.masters import Master, try_set_master
from buildapi.data.schema import Resource, embedded, field, happens
from buildapi.data.updates import Id, Name, Updates, found_or_made, update
from buildapi.db.tables import changesource_masters, changesources, masters
from buildapi.db.transaction import Tx


class ChangeSource(Resource):
    """Something that notices changes, on at most one master at a time."""

    plural, table = "changesources", changesources
    keys = {
        "changesourceid": changesources.c.id,
        "masterid": lambda value: changesources.c.id.in_(
            sa.select(changesource_masters.c.changesourceid).where(
                changesource_masters.c.masterid == value
            )
        ),
    }
    one = ("changesources/n:changesourceid", "masters/n:masterid/changesources/n:changesourceid")
    many = ("changesources", "masters/n:masterid/changesources")
    topic = "changesource.{changesourceid}"
    slash_keys = ("changesources/{changesourceid}",)
    events = {
        "new": happens("The change source is known.", slash=None),
        "master": happens("It moved to another master, or to none.", slash=None),
    }

    changesourceid: int = field(changesources.c.id, "Unique id of this change source.")
    name: str = field(changesources.c.name, "Its name, unique.")
    master: Master | None = field(
        embedded(
            Master,
            changesource_masters.c.changesourceid == changesources.c.id,
            masters.join(changesource_masters, changesource_masters.c.masterid == masters.c.id),
        ),
        "The master it runs on.",
    )


class ChangeSourceUpdates(Updates):
    """What changes change sources."""

    @update
    def findChangeSourceId(self, tx: Tx, name: Name) -> int:
        """Return the id of the change source of this name; make it if there is none."""
        return found_or_made(tx, ChangeSource, name)

    @update
    def trySetChangeSourceMaster(self, tx: Tx, changesourceid: Id, masterid: Id | None) -> bool:
        """
        Give a change source to a master, or take it from its master (None).

        Returns whether it is so now: false if another master has it.
        """
        return try_set_master(tx, ChangeSource, changesource_masters, changesourceid, masterid)
