"""Builds: one run of a builder."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated

import sqlalchemy as sa
from pydantic import Field

from buildapi.data.builders import Builder
from buildapi.data.buildrequests import BuildRequest
from buildapi.data.schema import (
    EMPTY_OBJECT,
    Column,
    Narrowing,
    Resource,
    bound_text,
    field,
    happens,
    json_map,
)
from buildapi.data.updates import (
    Id,
    JsonText,
    PropertyName,
    ResultCode,
    Sourced,
    Stored,
    Text256,
    Updates,
    must_exist,
    update,
)
from buildapi.data.values import SourcedProperties, Time
from buildapi.data.workers import Worker
from buildapi.db import spelling
from buildapi.db.tables import (
    build_properties,
    builders,
    buildrequests,
    builds,
    buildset_sourcestamps,
    buildsets,
    changes,
)
from buildapi.db.transaction import Tx

_TRIGGERED = "builds/n:buildid/triggered_builds"


def property_map(properties: int) -> Column:
    """Return the properties of a build as JSON: all (-1), or those of so many names."""
    where = build_properties.c.buildid == builds.c.id
    if properties > 0:
        names: list[Column] = [bound_text(f"p{index}") for index in range(properties)]
        where = sa.and_(where, build_properties.c.name.in_(names))
    pair: tuple[Column, ...] = (
        build_properties.c.value,
        sa.literal_column("', '"),
        spelling.json_string(build_properties.c.source),
    )
    return json_map(
        build_properties.c.name, pair, build_properties, where, opening="[", closing="]"
    )


def _properties(narrowing: Narrowing) -> Column:
    if narrowing.properties == 0 or narrowing.pattern == _TRIGGERED:
        return EMPTY_OBJECT
    return property_map(narrowing.properties)


def _requested_with(*conditions: sa.ColumnElement[bool]) -> sa.ColumnElement[bool]:
    """Return the condition that the build answers a request of a build set for which these hold."""
    asked = (
        sa.select(buildrequests.c.id)
        .join(buildsets, buildsets.c.id == buildrequests.c.buildsetid)
        .where(*conditions)
    )
    return builds.c.buildrequestid.in_(asked)


_OF_CHANGE = buildsets.c.id.in_(
    sa.select(buildset_sourcestamps.c.buildsetid)
    .join(changes, changes.c.sourcestampid == buildset_sourcestamps.c.sourcestampid)
    .where(changes.c.changeid == sa.bindparam("changeid"))
)


class Build(Resource):
    """One run of a builder, with steps and a result."""

    plural, table, parent = "builds", builds, Builder
    parent_on = builders.c.id == builds.c.builderid
    keys = {
        "buildid": builds.c.id,
        "builderid": builds.c.builderid,
        "build_number": builds.c.number,
        "buildrequestid": builds.c.buildrequestid,
        "workerid": builds.c.workerid,
    }
    special = {
        _TRIGGERED: _requested_with(buildsets.c.parent_buildid == sa.bindparam("buildid")),
        "changes/n:changeid/builds": _requested_with(_OF_CHANGE),
    }
    one = (
        "builds/n:buildid",
        "builders/n:builderid/builds/n:build_number",
        "builders/s:buildername/builds/n:build_number",
    )
    many = (
        "builds",
        "builders/n:builderid/builds",
        "builders/s:buildername/builds",
        "buildrequests/n:buildrequestid/builds",
        "workers/n:workerid/builds",
        "changes/n:changeid/builds",
        "builds/n:buildid/triggered_builds",
    )
    topic = "build.{buildid}"
    slash_keys = (
        "builders/{builderid}/builds/{number}",
        "builds/{buildid}",
        "workers/{workerid}/builds/{buildid}",
    )
    events = {
        "new": happens("The build has begun."),
        "created": happens("The build exists; it has not begun.", slash=None),
        "update": happens("Its state string or its wait for locks changed."),
        "finished": happens("It has its results."),
        "properties.update": happens(
            "Properties were set.  Body: {name: [value, source]} of those that changed.",
            slash="properties/update",
            keys=("builds/{buildid}",),
        ),
    }
    actions = {
        "stop": "Stop it.  Parameter: reason.",
        "rebuild": "Ask for the same build again.  Result: [bsid, {builderid: buildrequestid}].",
    }

    buildid: int = field(builds.c.id, "Unique id of this build.")
    number: int = field(builds.c.number, "Its number among its builder's, from 1.")
    builderid: int = field(builds.c.builderid, "The builder it is a build of.")
    buildrequestid: int = field(builds.c.buildrequestid, "The request it answers.")
    workerid: int | None = field(
        builds.c.workerid, "The worker it runs on; null once that is deleted.", declared=int
    )
    masterid: int = field(builds.c.masterid, "The master that runs it.")
    started_at: Time = field(builds.c.started_at, "When it began.")
    complete: bool = field(builds.c.complete_at.is_not(None), "Whether it has ended.")
    complete_at: Time | None = field(builds.c.complete_at, "When it ended.")
    locks_duration_s: int = field(builds.c.locks_duration_s, "Seconds it has waited for locks.")
    results: int | None = field(builds.c.results, "Its result code, null until it ends.")
    state_string: str = field(builds.c.state_string, "What it is doing or did, for people.")
    properties: SourcedProperties = field(
        _properties,
        "The properties asked for by property=: {name: [value, source]}.",
        declared=SourcedProperties | None,
    )


_LAST_NUMBER = sa.select(sa.func.coalesce(sa.func.max(builds.c.number), 0)).where(
    builds.c.builderid == sa.bindparam("builderid")
)
_STORED = sa.select(
    build_properties.c.name, build_properties.c.value, build_properties.c.source
).where(build_properties.c.buildid == sa.bindparam("buildid"))
# A property keeps its place in the list: it stands where it was first stored.
_RESET = (
    sa.update(build_properties)
    .where(
        build_properties.c.buildid == sa.bindparam("buildid_"),
        build_properties.c.name == sa.bindparam("name_"),
    )
    .values(value=sa.bindparam("text"), source=sa.bindparam("source_"))
)


class BuildUpdates(Updates):
    """What happens to builds."""

    @update
    def addBuild(self, tx: Tx, builderid: Id, buildrequestid: Id, workerid: Id) -> tuple[int, int]:
        """
        Make a build that has not begun; return ``(buildid, number)``.

        Publishes only ``created``; ``generateNewBuildEvent`` tells of it later.
        """
        made = self._made(tx, builderid, buildrequestid, workerid, "created")
        tx.emit(Build, made[0], "created")
        return made

    @update
    def newBuild(self, tx: Tx, builderid: Id, buildrequestid: Id, workerid: Id) -> tuple[int, int]:
        """Begin a build; return ``(buildid, number)``.  Publishes ``new``."""
        made = self._made(tx, builderid, buildrequestid, workerid, "starting")
        tx.emit(Build, made[0], "new")
        return made

    def _made(
        self, tx: Tx, builderid: int, buildrequestid: int, workerid: int, state_string: str
    ) -> tuple[int, int]:
        must_exist(tx, Builder, builderid)
        must_exist(tx, BuildRequest, buildrequestid)
        must_exist(tx, Worker, workerid)
        number: int = tx.rows(_LAST_NUMBER, {"builderid": builderid})[0][0] + 1
        buildid = tx.insert(
            builds,
            number=number,
            builderid=builderid,
            buildrequestid=buildrequestid,
            workerid=workerid,
            masterid=self.serving,
            started_at=tx.now,
            locks_duration_s=0,
            state_string=state_string,
        )
        return buildid, number

    @update
    def generateNewBuildEvent(self, tx: Tx, buildid: Id) -> None:
        """Tell that a build has begun.  Publishes ``new``."""
        must_exist(tx, Build, buildid)
        tx.emit(Build, buildid, "new")

    @update
    def setBuildStateString(self, tx: Tx, buildid: Id, state_string: str) -> None:
        """Say what a build is doing.  Publishes ``update``."""
        must_exist(tx, Build, buildid)
        tx.change(builds, buildid, state_string=state_string)
        tx.emit(Build, buildid, "update")

    @update
    def add_build_locks_duration(
        self, tx: Tx, buildid: Id, duration_s: Annotated[int, Field(ge=0, lt=2**31)]
    ) -> None:
        """Add seconds that a build waited for locks.  Publishes ``update``."""
        must_exist(tx, Build, buildid)
        tx.run(_WAITED, {"buildid_": buildid, "more": duration_s})
        tx.emit(Build, buildid, "update")

    @update
    def finishBuild(self, tx: Tx, buildid: Id, results: ResultCode) -> None:
        """End a build now, with its result.  Publishes ``finished``."""
        must_exist(tx, Build, buildid)
        tx.change(builds, buildid, complete_at=tx.now, results=results)
        tx.emit(Build, buildid, "finished")

    @update
    def setBuildProperty(
        self, tx: Tx, buildid: Id, name: PropertyName, value: JsonText, source: Text256
    ) -> None:
        """
        Set one property of a build.  Publishes ``properties.update``, even if nothing changed.
        """
        must_exist(tx, Build, buildid)
        given = {name: Stored(value, source)}
        store_properties(tx, buildid, given)
        tell_properties(tx, buildid, given)

    @update
    def setBuildProperties(self, tx: Tx, buildid: Id, properties: Sourced) -> None:
        """
        Set properties of a build: ``{name: (value, source)}``, or an object with ``asDict``.

        Publishes one ``properties.update`` with those that changed, nothing if none did.
        """
        must_exist(tx, Build, buildid)
        if changed := store_properties(tx, buildid, properties):
            tell_properties(tx, buildid, changed)


_WAITED = (
    sa.update(builds)
    .where(builds.c.id == sa.bindparam("buildid_"))
    .values(locks_duration_s=builds.c.locks_duration_s + sa.bindparam("more"))
)


def store_properties(tx: Tx, buildid: int, properties: Mapping[str, Stored]) -> dict[str, Stored]:
    """Store properties; return those that changed."""
    there: dict[str, Stored] = {
        name: Stored(text, source) for name, text, source in tx.rows(_STORED, {"buildid": buildid})
    }
    changed = {name: it for name, it in properties.items() if there.get(name) != it}
    for name, it in changed.items():
        if name in there:
            key = {"buildid_": buildid, "name_": name}
            tx.run(_RESET, {**key, "text": it.text, "source_": it.source}, only=buildid)
        else:
            tx.insert_later(build_properties, (buildid, name, it.text, it.source))
    return changed


def tell_properties(tx: Tx, buildid: int, properties: Mapping[str, Stored]) -> None:
    """Publish the new values of properties."""
    body = {name: it.shown for name, it in properties.items()}
    tx.emit(Build, buildid, "properties.update", body=body)
