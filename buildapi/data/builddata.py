"""Build data: bytes that builds leave behind, each under a name."""

from __future__ import annotations

from typing import Annotated

import sqlalchemy as sa
from pydantic import Field

from buildapi.data.builds import Build
from buildapi.data.fetch import find
from buildapi.data.gate import Restriction
from buildapi.data.schema import NOTHING, Column, Resource, field, happens
from buildapi.data.updates import Id, Updates, must_exist, update
from buildapi.data.values import Binary
from buildapi.db.connect import Params, Reader
from buildapi.db.tables import build_data, builds
from buildapi.db.transaction import Tx


class BuildData(Resource):
    """Bytes that a build left behind, under a name."""

    plural, table, parent = "build_data", build_data, Build
    singular = "build_data"
    parent_on = builds.c.id == build_data.c.buildid
    ident = "name"
    keys = {"buildid": build_data.c.buildid, "name": build_data.c.name}
    one = (
        "builds/n:buildid/data/i:name",
        "builders/n:builderid/builds/n:build_number/data/i:name",
        "builders/s:buildername/builds/n:build_number/data/i:name",
    )
    many = (
        "builds/n:buildid/data",
        "builders/n:builderid/builds/n:build_number/data",
        "builders/s:buildername/builds/n:build_number/data",
    )
    raw = (
        "builds/n:buildid/data/i:name/value",
        "builders/n:builderid/builds/n:build_number/data/i:name/value",
        "builders/s:buildername/builds/n:build_number/data/i:name/value",
    )
    topic = "build.{buildid}.data"
    events = {"updated": happens("Data of this name were set.", slash=None)}

    buildid: int = field(build_data.c.buildid, "The build that left them.")
    name: str = field(build_data.c.name, "Their name, unique within the build.")
    length: int = field(build_data.c.length, "How many bytes they are.")
    value: Binary | None = field(NOTHING, "Always null; the bytes are at ``value`` below the path.")
    source: str = field(build_data.c.source, "Who left them.")  # type: ignore[assignment,misc]

    @classmethod
    def row_key(cls) -> Column:
        """Return what one row is found by."""
        return build_data.c.id


_VALUE = sa.select(build_data.c.value).where(
    build_data.c.buildid == sa.bindparam("buildid"), build_data.c.name == sa.bindparam("name")
)


def value_of(reader: Reader, pattern: str, bound: Params, restriction: Restriction | None) -> bytes:
    """Read the bytes; NoSuchResource if there are none of that name."""
    row = find(reader, BuildData, pattern, bound, restriction)
    found = reader.rows(_VALUE, {"buildid": row["buildid"], "name": row["name"]})
    return bytes(found[0][0])


_EXISTING = sa.select(build_data.c.id).where(
    build_data.c.buildid == sa.bindparam("buildid"), build_data.c.name == sa.bindparam("name")
)


class BuildDataUpdates(Updates):
    """What sets build data."""

    @update
    def setBuildData(
        self,
        tx: Tx,
        buildid: Id,
        name: Annotated[str, Field(min_length=1, max_length=256)],
        value: bytes,
        source: Annotated[str, Field(max_length=256)],
    ) -> None:
        """Set the bytes of a name; what was there is replaced.  Publishes ``data.updated``."""
        must_exist(tx, Build, buildid)
        values = {"value": value, "length": len(value), "source": source}
        row = tx.first(_EXISTING, {"buildid": buildid, "name": name})
        if row is None:
            ident = tx.insert(build_data, buildid=buildid, name=name, **values)
        else:
            ident = row[0]
            tx.change(build_data, ident, **values)
        tx.emit(BuildData, ident, "updated")
