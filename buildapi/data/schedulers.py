"""Schedulers: what asks for builds."""

from __future__ import annotations

import sqlalchemy as sa

from buildapi.data.masters import Master
from buildapi.data.schema import Resource, embedded, field, happens
from buildapi.db.tables import masters, scheduler_masters, schedulers


class Scheduler(Resource):
    """Something that asks for builds, on at most one master at a time."""

    plural, table = "schedulers", schedulers
    keys = {
        "schedulerid": schedulers.c.id,
        "masterid": lambda value: schedulers.c.id.in_(
            sa.select(scheduler_masters.c.schedulerid).where(scheduler_masters.c.masterid == value)
        ),
    }
    one = ("schedulers/n:schedulerid", "masters/n:masterid/schedulers/n:schedulerid")
    many = ("schedulers", "masters/n:masterid/schedulers")
    topic = "scheduler.{schedulerid}"
    slash_keys = ("schedulers/{schedulerid}",)
    events = {
        "new": happens("The scheduler is known.", slash=None),
        "updated": happens("It was enabled or disabled."),
        "master": happens("It moved to another master, or to none.", slash=None),
    }
    actions = {"enable": "Let it ask for builds, or not.  Parameter: enabled (boolean)."}

    schedulerid: int = field(schedulers.c.id, "Unique id of this scheduler.")
    name: str = field(schedulers.c.name, "Its name, unique.")
    enabled: bool = field(schedulers.c.enabled, "Whether it asks for builds.")
    master: Master | None = field(
        embedded(
            Master,
            scheduler_masters.c.schedulerid == schedulers.c.id,
            masters.join(scheduler_masters, scheduler_masters.c.masterid == masters.c.id),
        ),
        "The master it runs on.",
    )
