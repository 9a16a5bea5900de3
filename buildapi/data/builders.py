"""Builders: what builds are builds of."""

from __future__ import annotations

import sqlalchemy as sa

from buildapi.data.schema import Column, Condition, Listed, Resource, field, happens
from buildapi.db.tables import builder_masters, builders, builders_tags, configured_workers, tags


def on_master(masterid: Column) -> Condition:
    """Return the condition that a builder is configured on a master."""
    return builders.c.id.in_(
        sa.select(builder_masters.c.builderid).where(builder_masters.c.masterid == masterid)
    )


def with_worker(workerid: Column) -> Condition:
    """Return the condition that a worker is configured to build it."""
    return builders.c.id.in_(
        sa.select(builder_masters.c.builderid)
        .join(configured_workers, configured_workers.c.buildermasterid == builder_masters.c.id)
        .where(configured_workers.c.workerid == workerid)
    )


class Builder(Resource):
    """A recipe of builds, with a name and a history."""

    plural, table = "builders", builders
    keys = {
        "builderid": builders.c.id,
        "buildername": builders.c.name,
        "projectid": builders.c.projectid,
        "masterid": on_master,
        "workerid": with_worker,
    }
    one = (
        "builders/n:builderid",
        "builders/s:buildername",
        "masters/n:masterid/builders/n:builderid",
    )
    many = (
        "builders",
        "masters/n:masterid/builders",
        "projects/n:projectid/builders",
        "workers/n:workerid/builders",
    )
    topic = "builder.{builderid}"
    slash_keys = ("builders/{builderid}",)
    events = {
        "new": happens("The builder is known; no master has it yet.", slash=None),
        "update": happens("Its description, project or tags changed."),
        "started": happens("A master has it now.  Body: builderid, masterid, name."),
        "stopped": happens("A master has it no longer.  Body: builderid, masterid, name."),
    }

    builderid: int = field(builders.c.id, "Unique id of this builder.")
    name: str = field(builders.c.name, "Its name, unique.")
    masterids: list[int] = field(
        Listed(
            builder_masters.c.masterid,
            builder_masters,
            builder_masters.c.builderid == builders.c.id,
        ),
        "The masters it is configured on.",
    )
    description: str | None = field(builders.c.description, "What it is, for people.")
    description_format: str | None = field(
        builders.c.description_format, "The format of the description, such as markdown; else null."
    )
    description_html: str | None = field(
        builders.c.description_html, "The description rendered as HTML, if it has a format."
    )
    projectid: int | None = field(builders.c.projectid, "The project it belongs to.")
    tags: list[str] = field(
        Listed(
            tags.c.name,
            builders_tags.join(tags, tags.c.id == builders_tags.c.tagid),
            builders_tags.c.builderid == builders.c.id,
        ),
        "Its tags.",
    )
