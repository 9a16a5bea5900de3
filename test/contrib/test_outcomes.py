"""What becomes of a step, a build, a line on the terminal (pure)."""

from __future__ import annotations

import doctest
import json
from types import ModuleType

import pytest

from buildapi.data.results import FAILURE, SUCCESS, WARNINGS
from buildapi.mq.bus import Bus
from buildapi.mq.event import Event
from contrib.localmaster import lines, properties
from contrib.localmaster.builds import summary
from contrib.localmaster.config import Step
from contrib.localmaster.console import Narrator, invitation
from contrib.localmaster.steps import Outcome, outcome


@pytest.mark.parametrize("module", [lines, properties])
def test_the_examples_are_right(module: ModuleType) -> None:
    """What the docstrings show is what comes out."""
    results = doctest.testmod(module)

    assert results.attempted > 0
    assert results.failed == 0


@pytest.mark.parametrize(
    ("code", "warnings", "expected"),
    [
        (0, 0, Outcome(SUCCESS, "done")),
        (0, 1, Outcome(WARNINGS, "1 warning", 1)),
        (0, 2, Outcome(WARNINGS, "2 warnings", 2)),
        (3, 2, Outcome(FAILURE, "failed with exit code 3", 2)),
        (-9, 0, Outcome(FAILURE, "killed by SIGKILL")),
    ],
)
def test_the_end_of_a_command_says_how_its_step_ended(
    code: int, warnings: int, expected: Outcome
) -> None:
    """A failure counts more than warnings, and a signal that nobody here sent is a failure."""
    assert outcome(code, warnings) == expected


def a_step(name: str) -> Step:
    """Make a step."""
    return Step(name=name, command=("true",))


def test_a_build_is_as_good_as_its_worst_step() -> None:
    """The state string names the steps to blame, and no others."""
    ends = [
        (a_step("lint"), Outcome(WARNINGS, "1 warning", 1)),
        (a_step("test"), Outcome(FAILURE, "failed with exit code 1")),
        (a_step("tidy"), Outcome(SUCCESS, "done")),
    ]

    assert summary(ends) == Outcome(FAILURE, "test: failed with exit code 1")
    assert summary(ends[:1]) == Outcome(WARNINGS, "lint: 1 warning")
    assert summary(ends[2:]) == Outcome(SUCCESS, "build successful")


def an_event(topic: str, **body: object) -> Event:
    """Make an event."""
    return Event(seq=1, topic=topic, at=0.0, keys=(), body=json.dumps(body).encode())


def test_the_terminal_tells_of_a_build_line_by_line() -> None:
    """Each line says of which build it is, by the names that people know."""
    said: list[str] = []
    bus = Bus()
    Narrator({2: "docs"}, said.append).listen(bus)
    build = {"buildid": 7, "builderid": 2, "number": 3, "buildrequestid": 9}
    step = {"buildid": 7, "number": 0, "name": "html"}
    bus.publish(
        [
            an_event("build.7.new", **build),
            an_event("build.7.step.0.started", **step),
            an_event("build.7.step.0.log.1.append"),
            an_event("build.7.step.0.finished", **step, results=1, state_string="2 warnings"),
            an_event("build.7.finished", **build, results=6, state_string="stopped: enough"),
        ]
    )

    assert [line.partition("  ")[2] for line in said] == [
        "docs #3 begins as build 7, for request 9",
        "docs #3, step 0 html begins",
        "docs #3, step 0 html WARNINGS: 2 warnings",
        "docs #3 CANCELLED: stopped: enough",
    ]


def test_other_peoples_text_cannot_move_the_cursor() -> None:
    """A commit message's control characters don't reach the terminal."""
    said: list[str] = []
    bus = Bus()
    Narrator({}, said.append).listen(bus)
    bus.publish([an_event("change.1.new", revision="08f0dd", comments="red \x1b[31m\nmore")])

    assert said[0].endswith("change 08f0dd: red ?[31m")


def test_the_invitation_can_be_pasted() -> None:
    """Every command is whole, and its JSON is JSON."""
    text = invitation("http://127.0.0.1:8010/", 4, "force")
    bodies = [json.loads(line.split("'")[3]) for line in text.splitlines() if "-d '" in line]

    assert [(b["method"], b["params"]) for b in bodies] == [
        ("force", {"builderid": 4}),
        ("stop", {"reason": "enough"}),
    ]
    assert "http://127.0.0.1:8010/api/v2/forceschedulers/force" in text
    assert "force" not in invitation("http://127.0.0.1:8010/", 4, None)
