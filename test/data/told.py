"""What an update is expected to tell: its events, by their names and bodies."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from twisted.internet.defer import Deferred

from buildapi.data.api import AllUpdates
from buildapi.service import BuildAPI
from buildapi.testing import result_of
from test.data.furnished import (
    BUILD,
    BUILDER,
    LOG,
    NUMBER,
    REQUEST,
    RESULTS,
    SET,
    STEP,
    WORKER,
)


@dataclass(frozen=True)
class Told:
    """
    An event that is expected.

    body: the path of the object that it is, or a body of its own.  extra: what it has beside.
    """

    topic: str
    keys: tuple[str, ...]
    body: Any
    extra: tuple[tuple[str, Any], ...] = ()


Call = Callable[[AllUpdates], Deferred[Any]]


@dataclass(frozen=True)
class Case:
    """A call, what came before it, its result and its events."""

    call: Call
    result: Any
    told: tuple[Told, ...] = ()
    before: Call | None = None


def of_build(word: str, buildid: int = BUILD, number: int = NUMBER) -> Told:
    """Tell something of a build."""
    keys = (
        f"builders/{BUILDER}/builds/{number}/{word}",
        f"builds/{buildid}/{word}",
        f"workers/{WORKER}/builds/{buildid}/{word}",
    )
    return Told(f"build.{buildid}.{word}", keys, f"builds/{buildid}")


def of_request(word: str, brid: int = REQUEST, bsid: int = SET, builderid: int = BUILDER) -> Told:
    """Tell something of a request."""
    keys = (
        f"buildsets/{bsid}/builders/{builderid}/buildrequests/{brid}/{word}",
        f"buildrequests/{brid}/{word}",
        f"builders/{builderid}/buildrequests/{brid}/{word}",
    )
    return Told(f"buildrequest.{brid}.{word}", keys, f"buildrequests/{brid}")


def of_set(word: str, bsid: int = SET) -> Told:
    """Tell something of a build set."""
    return Told(f"buildset.{bsid}.{word}", (f"buildsets/{bsid}/{word}",), f"buildsets/{bsid}")


def of_step(word: str, stepid: int = STEP, number: int = 4) -> Told:
    """Tell something of a step: its id in slash keys, its number in the topic."""
    keys = (f"builds/{BUILD}/steps/{stepid}/{word}", f"steps/{stepid}/{word}")
    return Told(f"build.{BUILD}.step.{number}.{word}", keys, f"steps/{stepid}")


def of_log(word: str, slash: str, logid: int = LOG, slug: str = "stdio") -> Told:
    """Tell something of a log: the words of the two families differ."""
    keys = (f"logs/{logid}/{slash}", f"steps/{STEP}/logs/{slug}/{slash}")
    return Told(f"build.{BUILD}.step.4.log.{logid}.{word}", keys, f"logs/{logid}")


def of_worker(word: str, *, slash: bool = True, workerid: int = WORKER, **extra: Any) -> Told:
    """Tell something of a worker."""
    keys = (f"workers/{workerid}/{word}",) if slash else ()
    return Told(f"worker.{workerid}.{word}", keys, f"workers/{workerid}", tuple(extra.items()))


def of_builder(word: str, body: Any = None, builderid: int = BUILDER) -> Told:
    """Tell something of a builder."""
    found = f"builders/{builderid}" if body is None else body
    return Told(f"builder.{builderid}.{word}", (f"builders/{builderid}/{word}",), found)


def of_properties(**body: Any) -> Told:
    """Tell of the properties of the build."""
    keys = (f"builds/{BUILD}/properties/update",)
    return Told(f"build.{BUILD}.properties.update", keys, body)


def of_master(word: str, ident: int, name: str, *, active: bool) -> Told:
    """Tell something of a master."""
    body = {"masterid": ident, "name": name, "active": active}
    return Told(f"master.{ident}.{word}", (f"masters/{ident}/{word}",), body)


def silently(topic: str, path: str) -> Told:
    """Tell of an object under its topic only, where Buildbot says nothing."""
    return Told(topic, (), path)


def of_results(word: str, setid: int = RESULTS) -> Told:
    """Tell something of a set of test results."""
    path = f"test_result_sets/{setid}"
    return Told(f"testresultset.{setid}.{word}", (f"{path}/{word}",), path)


def of_source(kind: str, plural: str, ident: int, word: str = "update") -> Told:
    """Tell something of a project, a codebase or a branch."""
    return Told(f"{kind}.{ident}.{word}", (f"{plural}/{ident}/{word}",), f"{plural}/{ident}")


def body_of(api: BuildAPI, told: Told) -> Any:
    """Return the body that is expected: a fresh GET of the object, or its own."""
    body = result_of(api.data.get(told.body)) if isinstance(told.body, str) else told.body
    return {**body, **dict(told.extra)}
