"""Source stamps: which source is built."""

from __future__ import annotations

import sqlalchemy as sa

from buildapi.data.schema import Resource, field
from buildapi.data.values import Json, Time
from buildapi.db.tables import buildset_sourcestamps, patches, sourcestamps

_patch = sa.case(
    (
        sourcestamps.c.patchid.is_not(None),
        sa.func.json_object(
            *(
                part
                for name, column in {
                    "patchid": patches.c.id,
                    "level": patches.c.patchlevel,
                    "subdir": patches.c.subdir,
                    "author": patches.c.patch_author,
                    "comment": patches.c.patch_comment,
                    "body": sa.null(),  # bytes are never shown
                }.items()
                for part in (sa.literal_column(f"'{name}'"), column)
            )
        ),
    ),
    else_=None,
)


class SourceStamp(Resource):
    """A point in the history of a codebase, with a patch perhaps."""

    plural, table = "sourcestamps", sourcestamps
    source = sourcestamps.outerjoin(patches, patches.c.id == sourcestamps.c.patchid)
    keys = {
        "ssid": sourcestamps.c.id,
        "buildsetid": lambda value: sourcestamps.c.id.in_(
            sa.select(buildset_sourcestamps.c.sourcestampid).where(
                buildset_sourcestamps.c.buildsetid == value
            )
        ),
    }
    one = ("sourcestamps/n:ssid",)
    many = ("sourcestamps", "buildsets/:buildsetid/sourcestamps")

    ssid: int = field(sourcestamps.c.id, "Unique id of this source stamp.")
    revision: str | None = field(sourcestamps.c.revision, "The revision, null for the newest.")
    branch: str | None = field(sourcestamps.c.branch, "The branch, null for the default one.")
    repository: str = field(sourcestamps.c.repository, "Where the source comes from.")
    project: str = field(sourcestamps.c.project, "The project it belongs to, as text.")
    codebase: str = field(sourcestamps.c.codebase, "The codebase it is a stamp of.")
    patch: Json | None = field(
        _patch, "The patch: {patchid, level, subdir, author, comment, body: null}, or null."
    )
    created_at: Time = field(sourcestamps.c.created_at, "When it was first seen.")
