"""Properties: named values of builds, build sets and changes, each with its source."""

from __future__ import annotations

import json
from types import MappingProxyType
from typing import Any

import sqlalchemy as sa

from buildapi.data.builds import Build
from buildapi.data.buildsets import Buildset
from buildapi.data.changes import Change
from buildapi.data.fetch import Context, Plain, find
from buildapi.data.plainrows import Row
from buildapi.data.query import Query
from buildapi.data.schema import Resource, field
from buildapi.data.storedjson import shown_text, valid_json
from buildapi.data.values import Json
from buildapi.db.connect import Params, Reader
from buildapi.db.tables import build_properties, buildset_properties, change_properties
from buildapi.errors import NoSuchResource

# Stored sets of properties: a name, the JSON text of the value, the source.
Stored = list[tuple[str, str, str]]

# Owners of properties are found with all that is shown of them.
_TABLES = frozenset(
    {
        *("builds", "build_properties", "builders"),
        *("buildsets", "buildset_properties", "buildset_sourcestamps"),
        *("changes", "change_files", "change_properties", "sourcestamps", "patches"),
    }
)

_OWNED = (Build, frozenset({"build_properties", "builds"}))

_OF_BUILD = sa.select(
    build_properties.c.name, build_properties.c.value, build_properties.c.source
).where(build_properties.c.buildid == sa.bindparam("ident"))
_OF_BUILDSET = sa.select(
    buildset_properties.c.property_name, buildset_properties.c.property_value
).where(buildset_properties.c.buildsetid == sa.bindparam("ident"))
_OF_CHANGE = sa.select(change_properties.c.property_name, change_properties.c.property_value).where(
    change_properties.c.changeid == sa.bindparam("ident")
)


def of_build(reader: Reader, buildid: int) -> Stored:
    """Read the properties of a build, as first stored."""
    return [
        (shown_text(name), text, shown_text(source))
        for name, text, source in reader.rows(_OF_BUILD, {"ident": buildid})
    ]


def of_buildset(reader: Reader, bsid: int) -> Stored:
    """Read the properties of a build set."""
    return _unpaired(reader.rows(_OF_BUILDSET, {"ident": bsid}))


def of_change(reader: Reader, changeid: int) -> Stored:
    """Read the properties of a change."""
    return _unpaired(reader.rows(_OF_CHANGE, {"ident": changeid}))


def _unpaired(rows: list[tuple[Any, ...]]) -> Stored:
    found = []
    for name, text in rows:
        match json.loads(valid_json(text)):
            case [value, str(source)]:
                found.append((shown_text(name), json.dumps(value), source))
            case _:  # what is no pair of value and source tells neither
                found.append((shown_text(name), "null", ""))
    return found


def _read(reader: Reader, pattern: str, bound: Params, context: Context) -> Stored:
    owners: list[tuple[str, type[Resource], Any]] = [
        ("buildsets/", Buildset, of_buildset),
        ("changes/", Change, of_change),
        ("", Build, of_build),
    ]
    for start, owner, read in owners:
        if pattern.startswith(start):
            ident = find(reader, owner, pattern, bound, context.restriction)[owner.ident]
            found: Stored = read(reader, ident)
            return found
    raise NoSuchResource(pattern)


class Properties(Plain):
    """All properties of one build or build set, as one object: {name: [value, source]}."""

    plural, singular = "properties", "sourcedproperties"
    tables = _TABLES
    owners = MappingProxyType({"builds/n:buildid/properties": _OWNED})
    one = (
        "builds/n:buildid/properties",
        "builders/n:builderid/builds/n:build_number/properties",
        "buildsets/n:bsid/properties",
    )

    @classmethod
    def objects(
        cls,
        reader: Reader,
        pattern: str,
        bound: Params,
        query: Query,  # noqa: ARG003  the one object has no window
        context: Context,
    ) -> list[Row]:
        """Return the one object, sorted by name; NoSuchResource without its owner."""
        # Web pages make a table of it just as it comes, and people look for names in that.
        stored = sorted(_read(reader, pattern, bound, context))
        return [{n: [json.loads(valid_json(text)), source] for n, text, source in stored}]


class Property(Plain):
    """One property of a build, build set or change."""

    plural, singular = "_properties", "_property"
    tables = _TABLES
    owners = MappingProxyType({"builds/n:buildid/property_list": _OWNED})
    many = (
        "builds/n:buildid/property_list",
        "buildsets/n:bsid/properties_list",
        "changes/n:changeid/properties_list",
    )

    name: str = field(sa.null(), "Its name.")
    source: str = field(sa.null(), "Who set it.")  # type: ignore[assignment,misc]  # a plain type has no FROM
    value: Json = field(sa.null(), "Its value, as JSON text.")

    @classmethod
    def objects(
        cls,
        reader: Reader,
        pattern: str,
        bound: Params,
        query: Query,  # noqa: ARG003  filters and window are applied to what is returned
        context: Context,
    ) -> list[Row]:
        """
        Return the properties; an empty list below a missing owner.

        As first stored, where a database knows that order; a server has none to rely on from page
        to page, as it moves what is changed, so there it is that of the names.
        """
        try:
            stored = _read(reader, pattern, bound, context)
        except NoSuchResource:
            return []
        if reader.dialect.name != "sqlite":
            stored.sort()
        return [{"name": n, "source": s, "value": valid_json(text)} for n, text, s in stored]
