"""The root of the API: the names of what can be asked for first."""

from __future__ import annotations

import sqlalchemy as sa

from buildapi.data.fetch import Context, Plain
from buildapi.data.plainrows import Row
from buildapi.data.query import Query
from buildapi.data.schema import field
from buildapi.db.connect import Params, Reader

NAMES = (
    "builders",
    "builds",
    "buildrequests",
    "codebases",
    "workers",
    "logchunks",
    "buildsets",
    "changes",
    "changesources",
    "masters",
    "sourcestamps",
    "schedulers",
    "forceschedulers",
    "projects",
)


class RootLink(Plain):
    """The name of a collection."""

    plural = "rootlinks"
    many = ("/",)

    name: str = field(sa.null(), "The name of a collection: its path.")

    @classmethod
    def objects(
        cls,
        reader: Reader,  # noqa: ARG003  it is in no table
        pattern: str,  # noqa: ARG003  there is one
        bound: Params,  # noqa: ARG003  it has no keys
        query: Query,  # noqa: ARG003  filters and window are applied to what is returned
        context: Context,  # noqa: ARG003  everybody may know
    ) -> list[Row]:
        """Return the names, in the contract's order."""
        return [{"name": name} for name in NAMES]
