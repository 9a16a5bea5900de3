"""Changes: what people did to the source."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Annotated, Any

import sqlalchemy as sa
from pydantic import BeforeValidator, Field

from buildapi.data.schema import Condition, Listed, Resource, embedded, field, happens, json_map
from buildapi.data.sourcestamps import Source, SourceStamp, stamped
from buildapi.data.updates import (
    Seconds,
    Stored,
    Text255,
    Text256,
    Text512,
    Updates,
    stored_properties,
    update,
)
from buildapi.data.values import SourcedProperties, is_text
from buildapi.db import spelling
from buildapi.db.tables import (
    buildrequests,
    builds,
    buildset_sourcestamps,
    change_files,
    change_properties,
    change_users,
    changes,
    sourcestamps,
    users,
)
from buildapi.db.transaction import Tx


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

    For each source stamp of the build: its newest change and that one's parents, one by one, until
    the change of the last successful earlier build of the builder from the same places.
    """
    me = sa.select(builds).where(this).cte("me")
    ours = _sourcestamps_of(me).cte("ours")

    earlier = builds.alias("earlier")
    # MariaDB's sub-selects in FROM can't refer to what is outside: these stand in WHERE.
    theirs = _sourcestamps_of(earlier)
    same = theirs.where(_same_place(sourcestamps, ours)).correlate(ours, earlier)
    missing_there = sa.exists(sa.select(ours.c.id).where(~sa.exists(same)).correlate(earlier))
    here = sa.select(ours).subquery("here")
    mine = sa.select(here.c.id).where(_same_place(sourcestamps, here)).correlate(sourcestamps)
    missing_here = sa.exists(theirs.where(~sa.exists(mine)).correlate(earlier))
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
    # Without an explicit FROM the sub-selects would take all source stamps for one.
    start = (
        sa.select(_newest_change(ours.c.id).label("changeid"), stop.label("stop"))
        .select_from(ours)
        .cte("chain", recursive=True)
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
    keys = {
        "changeid": changes.c.changeid,
        # A revision that came twice: the change that came last.
        "ssid": lambda ssid: changes.c.changeid == _newest_change(ssid),
    }
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
            else_=spelling.json_list(changes.c.parent_changeids),
        ),
        "The change before it on the branch: a list of one id or none.",
        has=lambda value: changes.c.parent_changeids == value,
    )
    author: str = field(changes.c.author, "Who wrote it.")
    committer: str | None = field(
        changes.c.committer, "Who committed it, if that is known.", declared=str
    )
    files: list[str] = field(
        Listed(
            change_files.c.filename, change_files, change_files.c.changeid == changes.c.changeid
        ),
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
            [change_properties.c.property_value],
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


# In this order the first row that fits is the answer; max() would look at all of the branch.
_PARENT = (
    sa.select(changes.c.changeid)
    .where(
        changes.c.branch.is_not_distinct_from(sa.bindparam("branch")),
        changes.c.repository == sa.bindparam("repository"),
        changes.c.project == sa.bindparam("project"),
        changes.c.codebase == sa.bindparam("codebase"),
    )
    .order_by(changes.c.changeid.desc())
    .limit(sa.literal_column("1"))
)
_USER = sa.select(users.c.uid).where(users.c.identifier == sa.bindparam("identifier"))


def _sourced(properties: Any) -> dict[str, Stored]:
    """Return properties as they are stored; a bare value comes from the change itself."""
    if isinstance(properties, Mapping):
        properties = {n: v if _is_pair(v) else (v, "Change") for n, v in properties.items()}
    return stored_properties(properties)


def _is_pair(value: Any) -> bool:
    # Only a tuple can't be a JSON value.
    return isinstance(value, tuple) and len(value) == len(Stored._fields)


def _categorised(arguments: dict[str, Any]) -> None:
    """Ask for the category on the caller's thread, if a function gives it."""
    if callable(arguments["category"]):
        stored = (arguments["properties"] or {}).items()
        properties = {name: (json.loads(it.text), it.source) for name, it in stored}
        given = {name: value for name, value in arguments.items() if name != "category"}
        arguments["category"] = arguments["category"]({**given, "properties": properties})
    category = arguments["category"]
    if category is None:
        return
    if not isinstance(category, str) or len(category) > 255 or not is_text(category):  # noqa: PLR2004  the column's width
        raise ValueError("category: a text of at most 255 characters is wanted")


class ChangeUpdates(Updates):
    """What adds changes."""

    @update
    def addChange(
        self,
        tx: Tx,
        files: list[Annotated[str, Field(max_length=1024)]] | None = None,
        comments: str | None = None,
        author: Text255 | None = None,
        committer: Text255 | None = None,
        revision: Text255 | None = None,
        when_timestamp: Seconds | None = None,
        branch: Text255 | None = None,
        category: Text255 | Callable[[dict[str, Any]], str | None] | None = None,
        revlink: Text256 | None = "",
        properties: Annotated[Any, BeforeValidator(_sourced)] | None = None,
        repository: Text512 = "",
        codebase: Text256 | None = None,
        project: Text512 = "",
        src: str | None = None,
    ) -> int:
        """
        Add what somebody did to the source; return its id.  Publishes ``new``.

        when_timestamp: epoch seconds, now if None.  properties: ``{name: value}`` or
        ``{name: (value, source)}``.  category: a text, or a function of the other arguments, which
        is called at once. src: the kind of repository; with it the author is kept as a user.
        """
        values: dict[str, Any] = {
            "author": author or "",
            "committer": committer,
            "comments": comments or "",
            "revision": revision,
            "when_timestamp": tx.now if when_timestamp is None else when_timestamp,
            "branch": branch,
            "category": category,
            "revlink": revlink,
            "repository": repository,
            "codebase": codebase or "",
            "project": project,
        }
        place = {name: values[name] for name in ("branch", "repository", "project", "codebase")}
        parent = tx.first(_PARENT, place)
        ssid = stamped(tx, Source(revision=revision, **place))
        changeid = tx.insert(
            changes, **values, sourcestampid=ssid, parent_changeids=parent and parent[0]
        )
        for name in files or ():
            tx.insert_later(change_files, (changeid, name))
        for name, it in (properties or {}).items():
            tx.insert_later(change_properties, (changeid, name, it.pair))
        if src is not None and author:
            tx.insert_later(change_users, (changeid, _user(tx, author)))
        tx.emit(Change, changeid, "new")
        return changeid

    addChange = addChange.prepared(_categorised)


def _user(tx: Tx, identifier: str) -> int:
    row = tx.first(_USER, {"identifier": identifier})
    return row[0] if row else tx.insert(users, identifier=identifier)
