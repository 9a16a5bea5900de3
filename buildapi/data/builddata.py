"""Build data: bytes that builds leave behind, each under a name."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import orjson
import sqlalchemy as sa
from pydantic import Field

from buildapi.data.builds import Build
from buildapi.data.fetch import find
from buildapi.data.gate import Restriction
from buildapi.data.schema import NOTHING, Column, Resource, field, happens
from buildapi.data.updates import Id, Updates, must_exist, update
from buildapi.data.values import Binary
from buildapi.db.blobs import blob_piece
from buildapi.db.connect import Params, Reader
from buildapi.db.eventlog import newest
from buildapi.db.tables import build_data, buildapi_events, builds
from buildapi.db.transaction import Tx
from buildapi.errors import Conflict


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


@dataclass(frozen=True)
class Value:
    """
    What a download found, to know whether it is still that.

    size: how many bytes there are; the column ``length`` may say otherwise.  seq: where the event
    log was; None if that does not tell of every change.
    """

    ident: int
    size: int
    length: int
    source: str
    buildid: int
    name: str
    seq: int | None


_VALUE = sa.select(
    build_data.c.id, sa.func.length(build_data.c.value), build_data.c.length, build_data.c.source
).where(build_data.c.buildid == sa.bindparam("buildid"), build_data.c.name == sa.bindparam("name"))


def value_of(
    reader: Reader, pattern: str, bound: Params, restriction: Restriction | None, *, logged: bool
) -> Value:
    """Find a value; NoSuchResource if there is none of that name.  Call it in a snapshot."""
    row = find(reader, BuildData, pattern, bound, restriction)
    buildid, name = row["buildid"], row["name"]
    ((ident, size, length, source),) = reader.rows(_VALUE, {"buildid": buildid, "name": name})
    seq = newest(reader) if logged else None
    return Value(ident, size, length, source, buildid, name, seq)


def value_piece(reader: Reader, value: Value, start: int, size: int) -> bytes:
    """
    Read some bytes of a value that was found.  Call it in a snapshot.

    Fails with Conflict if another value has taken its place: two would be mixed.  Where the event
    log does not tell, another one is known by its length and by who left it.
    """
    now = reader.first(_VALUE, {"buildid": value.buildid, "name": value.name})
    if now != (value.ident, value.size, value.length, value.source) or _was_set(reader, value):
        raise Conflict(f"build data {value.name!r} were replaced while they were sent")
    return blob_piece(reader, build_data.c.value, value.ident, start, size)


_SET_SINCE = sa.select(buildapi_events.c.body).where(
    buildapi_events.c.seq > sa.bindparam("seq"), buildapi_events.c.topic == sa.bindparam("topic")
)


def _was_set(reader: Reader, value: Value) -> bool:
    if value.seq is None:
        return False
    topic = BuildData.topic.format(buildid=value.buildid) + ".updated"
    bodies = reader.rows(_SET_SINCE, {"seq": value.seq, "topic": topic})
    return any(orjson.loads(body)["name"] == value.name for (body,) in bodies)


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
