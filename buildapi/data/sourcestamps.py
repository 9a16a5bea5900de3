"""Source stamps: which source is built."""

from __future__ import annotations

import base64
from dataclasses import dataclass

import sqlalchemy as sa

from buildapi.data.schema import Resource, field
from buildapi.data.values import Json, Time
from buildapi.db.hashes import ss_hash
from buildapi.db.tables import buildset_sourcestamps, patches, sourcestamps
from buildapi.db.transaction import Tx

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


_BY_HASH = sa.select(sourcestamps.c.id).where(sourcestamps.c.ss_hash == sa.bindparam("hash"))


@dataclass(frozen=True, kw_only=True)
class Patch:
    """A change that is in no repository, to be applied to a source stamp."""

    body: bytes
    level: int = 0
    subdir: str | None = None
    author: str = ""
    comment: str = ""


@dataclass(frozen=True, kw_only=True)
class Source:
    """What a source stamp is a stamp of."""

    branch: str | None = None
    revision: str | None = None
    repository: str = ""
    project: str = ""
    codebase: str = ""
    patch: Patch | None = None


def stamped(tx: Tx, source: Source) -> int:
    """Return the id of the source stamp; make it if it is new. Each patch makes a new one."""
    patchid = None
    if source.patch is not None and source.patch.body:
        patchid = tx.insert(
            patches,
            patchlevel=source.patch.level,
            patch_base64=base64.b64encode(source.patch.body).decode(),
            patch_author=source.patch.author,
            patch_comment=source.patch.comment,
            subdir=source.patch.subdir,
        )
    values = {
        "branch": source.branch,
        "revision": source.revision,
        "repository": source.repository,
        "project": source.project,
        "codebase": source.codebase,
        "patchid": patchid,
    }
    found = ss_hash(**values)  # type: ignore[arg-type]  # the names are those of its arguments
    row = tx.first(_BY_HASH, {"hash": found})
    if row is not None:
        return int(row[0])
    return tx.insert(sourcestamps, ss_hash=found, created_at=tx.now, **values)
