"""Builds: one run of a builder."""

from __future__ import annotations

import sqlalchemy as sa

from buildapi.data.builders import Builder
from buildapi.data.schema import Column, Narrowing, Resource, field, happens, json_map
from buildapi.data.values import SourcedProperties, Time
from buildapi.db.tables import (
    build_properties,
    builders,
    buildrequests,
    builds,
    buildset_sourcestamps,
    buildsets,
    changes,
)

_TRIGGERED = "builds/n:buildid/triggered_builds"


def property_map(properties: int) -> Column:
    """Return the properties of a build as JSON: all (-1), or those of so many names."""
    where = build_properties.c.buildid == builds.c.id
    if properties > 0:
        names = [sa.bindparam(f"p{index}") for index in range(properties)]
        where = sa.and_(where, build_properties.c.name.in_(names))
    source = sa.func.json_quote(build_properties.c.source)
    pair = sa.literal_column("'['").concat(build_properties.c.value).concat(", ").concat(source).concat("]")
    return json_map(build_properties.c.name, pair, build_properties, where)


def _properties(narrowing: Narrowing) -> Column:
    if narrowing.properties == 0 or narrowing.pattern == _TRIGGERED:
        return sa.literal_column("'{}'")
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
    workerid: int | None = field(builds.c.workerid, "The worker it runs on; null once that is deleted.")
    masterid: int = field(builds.c.masterid, "The master that runs it.")
    started_at: Time = field(builds.c.started_at, "When it began.")
    complete: bool = field(builds.c.complete_at.is_not(None), "Whether it has ended.")
    complete_at: Time | None = field(builds.c.complete_at, "When it ended.")
    locks_duration_s: int = field(builds.c.locks_duration_s, "Seconds it has waited for locks.")
    results: int | None = field(builds.c.results, "Its result code, null until it ends.")
    state_string: str = field(builds.c.state_string, "What it is doing or did, for people.")
    properties: SourcedProperties = field(
        _properties, "The properties asked for by property=: {name: [value, source]}."
    )
