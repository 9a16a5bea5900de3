"""Texts are compared by code point, whatever the collation of a database."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import pytest
import sqlalchemy as sa
from twisted.internet.defer import Deferred

from buildapi.errors import BadArgument, Conflict
from buildapi.service import BuildAPI
from buildapi.testing import in_memory_api, result_of
from buildapi.testing.memory import DATABASE

if TYPE_CHECKING:
    from test.servers import Server

# In order of their code points. No collation for people has all of them different, or this order.
NAMES = [
    "",
    "A",
    "B",
    "a",
    "a ",
    "a\N{COMBINING DIAERESIS}",
    "b",
    "z",
    "ß",
    "ä",
    "\uffee",
    "😀",
    "😁",
]
COLLATIONS = [
    ("postgresql", "en-US-u-ks-level1"),
    ("mariadb", "utf8mb4_general_ci"),
    ("mariadb", "utf8mb3_general_ci"),
    ("mariadb", "latin1_swedish_ci"),
]


@pytest.fixture(params=COLLATIONS, ids="-".join)
def collated(request: pytest.FixtureRequest) -> Iterator[BuildAPI]:
    """Give an API on a database with a collation of its own."""
    system, collation = request.param
    server: Server = request.getfixturevalue(system)
    if system == "mariadb":
        url = server.fresh_database()
        name = sa.make_url(url).database
        charset = collation.partition("_")[0]
        server.run(f"ALTER DATABASE {name} CHARACTER SET {charset} COLLATE {collation}")
    else:
        url = server.fresh_database(collation)
    token = DATABASE.set(url)
    api = in_memory_api()
    yield api
    result_of(api.stopService())
    DATABASE.reset(token)
    server.drop(url)


def storable(api: BuildAPI) -> list[str]:
    """Return the names that the columns of this database can hold."""
    found = []
    for name in NAMES:
        try:
            made(api, name)
        except BadArgument:
            continue
        found.append(name)
    return found


def made(api: BuildAPI, name: str) -> int:
    """Return the id of the builder of this name, which is made if need be."""
    ident: int = result_of(api.data.updates.findBuilderId(f"n{name}"))
    return ident


def got(api: BuildAPI, **query: Any) -> list[str]:
    """Return the names of builders."""
    found: Deferred[Any] = api.data.get("builders", **query)
    return [row["name"] for row in result_of(found)]


def test_every_name_is_one_of_its_own(collated: BuildAPI) -> None:
    """Found again, filtered, ordered and searched as Python would do it."""
    names = storable(collated)
    assert {"A", "a", "a ", "B"} <= set(names)
    assert len({made(collated, name) for name in names}) == len(names)
    stored = [f"n{name}" for name in names]

    assert got(collated, order=["name"]) == sorted(stored)
    assert got(collated, order=["-name"]) == sorted(stored, reverse=True)
    for name in stored:
        assert got(collated, filters={"name": name}) == [name]
        assert sorted(got(collated, filters={"name__gt": name})) == sorted(
            one for one in stored if one > name
        )
        assert sorted(got(collated, filters={"name__contains": name[1:]})) == sorted(
            one for one in stored if name[1:] in one
        )


def test_steps_of_one_build_never_have_names_that_the_database_takes_for_the_same(
    collated: BuildAPI,
) -> None:
    """Where its own index does, the later one gets a number, as Buildbot does it."""
    updates = collated.data.updates
    builderid = result_of(updates.findBuilderId("b"))
    workerid = result_of(updates.findWorkerId("w"))
    _, requests = result_of(updates.addBuildset(builderids=[builderid]))
    result_of(updates.claimBuildRequests([requests[builderid]]))
    buildid, _ = result_of(updates.newBuild(builderid, requests[builderid], workerid))
    wanted = ("compile", "Compile", "compile ", "Compile")
    steps = [result_of(updates.addStep(buildid, name)) for name in wanted]
    logs = [result_of(updates.addLog(steps[0][0], name, "t")) for name in ("stdio", "Stdio")]

    assert [number for _, number, _ in steps] == [0, 1, 2, 3]
    names = [name for _, _, name in steps]
    slugs = [row["slug"] for row in result_of(collated.data.get(f"steps/{steps[0][0]}/logs"))]
    assert len(set(names)) == 4
    assert len(set(logs)) == 2
    assert slugs in (["stdio", "Stdio"], ["stdio", "Stdio_2"])
    assert names[0] == "compile"
    assert names[1] in ("Compile", "Compile_1")


def test_a_worker_that_the_database_takes_for_another_is_refused_in_a_sentence(
    collated: BuildAPI,
) -> None:
    """Its name is configured, so nobody may change it."""
    updates = collated.data.updates
    first = result_of(updates.findWorkerId("linux"))
    if collated.database.connector.name.startswith("mariadb") and folds(collated):
        with pytest.raises(Conflict, match="Duplicate entry 'Linux' for key 'workers_name'"):
            result_of(updates.findWorkerId("Linux"))
    else:
        assert result_of(updates.findWorkerId("Linux")) != first
    assert result_of(updates.findWorkerId("linux")) == first


def folds(api: BuildAPI) -> bool:
    """Say whether capitals are the same to the database."""
    found = api.database.read(lambda r: r.connection.execute("SELECT @@collation_database"))
    return str(result_of(found).fetchone()[0]).endswith("_ci")
