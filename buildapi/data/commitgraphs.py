"""Commit graphs: how two commits are related."""

from __future__ import annotations

import sqlalchemy as sa

from buildapi.data.fetch import Context, Plain
from buildapi.data.plainrows import Row
from buildapi.data.query import Query
from buildapi.data.schema import field
from buildapi.db.connect import Params, Reader
from buildapi.db.tables import codebase_commits
from buildapi.errors import NoSuchResource

# How many commits back a common parent is searched.
DEPTH = 100

_START = (
    sa.select(
        codebase_commits.c.id,
        codebase_commits.c.parent_commitid,
        sa.literal_column("0", sa.Integer).label("steps"),
    )
    .where(codebase_commits.c.id == sa.bindparam("commitid"))
    .cte("line", recursive=True)
)
_LINE = _START.union_all(
    sa.select(
        codebase_commits.c.id,
        codebase_commits.c.parent_commitid,
        _START.c.steps + sa.literal_column("1", sa.Integer),
    )
    .join(_START, _START.c.parent_commitid == codebase_commits.c.id)
    .where(_START.c.steps < sa.literal_column(str(DEPTH), sa.Integer))
)
_COMMITS = sa.select(_LINE.c.id).order_by(_LINE.c.steps)


class CommitGraph(Plain):
    """The way from the common parent of two commits to each of them."""

    plural, singular = "commit_graphs", "commit_graph"
    tables = frozenset({"codebase_commits"})
    one = ("codebases/n:codebaseid/commit_range/n:commitid1/n:commitid2/commits_common_parent",)

    common: int = field(sa.null(), "The newest commit that both come from.")
    to1: list[int] = field(sa.null(), "The commits from there to the first one.")
    to2: list[int] = field(sa.null(), "The commits from there to the second one.")

    @classmethod
    def objects(
        cls,
        reader: Reader,
        pattern: str,  # noqa: ARG003  there is one
        bound: Params,
        query: Query,  # noqa: ARG003  one object has no window
        context: Context,  # noqa: ARG003  commits belong to no builder
    ) -> list[Row]:
        """Return the one graph; NoSuchResource without a common parent near enough."""
        return [graph(reader, bound["commitid1"], bound["commitid2"])]


def graph(reader: Reader, first: int, second: int) -> Row:
    """
    Return the graph of two commits; NoSuchResource without a common parent near enough.

    The common commit is the first one on the way back from the second that the first comes from,
    too.  If that is the second itself, ``to1`` begins one commit before it.  Clients know it so.
    """
    one, two = _line(reader, first), _line(reader, second)
    common = next((commit for commit in two if commit in one), None)
    if common is None:
        raise NoSuchResource(f"commits {first} and {second} have no common parent near enough")
    before = common == second != first
    to1, to2 = one[: one.index(common) + 1 + before], two[: two.index(common) + 1]
    return {"common": common, "to1": to1[::-1], "to2": to2[::-1]}


def _line(reader: Reader, commitid: int) -> list[int]:
    """Return a commit, its parent, and so on: as many as are looked at, none if it is missing."""
    return [found for (found,) in reader.rows(_COMMITS, {"commitid": commitid})]
