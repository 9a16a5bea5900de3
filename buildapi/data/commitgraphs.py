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

_PARENT = sa.select(codebase_commits.c.parent_commitid).where(
    codebase_commits.c.id == sa.bindparam("commitid")
)


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

    Both sides go back step by step, the first one a step ahead: where the second commit is found to
    be a parent of the first, ``to1`` begins one commit before the common one. Clients know it so.
    """
    one, two = [first], [second]
    if _parent(reader, first) is _MISSING or _parent(reader, second) is _MISSING:
        raise NoSuchResource(f"there are no commits {first} and {second}")
    older, other = first, second
    for _ in range(DEPTH):
        parent = _parent(reader, older)
        if isinstance(parent, int):
            one.append(parent)
        if older in two:
            return _row(older, one, two[: two.index(older) + 1])
        older = parent if isinstance(parent, int) else older
        parent = _parent(reader, other)
        if isinstance(parent, int):
            two.append(parent)
            other = parent
            if other in one:
                return _row(other, one[: one.index(other) + 1], two)
    raise NoSuchResource(f"commits {first} and {second} have no common parent near enough")


def _row(common: int, one: list[int], two: list[int]) -> Row:
    return {"common": common, "to1": one[::-1], "to2": two[::-1]}


_MISSING = object()


def _parent(reader: Reader, commitid: int) -> object:
    """Return the parent of a commit: an id, None, or _MISSING without such a commit."""
    row = reader.first(_PARENT, {"commitid": commitid})
    return _MISSING if row is None else row[0]
