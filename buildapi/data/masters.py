"""Masters: the processes that schedule builds."""

from __future__ import annotations

from buildapi.data.schema import Resource, field, happens
from buildapi.data.values import Time
from buildapi.db.tables import builder_masters, masters
import sqlalchemy as sa


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
