"""Builders: what builds are builds of."""

from __future__ import annotations

import sqlalchemy as sa

from buildapi.data.masters import Master
from buildapi.data.schema import (
    Column,
    Condition,
    Listed,
    Narrowing,
    Resource,
    field,
    happens,
)
from buildapi.data.updates import Id, Name, Updates, found_or_made, must_exist, update
from buildapi.data.workers import take_workers
from buildapi.db.hashes import name_hash
from buildapi.db.tables import (
    builder_masters,
    builders,
    builders_tags,
    configured_workers,
    projects,
    tags,
)
from buildapi.db.transaction import Tx
from buildapi.errors import BadArgument


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


def named(name: Column) -> Condition:
    """
    Return the condition that a builder has this name.

    As a sub-select: compared in a join of four tables, a name without an index lets SQLite begin at
    the other end, with every log there is.
    """
    other = builders.alias("named")
    return builders.c.id == sa.select(other.c.id).where(other.c.name == name).scalar_subquery()


def _masterids(narrowing: Narrowing) -> Listed:
    mine = builder_masters.c.builderid == builders.c.id
    if "workerid" in narrowing.keys:
        with_it = sa.select(configured_workers.c.buildermasterid).where(
            configured_workers.c.workerid == sa.bindparam("workerid")
        )
        mine = sa.and_(mine, builder_masters.c.id.in_(with_it))
    masterid = builder_masters.c.masterid
    return Listed(masterid, builder_masters, mine, masterid)


class Builder(Resource):
    """A recipe of builds, with a name and a history."""

    plural, table = "builders", builders
    keys = {
        "builderid": builders.c.id,
        "buildername": named,
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
        _masterids,
        "The masters it is configured on; below a worker: those where it has that worker.",
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
            builders_tags.c.id,
        ),
        "Its tags, in the order in which they were given.",
    )


_HERE = (
    sa.select(builders.c.id, builder_masters.c.id, builders.c.name)
    .join(builder_masters, builder_masters.c.builderid == builders.c.id)
    .where(builder_masters.c.masterid == sa.bindparam("masterid"))
)
_TAG = sa.select(tags.c.id).where(tags.c.name_hash == sa.bindparam("hash"))
_TAG_BY_ID = sa.select(tags.c.id).where(tags.c.id == sa.bindparam("ident"))
_UNTAG = sa.delete(builders_tags).where(builders_tags.c.builderid == sa.bindparam("builderid_"))
_LEAVE = sa.delete(builder_masters).where(builder_masters.c.id == sa.bindparam("id_"))


class BuilderUpdates(Updates):
    """What changes builders."""

    @update
    def findBuilderId(self, tx: Tx, name: Name) -> int:
        """Return the id of the builder of this name; make it if there is none."""
        return found_or_made(tx, Builder, name)

    @update
    def updateBuilderInfo(
        self,
        tx: Tx,
        builderid: Id,
        description: str | None,
        description_format: str | None,
        description_html: str | None,
        projectid: Id | None,
        tags: list[Id | str],
    ) -> None:
        """Set what a builder is, and its tags (names, or ids of tags).  Publishes ``update``."""
        must_exist(tx, Builder, builderid)
        if projectid is not None and not tx.first(_PROJECT, {"ident": projectid}):
            raise BadArgument(f"updateBuilderInfo: projectid: there is no project {projectid}")
        tx.change(
            builders,
            builderid,
            description=description,
            description_format=description_format,
            description_html=description_html,
            projectid=projectid,
        )
        # The writer remembers, for the events of logs, to which project they belong.
        tx.memory.clear()
        tx.run(_UNTAG, {"builderid_": builderid})
        for tagid in dict.fromkeys(_tag(tx, tag) for tag in tags):
            tx.insert(builders_tags, builderid=builderid, tagid=tagid)
        tx.emit(Builder, builderid, "update")

    @update
    def updateBuilderList(self, tx: Tx, masterid: Id, builderNames: list[Name]) -> None:
        """
        Make these the builders of a master.

        Publishes ``started`` for each that is new on it, ``stopped`` for each that it has no
        longer; its workers are ``configured`` for it no longer.
        """
        must_exist(tx, Master, masterid)
        here = {name: ids for *ids, name in tx.rows(_HERE, {"masterid": masterid})}
        for name in sorted(here.keys() - set(builderNames)):
            builderid, buildermasterid = here[name]
            take_workers(tx, buildermasterid)
            tx.run(_LEAVE, {"id_": buildermasterid})
            _tell(tx, builderid, masterid, name, "stopped")
        for name in dict.fromkeys(builderNames):
            if name not in here:
                builderid = found_or_made(tx, Builder, name)
                tx.insert(builder_masters, builderid=builderid, masterid=masterid)
                _tell(tx, builderid, masterid, name, "started")


_PROJECT = sa.select(projects.c.id).where(projects.c.id == sa.bindparam("ident"))


def _tag(tx: Tx, tag: int | str) -> int:
    if isinstance(tag, int):
        if tx.first(_TAG_BY_ID, {"ident": tag}) is None:
            raise BadArgument(f"updateBuilderInfo: tags: there is no tag {tag}")
        return tag
    row = tx.first(_TAG, {"hash": name_hash(tag)})
    return row[0] if row else tx.insert(tags, name=tag, name_hash=name_hash(tag))


def _tell(tx: Tx, builderid: int, masterid: int, name: str, event: str) -> None:
    body = {"builderid": builderid, "masterid": masterid, "name": name}
    tx.emit(Builder, builderid, event, body=body)
