"""Source stamps: which source is built."""

from __future__ import annotations

import base64
from dataclasses import dataclass, fields
from typing import Annotated, Any, ClassVar

import sqlalchemy as sa
from pydantic import (
    AfterValidator,
    BeforeValidator,
    ConfigDict,
    Field,
    TypeAdapter,
    ValidationError,
)

from buildapi.data.schema import Resource, field
from buildapi.data.updates import must_exist
from buildapi.data.values import Binary, Time, is_text, nested
from buildapi.db import spelling
from buildapi.db.hashes import ss_hash
from buildapi.db.tables import buildset_sourcestamps, patches, sourcestamps
from buildapi.db.transaction import Tx

_patch = sa.case(
    (
        sourcestamps.c.patchid.is_not(None),
        spelling.json_object(
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

ShownPatch = Annotated[
    Any,
    nested("patch", patchid=int, body=Binary, level=int, subdir=str, author=str, comment=str),
]


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
    patch: ShownPatch | None = field(
        _patch, "The patch: {patchid, level, subdir, author, comment, body: null}, or null."
    )
    created_at: Time = field(sourcestamps.c.created_at, "When it was first seen.")


_BY_HASH = sa.select(sourcestamps.c.id).where(sourcestamps.c.ss_hash == sa.bindparam("hash"))


def _text(value: str) -> str:
    if not is_text(value):
        raise ValueError("UTF-8 has no lone surrogates; use errors='replace'")
    return value


_UTF8 = AfterValidator(_text)
Text = Annotated[str, Field(strict=True), _UTF8]
Text256 = Annotated[str, Field(strict=True, max_length=256), _UTF8]
Text512 = Annotated[str, Field(strict=True, max_length=512), _UTF8]


@dataclass(frozen=True, kw_only=True)
class Patch:
    """A change that is in no repository, to be applied to a source stamp."""

    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(extra="forbid")

    body: bytes
    level: Annotated[int, Field(strict=True, ge=0, lt=2**31)] = 0
    subdir: Text | None = None
    author: Text = ""
    comment: Text = ""


@dataclass(frozen=True, kw_only=True)
class Source:
    """What a source stamp is a stamp of."""

    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(extra="forbid")

    branch: Text256 | None = None
    revision: Text256 | None = None
    repository: Text512 = ""
    project: Text512 = ""
    codebase: Text256 = ""
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


_SOURCE = TypeAdapter(Source)


def _wanted(given: Any) -> int | Source:
    """Return the id of a source stamp, or what to make one of; ValueError if it is neither."""
    if isinstance(given, dict) and "ssid" in given:
        given = given["ssid"]  # an object of the API
    if isinstance(given, str) and given.isascii() and given.isdigit():
        given = int(given)
    if isinstance(given, int) and not isinstance(given, bool) and 0 <= given < 2**31:
        return given
    if not isinstance(given, dict):
        raise ValueError("a source stamp is an id or a dictionary")  # noqa: TRY004  pydantic's way to say it
    if given.get("patch") is not None:
        raise ValueError("patch: give patch_body and what else there is of it, or the ssid")
    patch = {name: given[n] for n, name in _PATCH.items() if given.get(n) is not None}
    parts = {n: value for n, value in given.items() if n not in _PATCH}
    try:
        # An empty patch is no patch.
        return _SOURCE.validate_python({**parts, "patch": patch if patch.get("body") else None})
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False, include_context=False)[0]
        raise ValueError(f"{'_'.join(map(str, first['loc']))}: {first['msg']}") from None


_PATCH = {f"patch_{field.name}": field.name for field in fields(Patch)}

Wanted = Annotated[Any, BeforeValidator(_wanted)]
"""A source stamp as callers give it: an id or a dictionary. The body gets an id or a Source."""


def stamp(tx: Tx, wanted: int | Source) -> int:
    """Return the id of the source stamp that is wanted."""
    if isinstance(wanted, Source):
        return stamped(tx, wanted)
    must_exist(tx, SourceStamp, wanted, "sourcestamps")
    return wanted
