"""What the tests of the data layer share: an API in memory, and a build that is under way."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from buildapi.service import BuildAPI
from buildapi.testing import in_memory_api, result_of


@pytest.fixture
def api(system: str) -> Iterator[BuildAPI]:  # noqa: ARG001  where the API has its database
    """A started API, whose master has id 1; on each database system."""
    api = in_memory_api()
    yield api
    result_of(api.stopService())


@pytest.fixture
def builderid(api: BuildAPI) -> int:
    """The builder ``runtests``, on the serving master."""
    result_of(api.data.updates.updateBuilderList(api.masterid or 0, ["runtests"]))
    found: int = result_of(api.data.updates.findBuilderId("runtests"))
    return found


@pytest.fixture
def workerid(api: BuildAPI) -> int:
    """The worker ``worker-1``."""
    found: int = result_of(api.data.updates.findWorkerId("worker-1"))
    return found


@pytest.fixture
def brid(api: BuildAPI, builderid: int) -> int:
    """A pending request for the builder, with one source stamp and one property."""
    _, brids = result_of(
        api.data.updates.addBuildset(
            builderids=[builderid],
            sourcestamps=[{"branch": "main", "repository": "git://app", "codebase": "app"}],
            properties={"owner": ("alice", "Force Build Form")},
        )
    )
    found: int = brids[builderid]
    return found


@pytest.fixture
def buildid(api: BuildAPI, builderid: int, brid: int, workerid: int) -> int:
    """A running build of that request, claimed by the serving master."""
    assert result_of(api.data.updates.claimBuildRequests([brid]))
    found: int = result_of(api.data.updates.newBuild(builderid, brid, workerid))[0]
    return found


@pytest.fixture
def stepid(api: BuildAPI, buildid: int) -> int:
    """The step ``compile`` of that build."""
    found: int = result_of(api.data.updates.addStep(buildid, "compile"))[0]
    return found


@pytest.fixture
def logid(api: BuildAPI, stepid: int) -> int:
    """The log ``stdio`` of that step."""
    found: int = result_of(api.data.updates.addLog(stepid, "stdio", "s"))
    return found
