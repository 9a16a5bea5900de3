"""Build requests: that a builder should build something."""

from __future__ import annotations

import sqlalchemy as sa

from buildapi.data.builders import Builder
from buildapi.data.schema import (
    NOTHING,
    Column,
    Narrowing,
    Resource,
    bound_text,
    field,
    happens,
    json_map,
)
from buildapi.data.values import SourcedProperties, Time
from buildapi.db.tables import builders, buildrequest_claims, buildrequests, buildset_properties

_KEYS = (
    "buildsets/{buildsetid}/builders/{builderid}/buildrequests/{buildrequestid}",
    "buildrequests/{buildrequestid}",
    "builders/{builderid}/buildrequests/{buildrequestid}",
)


def _properties(narrowing: Narrowing) -> Column:
    """Return the properties of the build set; null unless some are asked for."""
    if narrowing.properties == 0:
        return NOTHING
    where = buildset_properties.c.buildsetid == buildrequests.c.buildsetid
    if narrowing.properties > 0:
        names: list[Column] = [bound_text(f"p{index}") for index in range(narrowing.properties)]
        where = sa.and_(where, buildset_properties.c.property_name.in_(names))
    return json_map(
        buildset_properties.c.property_name,
        [buildset_properties.c.property_value],
        buildset_properties,
        where,
    )


class BuildRequest(Resource):
    """That a builder should build the source of a build set."""

    plural, table, parent = "buildrequests", buildrequests, Builder
    parent_on = builders.c.id == buildrequests.c.builderid
    source = buildrequests.outerjoin(
        buildrequest_claims, buildrequest_claims.c.brid == buildrequests.c.id
    )
    keys = {
        "buildrequestid": buildrequests.c.id,
        "builderid": buildrequests.c.builderid,
    }
    one = ("buildrequests/n:buildrequestid",)
    many = ("buildrequests", "builders/n:builderid/buildrequests")
    topic = "buildrequest.{buildrequestid}"
    slash_keys = _KEYS
    events = {
        "new": happens("Somebody asks for a build."),
        "claimed": happens("A master will build it."),
        "unclaimed": happens("The master gave it back."),
        "complete": happens("It has its results."),
        "cancel": happens("It was cancelled.", keys=("buildrequests/{buildrequestid}",)),
        "priority": happens("It became more or less urgent.", slash=None),
    }
    actions = {
        "cancel": "Cancel it, claimed or not.  Parameter: reason.",
        "set_priority": "Make it more or less urgent.  Parameter: priority (integer).",
    }

    buildrequestid: int = field(buildrequests.c.id, "Unique id of this request.")
    buildsetid: int = field(buildrequests.c.buildsetid, "The build set it is part of.")
    builderid: int = field(buildrequests.c.builderid, "The builder that should build.")
    priority: int = field(buildrequests.c.priority, "The higher, the sooner it is built.")
    claimed: bool = field(
        buildrequest_claims.c.brid.is_not(None), "Whether a master has claimed it."
    )
    claimed_at: Time | None = field(buildrequest_claims.c.claimed_at, "When it was claimed.")
    claimed_by_masterid: int | None = field(
        buildrequest_claims.c.masterid, "The master that claimed it."
    )
    complete: bool = field(buildrequests.c.complete, "Whether it has its results.")
    results: int | None = field(buildrequests.c.results, "Its result code; -1 while incomplete.")
    submitted_at: Time = field(buildrequests.c.submitted_at, "When it was asked for.")
    complete_at: Time | None = field(buildrequests.c.complete_at, "When it was completed.")
    waited_for: bool = field(buildrequests.c.waited_for, "Whether another build waits for it.")
    properties: SourcedProperties | None = field(
        _properties, "The build set's properties asked for by property=; null without it."
    )
