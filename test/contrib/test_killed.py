"""The master as a program of its own: signals, kills, addresses that are taken."""

from __future__ import annotations

import os
import random
import re
import signal
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
import pytest_twisted
import treq
from twisted.internet.defer import Deferred
from twisted.internet.protocol import ProcessProtocol
from twisted.internet.task import deferLater
from twisted.python.failure import Failure

from contrib.localmaster.process import Reactor

ROOT = Path(__file__).parents[2]

CONFIG = """
[[builder]]
name = "patient"

  [[builder.step]]
  name = "wait"
  command = "echo $$ > ../../pid; echo waiting; until [ -e ../../go ]; do sleep 0.02; done"

[[builder]]
name = "quick"
workers = 2

  [[builder.step]]
  name = "one"
  command = "echo one; sleep 0.1; echo two"

  [[builder.step]]
  name = "two"
  command = "echo three"

[[forcescheduler]]
name = "force"
builder_names = ["patient", "quick"]
"""


class Program(ProcessProtocol):
    """The running program: what it prints, and how it ends."""

    def __init__(self) -> None:
        self.printed = ""
        self.ended: Deferred[int] = Deferred()
        self._waiting: list[tuple[str, Deferred[None]]] = []

    def until(self, pattern: str) -> Deferred[None]:
        """Fire when what was printed matches; fail if the program ends before."""
        found: Deferred[None] = Deferred()
        self._waiting.append((pattern, found))
        self._look()
        return found

    def kill(self, number: int) -> None:
        """Send a signal."""
        assert self.transport is not None
        self.transport.signalProcess(number)

    @property
    def api(self) -> str:
        """Where its API is."""
        found = re.search(r"(http://127.0.0.1:\d+/api/v2)\n", self.printed)
        assert found is not None, self.printed
        return found[1]

    def childDataReceived(self, _childFD: int, data: bytes) -> None:
        """Take what it prints, on either output."""
        self.printed += data.decode()
        self._look()

    def processEnded(self, reason: Failure) -> None:
        """Tell how it ended: with an exit code, or minus a signal."""
        for pattern, waiting in self._waiting:
            waiting.errback(AssertionError(f"{pattern!r} never came: {self.printed}"))
        end: Any = reason.value
        self.ended.callback(-end.signal if end.signal else end.exitCode)

    def _look(self) -> None:
        found = [one for one in self._waiting if re.search(one[0], self.printed)]
        for one in found:
            self._waiting.remove(one)
            one[1].callback(None)


Start = Callable[..., Program]


@pytest_twisted.async_yield_fixture
async def start(reactor: Reactor, tmp_path: Path) -> AsyncIterator[Start]:
    """Start the program, by default always on the same directory; at the end all are killed."""
    started: list[Program] = []
    (tmp_path / "master.toml").write_text(CONFIG)

    def start(port: int = 0, directory: Path = tmp_path) -> Program:
        program = Program()
        arguments = [sys.executable, str(ROOT / "contrib" / "localmaster")]
        arguments += [str(tmp_path / "master.toml"), "--directory", str(directory)]
        arguments += ["--port", str(port)]
        env = os.environ | {"PYTHONPATH": str(ROOT)}
        reactor.spawnProcess(program, sys.executable, arguments, env)
        started.append(program)
        return program

    yield start
    for program in started:
        if not program.ended.called:
            program.kill(signal.SIGKILL)
            await program.ended


@pytest.fixture(params=[signal.SIGINT, signal.SIGTERM])
def ending(request: pytest.FixtureRequest) -> int:
    """Each of the signals that ask for a clean end."""
    return int(request.param)


async def rows(program: Program, path: str) -> list[dict[str, Any]]:
    """GET a list."""
    response = await treq.get(f"{program.api}/{path}", persistent=False)
    answer = await treq.json_content(response)
    del answer["meta"]
    (found,) = answer.values()
    return list(found)


async def force(program: Program, builderid: int) -> int:
    """Ask for a build; return the id of the request."""
    call = {"jsonrpc": "2.0", "id": 1, "method": "force", "params": {"builderid": builderid}}
    url = f"{program.api}/forceschedulers/force"
    response = await treq.post(url, json=call, persistent=False)
    _, brids = (await treq.json_content(response))["result"]
    return int(brids[str(builderid)])


async def until_stored(reactor: Reactor, program: Program, line: str) -> None:
    """Wait until the first log has a line, as everybody else can read it."""
    while True:
        logs = await rows(program, "builds/1/steps/0/logs")
        if logs and logs[0]["num_lines"]:
            (contents,) = await rows(program, "logs/1/contents")
            if line in contents["content"]:
                return
        await deferLater(reactor, 0.02)


@pytest_twisted.ensureDeferred
async def test_a_killed_master_goes_on_where_it_was(
    reactor: Reactor, start: Start, tmp_path: Path, until_gone: Callable[[int], Awaitable[None]]
) -> None:
    """After kill -9 what was stored is there, the build ends as RETRY and is built again, once."""
    killed = start()
    await killed.until("is up")
    brid = await force(killed, 1)
    await until_stored(reactor, killed, "owaiting\n")
    command = int((tmp_path / "pid").read_text())
    killed.kill(signal.SIGKILL)
    assert await killed.ended == -signal.SIGKILL
    (tmp_path / "go").touch()
    again = start()
    await again.until("#2 SUCCESS")

    await until_gone(command)
    builds = await rows(again, "builds?order=buildid")
    assert [(b["buildrequestid"], b["results"]) for b in builds] == [(brid, 5), (brid, 0)]
    (step,) = await rows(again, "builds/1/steps")
    assert (step["complete"], step["results"]) == (True, 5)
    (log,) = await rows(again, "builds/1/steps/0/logs")
    assert log["complete"]
    (contents,) = await rows(again, "logs/1/contents")
    assert contents["content"].endswith("owaiting\n")
    (request,) = await rows(again, f"buildrequests/{brid}")
    assert (request["complete"], request["results"]) == (True, 0)


@pytest_twisted.ensureDeferred
async def test_killed_at_any_moment_nothing_is_lost_or_built_twice(
    reactor: Reactor, start: Start
) -> None:
    """Every request ends with exactly one build that counts; all others of it are RETRY."""
    program = start()
    await program.until("is up")
    brids = [await force(program, 2) for _ in range(6)]
    for _ in range(3):
        await deferLater(reactor, random.uniform(0, 0.3))
        program.kill(signal.SIGKILL)
        await program.ended
        program = start()
        await program.until("is up")
    while len(await rows(program, "buildrequests?complete=false")):
        await deferLater(reactor, 0.05)

    builds = await rows(program, "builds?order=buildid")
    assert {b["results"] for b in builds} <= {0, 5}
    assert sorted(b["buildrequestid"] for b in builds if b["results"] == 0) == brids
    assert [b["number"] for b in builds] == list(range(1, len(builds) + 1))
    assert {r["results"] for r in await rows(program, "buildrequests")} == {0}
    for build in builds:
        steps = await rows(program, f"builds/{build['buildid']}/steps")
        assert all(step["complete"] for step in steps)


@pytest_twisted.ensureDeferred
async def test_a_signal_ends_it_cleanly(start: Start, ending: int) -> None:
    """Ctrl-C and SIGTERM, once or more, give back what is running; the exit status is 0."""
    program = start()
    await program.until("is up")
    await force(program, 1)
    await program.until("step 0 wait begins")
    program.kill(ending)
    await program.until("stopping")
    program.kill(ending)

    assert await program.ended == 0
    assert "patient #1 RETRY: interrupted: the master was stopped" in program.printed
    assert "Traceback" not in program.printed


@pytest_twisted.ensureDeferred
async def test_a_taken_port_is_one_sentence(start: Start, tmp_path: Path) -> None:
    """What keeps it from starting is said once, without a traceback."""
    first = start()
    await first.until("is up")
    port = int(first.api.split(":")[2].split("/")[0])
    second = start(port, tmp_path / "elsewhere")

    assert await second.ended == 1
    assert second.printed.count("\n") == 1
    assert f"{port}" in second.printed
