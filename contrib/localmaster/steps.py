"""One step of a build: its command, its logs, its result."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from signal import Signals

from buildapi import BuildAPI
from buildapi.data.results import FAILURE, SUCCESS, WARNINGS

from .config import Step
from .feed import LogFeed
from .lines import header
from .patience import insist
from .process import Command, Reactor
from .tail import Tail

# Between asking a command to end and killing it.
GRACE_S = 5.0


@dataclass(frozen=True)
class Site:
    """Where the commands of a build run, and where what they do is recorded."""

    api: BuildAPI
    reactor: Reactor
    buildid: int
    directory: Path
    env: Mapping[str, str]


@dataclass(frozen=True)
class Outcome:
    """How a step ended.  warnings: the number of lines that looked like one."""

    results: int
    text: str
    warnings: int = 0


def outcome(code: int, warnings: int) -> Outcome:
    """Say what the end of a command means.  code: its exit code, or minus the signal it died of."""
    if code < 0:
        return Outcome(FAILURE, f"killed by {Signals(-code).name}", warnings)
    if code > 0:
        return Outcome(FAILURE, f"failed with exit code {code}", warnings)
    if warnings:
        plural = "" if warnings == 1 else "s"
        return Outcome(WARNINGS, f"{warnings} warning{plural}", warnings)
    return Outcome(SUCCESS, "done")


class Log:
    """A log that is being written."""

    def __init__(self, site: Site, logid: int) -> None:
        self.logid = logid
        self._site = site
        self.feed = LogFeed(self._append)

    @classmethod
    async def open(cls, site: Site, stepid: int, name: str, kind: str) -> Log:
        """Add a log to a step.  kind: ``s`` if each line has a stream character, else ``t``."""
        return cls(site, await site.api.data.updates.addLog(stepid, name, kind))

    async def close(self) -> None:
        """Wait until everything is stored, and say that no more will come."""
        await self.feed.flush()
        await self._site.api.data.updates.finishLog(self.logid)

    async def _append(self, text: str) -> None:
        updates = self._site.api.data.updates
        await insist(self._site.reactor, lambda: updates.appendLog(self.logid, text))


class StepRun:
    """One run of a step."""

    def __init__(self, site: Site, step: Step) -> None:
        self.logids: list[int] = []
        self._site = site
        self._step = step
        self._warnings = 0
        self._command: Command | None = None
        self._stopped: Outcome | None = None

    def stop(self, stopped: Outcome) -> None:
        """End the step as ``stopped`` says, as soon as its command has ended."""
        self._stopped = stopped
        if self._command is not None:
            self._command.stop(GRACE_S)

    async def run(self) -> Outcome:
        """Run it from ``new`` to ``finished``; return how it ended."""
        updates = self._site.api.data.updates
        stepid, _number, _name = await updates.addStep(self._site.buildid, self._step.name)
        await updates.startStep(stepid, locks_acquired=True)
        await updates.setStepStateString(stepid, "running")
        for name, url in self._step.urls.items():
            await updates.addStepURL(stepid, name, url)
        ended = await self._with_logs(stepid)
        await updates.setStepStateString(stepid, ended.text)
        await updates.finishStep(stepid, ended.results, hidden=False)
        return ended

    async def _with_logs(self, stepid: int) -> Outcome:
        stdio = await Log.open(self._site, stepid, "stdio", "s")
        others = {
            path: await Log.open(self._site, stepid, name, "t")
            for name, path in self._step.logs.items()
        }
        logs = [stdio, *others.values()]
        self.logids = [log.logid for log in logs]
        tails = [
            Tail(self._site.reactor, self._site.directory / path, log.feed)
            for path, log in others.items()
        ]
        ended = await self._run_command(stdio.feed, tails)
        stdio.feed.write(header(ended.text))
        for log in logs:
            await log.close()
        return ended

    async def _run_command(self, feed: LogFeed, tails: list[Tail]) -> Outcome:
        env = {**self._site.env, **self._step.env}
        feed.write(header(shlex.join(self._step.command)))
        feed.write(header(f" in directory {self._site.directory}"))
        if self._stopped is not None:
            return self._stopped

        def write(text: str) -> None:
            self._count_warnings(text)
            feed.write(text)

        self._command = Command(self._site.reactor, write)
        self._command.start(self._step.command, env, self._site.directory)
        feed.register(self._command)
        for tail in tails:
            tail.start()
        try:
            code = await self._command.ended
        finally:
            self._command = None
            feed.unregister()
            for tail in tails:
                await tail.finish()
        return self._stopped or outcome(code, self._warnings)

    def _count_warnings(self, text: str) -> None:
        if self._step.warnings is not None:
            search = self._step.warnings.search
            self._warnings += sum(1 for line in text.split("\n")[:-1] if search(line[1:]))
