"""Changes: what people did to the source."""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa

from buildapi.data.schema import Condition, Listed, Resource, embedded, field, happens, json_map
from buildapi.data.sourcestamps import SourceStamp
from buildapi.data.values import SourcedProperties
from buildapi.db.tables import (
    buildrequests,
    builds,
    buildset_sourcestamps,
    change_files,
    change_properties,
    changes,
    sourcestamps,
)


def _sourcestamps_of(build: sa.FromClause) -> sa.Select[Any]:
    """Select the source stamps that a build was made from."""
    return (
        sa.select(
            sourcestamps.c.id,
            sourcestamps.c.repository,
            sourcestamps.c.branch,
            sourcestamps.c.codebase,
        )
        .join(buildset_sourcestamps, buildset_sourcestamps.c.sourcestampid == sourcestamps.c.id)
        .join(buildrequests, buildrequests.c.buildsetid == buildset_sourcestamps.c.buildsetid)
        .where(buildrequests.c.id == build.c.buildrequestid)
    )


def _same_place(a: sa.FromClause, b: sa.FromClause) -> Condition:
    return sa.and_(
        a.c.repository == b.c.repository,
        a.c.codebase == b.c.codebase,
        a.c.branch.is_not_distinct_from(b.c.branch),
    )


def _newest_change(ssid: sa.ColumnElement[Any]) -> sa.ColumnElement[Any]:
    newest = changes.alias("newest")
    return (
        sa.select(sa.func.max(newest.c.changeid))
        .where(newest.c.sourcestampid == ssid)
        .scalar_subquery()
    )


def _brought_in(this: Condition) -> Condition:
    """
    Return the condition that a change came into the build for which ``this`` holds.

    For each source stamp of the build: its newest change and that one's parents, one by one, until the
    change of the last successful earlier build of the builder from the same places.
    """
    me = sa.select(builds).where(this).cte("me")
    ours = _sourcestamps_of(me).cte("ours")

    earlier = builds.alias("earlier")
    theirs = _sourcestamps_of(earlier).correlate(earlier).subquery("theirs")
    here = sa.select(ours).subquery("here")
    missing_there = sa.exists(
        sa.select(ours.c.id).where(
            ~sa.exists(sa.select(theirs.c.id).where(_same_place(theirs, ours)).correlate(ours, earlier))
        ).correlate(earlier)
    )
    missing_here = sa.exists(
        sa.select(theirs.c.id).where(
            ~sa.exists(sa.select(here.c.id).where(_same_place(theirs, here)).correlate(theirs))
        ).correlate(earlier)
    )
    previous = (
        sa.select(earlier.c.buildrequestid)
        .join(me, sa.and_(earlier.c.builderid == me.c.builderid, earlier.c.number < me.c.number))
        .where(earlier.c.results == sa.literal_column("0"), ~missing_there, ~missing_here)
        .order_by(earlier.c.number.desc())
        .limit(sa.literal_column("1"))
        .cte("previous")
    )
    before = _sourcestamps_of(previous).cte("before")

    stop = (
        sa.select(sa.func.max(_newest_change(before.c.id)))
        .where(before.c.codebase == ours.c.codebase)
        .correlate(ours)
        .scalar_subquery()
    )
    start = sa.select(_newest_change(ours.c.id).label("changeid"), stop.label("stop")).cte(
        "chain", recursive=True
    )
    child = changes.alias("child")
    chain = start.union(
        sa.select(child.c.parent_changeids, start.c.stop)
        .join(start, child.c.changeid == start.c.changeid)
        .where(
            child.c.parent_changeids.is_not(None),
            child.c.changeid.is_distinct_from(start.c.stop),
        )
    )
    return changes.c.changeid.in_(
        sa.select(chain.c.changeid).where(
            chain.c.changeid.is_not(None), chain.c.changeid.is_distinct_from(chain.c.stop)
        )
    )


class Change(Resource):
    """What somebody did to the source, once."""

    plural, table = "changes", changes
    ident = "changeid"
    keys = {"changeid": changes.c.changeid, "ssid": changes.c.sourcestampid}
    special = {
        "builds/n:buildid/changes": _brought_in(builds.c.id == sa.bindparam("buildid")),
        "builders/n:builderid/builds/n:build_number/changes": _brought_in(
            sa.and_(
                builds.c.builderid == sa.bindparam("builderid"),
                builds.c.number == sa.bindparam("build_number"),
            )
        ),
    }
    one = ("changes/n:changeid",)
    many = (
        "changes",
        "sourcestamps/n:ssid/changes",
        "builds/n:buildid/changes",
        "builders/n:builderid/builds/n:build_number/changes",
    )
    topic = "change.{changeid}"
    slash_keys = ("changes/{changeid}",)
    events = {"new": happens("Somebody changed the source.")}

    changeid: int = field(changes.c.changeid, "Unique id of this change.")
    parent_changeids: list[int] = field(
        sa.case(
            (changes.c.parent_changeids.is_(None), sa.literal_column("'[]'")),
            else_=sa.func.json_array(changes.c.parent_changeids),
        ),
        "The change before it on the branch: a list of one id or none.",
        has=lambda value: changes.c.parent_changeids == value,
    )
    author: str = field(changes.c.author, "Who wrote it.")
    committer: str | None = field(changes.c.committer, "Who committed it, if that is known.")
    files: list[str] = field(
        Listed(change_files.c.filename, change_files, change_files.c.changeid == changes.c.changeid),
        "The files it touches.",
    )
    comments: str = field(changes.c.comments, "What the author says of it.")
    revision: str | None = field(changes.c.revision, "The revision it made.")
    when_timestamp: int = field(changes.c.when_timestamp, "When it was made (epoch seconds).")
    branch: str | None = field(changes.c.branch, "The branch, null for the default one.")
    category: str | None = field(changes.c.category, "A word that schedulers may choose by.")
    revlink: str | None = field(changes.c.revlink, "Where it can be looked at.")
    properties: SourcedProperties = field(
        json_map(
            change_properties.c.property_name,
            change_properties.c.property_value,
            change_properties,
            change_properties.c.changeid == changes.c.changeid,
        ),
        "Its properties: {name: [value, source]}.",
    )
    repository: str = field(changes.c.repository, "The repository it was made in.")
    project: str = field(changes.c.project, "The project it belongs to, as text.")
    codebase: str = field(changes.c.codebase, "The codebase it belongs to.")
    sourcestamp: SourceStamp = field(
        embedded(SourceStamp, sourcestamps.c.id == changes.c.sourcestampid),
        "The source with this change, a whole object.",
    )
