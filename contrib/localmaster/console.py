"""What people see in the terminal: where to look, what to try, and one line for what happens."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from buildapi import Event
from buildapi.mq.bus import Bus

FOLLOW = Path(__file__).parents[1] / "followlog.py"

RESULTS = ("SUCCESS", "WARNINGS", "FAILURE", "SKIPPED", "EXCEPTION", "RETRY", "CANCELLED")


class Narrator:
    """
    Tells what happens, a line at a time.

    builders: names by id.  say: called with each line.
    """

    def __init__(self, builders: Mapping[int, str], say: Callable[[str], None]) -> None:
        self._builders = builders
        self._say = say
        self._builds: dict[int, str] = {}

    def listen(self, mq: Bus) -> None:
        """Tell what happens from now on."""
        mq.listen("change.*.new", self._change)
        mq.listen("build.*.new", self._build_new)
        mq.listen("build.*.finished", self._build_finished)
        mq.listen("build.*.step.*.started", self._step_started)
        mq.listen("build.*.step.*.finished", self._step_finished)

    def _change(self, event: Event) -> None:
        change = event.message
        subject = change["comments"].partition("\n")[0]
        self._tell(event, f"change {(change['revision'] or '')[:10]}: {subject}")

    def _build_new(self, event: Event) -> None:
        build = event.message
        self._builds[build["buildid"]] = self._name(build)
        request = f"request {build['buildrequestid']}"
        self._tell(event, f"{self._name(build)} begins as build {build['buildid']}, for {request}")

    def _build_finished(self, event: Event) -> None:
        build = event.message
        self._builds.pop(build["buildid"], None)
        result = RESULTS[build["results"]]
        self._tell(event, f"{self._name(build)} {result}: {build['state_string']}")

    def _step_started(self, event: Event) -> None:
        self._tell(event, f"{self._of_step(event.message)} begins")

    def _step_finished(self, event: Event) -> None:
        step = event.message
        self._tell(
            event, f"{self._of_step(step)} {RESULTS[step['results']]}: {step['state_string']}"
        )

    def _name(self, build: Mapping[str, Any]) -> str:
        builder = self._builders.get(build["builderid"], f"builder {build['builderid']}")
        return f"{builder} #{build['number']}"

    def _of_step(self, step: Mapping[str, Any]) -> str:
        build = self._builds.get(step["buildid"], f"build {step['buildid']}")
        return f"{build}, step {step['number']} {step['name']}"

    def _tell(self, event: Event, what: str) -> None:
        clock = time.strftime("%H:%M:%S", time.localtime(event.at))
        # Names and comments are other people's: no control character of theirs reaches a terminal.
        self._say(clock + "  " + "".join(c if c.isprintable() else "?" for c in what))


def invitation(url: str, builderid: int, scheduler: str | None) -> str:
    """
    Return where to look and what to type.

    url: of the server, with a slash at its end.  builderid, scheduler: what can be forced.
    """
    api = f"{url}api/v2"
    tips = [
        ("list the builders", f"curl '{api}/builders?field=builderid&field=name'"),
        ("see the newest builds", f"curl '{api}/builds?order=-buildid&limit=3'"),
        ("read a log, here of build 1", f"curl {api}/builds/1/steps/0/logs/stdio/raw_inline"),
        ("follow it as it grows", f"{sys.executable} {FOLLOW} {url} builds/1/steps/0/logs/stdio"),
        ("stop a build", _call(f"{api}/builds/1", "stop", '{"reason":"enough"}')),
    ]
    if scheduler is not None:
        force = _call(f"{api}/forceschedulers/{scheduler}", "force", f'{{"builderid":{builderid}}}')
        tips.insert(1, ("ask for a build", force))
    shown = "\n".join(f"  # {what}\n  {command}" for what, command in tips)
    return f"{url} is up, and so is its API at {api}\n{shown}\n"


def _call(url: str, method: str, params: str) -> str:
    body = f'{{"jsonrpc":"2.0","id":1,"method":"{method}","params":{params}}}'
    return f"curl -H 'Content-Type: application/json' -d '{body}' {url}"
