"""Codebases with their commits and branches, and how commits are related."""

from __future__ import annotations

import pytest

from buildapi.data.commitgraphs import DEPTH
from buildapi.errors import BadArgument, NoSuchResource
from buildapi.service import BuildAPI
from buildapi.testing import a_commit, result_of

# The history that was recorded: a straight line from 1 to 8, and 9 to 12 that leave it at 4.
PARENTS = {**{child: child - 1 for child in range(2, 13)}, 9: 4}


@pytest.fixture
def codebaseid(api: BuildAPI) -> int:
    """The codebase ``core`` of the project ``app``, with that history."""
    for commitid in range(1, 13):
        assert result_of(a_commit(api, f"rev-{commitid}", PARENTS.get(commitid))) == commitid
    return 1


def test_commits_are_found_by_revision(api: BuildAPI, codebaseid: int) -> None:
    """A codebase is found by its name within its project, a branch by its id."""
    by_revision = ("codebases", codebaseid, "commits_by_revision", "rev-3")

    assert result_of(api.data.get(by_revision)) == result_of(api.data.get("commits/3"))
    assert result_of(api.data.get("projects/1/codebases/core"))["codebaseid"] == codebaseid
    with pytest.raises(NoSuchResource):
        result_of(api.data.get(("codebases", codebaseid, "commits_by_revision", "rev-99")))


def test_a_branch_points_to_a_commit_of_its_codebase(api: BuildAPI, codebaseid: int) -> None:
    """One of another codebase is refused."""
    other = result_of(api.data.updates.find_codebase_id(projectid=1, name="docs"))
    with pytest.raises(BadArgument, match="another codebase"):
        result_of(
            api.data.updates.update_branch(
                codebaseid=other, name="main", commitid=1, last_timestamp=0
            )
        )

    assert result_of(api.data.get(("codebases", other, "branches"))) == []
    assert result_of(api.data.get(("codebases", codebaseid, "branches"))) == []


# As recorded.  Where the second is an ancestor of the first, ``to1`` may begin before the common.
GRAPHS: list[tuple[int, int, int, list[int], list[int]]] = [
    (2, 1, 1, [1, 2], [1]),
    (2, 8, 2, [2], [2, 3, 4, 5, 6, 7, 8]),
    (3, 9, 3, [3], [3, 4, 9]),
    (4, 12, 4, [4], [4, 9, 10, 11, 12]),
    (5, 8, 5, [5], [5, 6, 7, 8]),
    (6, 1, 1, [1, 2, 3, 4, 5, 6], [1]),
    (9, 1, 1, [1, 2, 3, 4, 9], [1]),
    (10, 4, 4, [3, 4, 9, 10], [4]),
    (12, 5, 4, [4, 9, 10, 11, 12], [4, 5]),
]


@pytest.mark.parametrize(("first", "second", "common", "to1", "to2"), GRAPHS)
def test_commits_have_a_common_parent(
    api: BuildAPI,
    codebaseid: int,
    first: int,
    second: int,
    common: int,
    to1: list[int],
    to2: list[int],
) -> None:
    """And a way from there to each of them."""
    path = ("codebases", codebaseid, "commit_range", first, second, "commits_common_parent")

    assert result_of(api.data.get(path)) == {"common": common, "to1": to1, "to2": to2}


def test_commits_without_a_common_parent_have_no_graph(api: BuildAPI, codebaseid: int) -> None:
    """Nor do unknown ones."""
    alone = result_of(a_commit(api, "alone"))
    for second in (alone, 99):
        path = ("codebases", codebaseid, "commit_range", 1, second, "commits_common_parent")
        with pytest.raises(NoSuchResource):
            result_of(api.data.get(path))


def test_a_common_parent_is_searched_so_far_back(api: BuildAPI, codebaseid: int) -> None:
    """A long history costs no more than that."""
    tip = 12
    for number in range(DEPTH + 1):
        tip = result_of(a_commit(api, f"late-{number}", tip))

    near = ("codebases", codebaseid, "commit_range", 13, tip, "commits_common_parent")
    far = ("codebases", codebaseid, "commit_range", 12, tip, "commits_common_parent")
    assert result_of(api.data.get(near))["common"] == 13
    with pytest.raises(NoSuchResource):
        result_of(api.data.get(far))
