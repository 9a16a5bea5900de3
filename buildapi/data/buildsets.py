"""Build sets: builds of the same source that were asked for together."""

from __future__ import annotations

import sqlalchemy as sa

from buildapi.data.schema import Column, Condition, Resource, embedded_list, field, happens
from buildapi.data.sourcestamps import SourceStamp
from buildapi.db.tables import buildrequests, buildset_sourcestamps, buildsets, sourcestamps

_OF_SET = buildrequests.c.buildsetid == buildsets.c.id


class Buildset(Resource):
    """Requests for builds of the same source, made together."""

    plural, table = "buildsets", buildsets
    keys = {"bsid": buildsets.c.id}
    one = ("buildsets/n:bsid",)
    many = ("buildsets",)
    topic = "buildset.{bsid}"
    slash_keys = ("buildsets/{bsid}",)
    events = {
        "new": happens("Somebody asks for builds.  Body: also scheduler; no parent_relationship."),
        "complete": happens("All its requests are complete.  Once per set."),
    }

    @classmethod
    def builder(cls) -> Column:
        """Return the builder of its requests; null if there are several, or none."""
        ids = buildrequests.c.builderid
        only = sa.case((sa.func.min(ids) == sa.func.max(ids), sa.func.min(ids)))
        return sa.select(only).where(_OF_SET).correlate(buildsets).scalar_subquery()

    @classmethod
    def visible(cls, hidden: list[Column]) -> Condition:
        """Return the condition that it asks one visible builder, or none at all."""
        asked = sa.select(buildrequests.c.id).where(_OF_SET).correlate(buildsets)
        seen = asked.where(buildrequests.c.builderid.not_in(hidden))
        return sa.or_(sa.exists(seen), sa.not_(sa.exists(asked)))

    bsid: int = field(buildsets.c.id, "Unique id of this build set.")
    external_idstring: str | None = field(
        buildsets.c.external_idstring, "What somebody outside knows it by."
    )
    reason: str | None = field(buildsets.c.reason, "Why it was asked for.", declared=str)
    rebuilt_buildid: int | None = field(buildsets.c.rebuilt_buildid, "The build it repeats.")
    submitted_at: int = field(buildsets.c.submitted_at, "When it was asked for (epoch seconds).")
    complete: bool = field(buildsets.c.complete, "Whether all its requests are complete.")
    complete_at: int | None = field(
        buildsets.c.complete_at, "When it was completed (epoch seconds)."
    )
    results: int | None = field(buildsets.c.results, "The worst result; -1 while incomplete.")
    sourcestamps: list[SourceStamp] = field(
        embedded_list(
            SourceStamp,
            SourceStamp.source.join(
                buildset_sourcestamps,
                buildset_sourcestamps.c.sourcestampid == sourcestamps.c.id,
            ),
            buildset_sourcestamps.c.buildsetid == buildsets.c.id,
        ),
        "The source stamps to build, whole objects.",
    )
    parent_buildid: int | None = field(buildsets.c.parent_buildid, "The build that triggered it.")
    parent_relationship: str | None = field(
        buildsets.c.parent_relationship, "How it was triggered, for people."
    )
