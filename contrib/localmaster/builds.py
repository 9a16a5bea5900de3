"""One build: its properties, its steps one after the other, its result."""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from twisted.internet.threads import deferToThread
from twisted.logger import Logger

from buildapi import BuildAPI
from buildapi.data.results import EXCEPTION, SUCCESS, WARNINGS, worst

from . import properties
from .config import Builder, Step
from .ending import end_build
from .patience import insist
from .process import Reactor
from .properties import Properties
from .steps import Outcome, Site, StepRun

# After these, the next step makes sense.
PASSED = (SUCCESS, WARNINGS)

_log = Logger()


@dataclass(frozen=True)
class Order:
    """
    What to build, and with what.

    build: at least ``buildid``, ``number`` and ``buildrequestid``.  request: the build request.
    directory: where the commands run; whatever is there is removed first.
    """

    builder: Builder
    worker: str
    build: Mapping[str, Any]
    request: Mapping[str, Any]
    directory: Path


class BuildRun:
    """One run of a builder."""

    def __init__(self, api: BuildAPI, reactor: Reactor, order: Order) -> None:
        self._api = api
        self._reactor = reactor
        self._order = order
        self.buildid: int = order.build["buildid"]
        self.worker = order.worker
        self._step: StepRun | None = None
        self._stopped: Outcome | None = None
        self._logids: list[int] = []

    def stop(self, results: int, text: str) -> None:
        """End the build with these results, as soon as its command has ended."""
        if self._stopped is None:
            self._stopped = Outcome(results, text)
            if self._step is not None:
                self._step.stop(self._stopped)

    async def run(self) -> list[int]:
        """Build, and record how it ended, whatever happens; return the ids of its logs."""
        try:
            ended = await self._build()
        except Exception:  # noqa: BLE001 -- a build that can't go on must end, whatever the reason
            _log.failure("build {buildid} failed in the master", buildid=self.buildid)
            ended = Outcome(EXCEPTION, "exception in the master")
        await insist(
            self._reactor,
            lambda: end_build(self._api, self._order.build, ended.results, ended.text),
        )
        return self._logids

    async def _build(self) -> Outcome:
        known = await self._properties()
        await self._api.data.updates.setBuildProperties(self.buildid, known)
        await deferToThread(_make_empty, self._order.directory)
        env = {**os.environ, **properties.environment(known), **self._order.builder.env}
        site = Site(self._api, self._reactor, self.buildid, self._order.directory, env)
        ends: list[tuple[Step, Outcome]] = []
        for step in self._order.builder.steps:
            if self._stopped is not None:
                return self._stopped
            if step.always or summary(ends).results in PASSED:
                ends.append((step, await self._run_step(site, step)))
        return self._stopped or summary(ends)

    async def _run_step(self, site: Site, step: Step) -> Outcome:
        await self._api.data.updates.setBuildStateString(self.buildid, f"running {step.name}")
        self._step = StepRun(site, step)
        try:
            if self._stopped is not None:
                return self._stopped
            ended = await self._step.run()
        finally:
            self._logids += self._step.logids
            self._step = None
        if ended.warnings:
            await self._api.data.updates.setBuildProperty(
                self.buildid, f"{step.name}-warnings", ended.warnings, step.name
            )
        return ended

    async def _properties(self) -> Properties:
        """Everything that is known of the build before it begins; later names win."""
        order = self._order
        buildset = await self._api.data.get(("buildsets", order.request["buildsetid"]))
        asked = await self._api.data.get(("buildsets", buildset["bsid"], "properties"))
        known: dict[str, tuple[Any, str]] = {}
        for sourcestamp in buildset["sourcestamps"][:1]:
            known |= properties.of_source(sourcestamp)
        known |= {name: (value, source) for name, (value, source) in asked.items()}
        return known | {
            "buildername": (order.builder.name, "Builder"),
            "buildnumber": (order.build["number"], "Build"),
            "workername": (order.worker, "Worker"),
            "builddir": (str(order.directory), "Worker"),
        }


def summary(ends: Sequence[tuple[Step, Outcome]]) -> Outcome:
    """Return the outcome of a build, given those of its steps; it names the steps to blame."""
    results = worst(ended.results for _, ended in ends)
    if results == SUCCESS:
        return Outcome(results, "build successful")
    blamed = [f"{step.name}: {ended.text}" for step, ended in ends if ended.results == results]
    return Outcome(results, ", ".join(blamed))


def _make_empty(directory: Path) -> None:
    shutil.rmtree(directory, ignore_errors=True)
    directory.mkdir(parents=True)
