"""Commands as real processes."""

import os
import signal
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest_twisted
from twisted.internet.defer import Deferred
from twisted.internet.error import ProcessDone
from twisted.internet.protocol import ProcessProtocol
from twisted.internet.task import deferLater
from twisted.python.failure import Failure

from contrib.localmaster.process import LEASH, Command, Reactor

ENV = dict(os.environ)

UntilGone = Callable[[int], Awaitable[None]]

# A command that tidies up when it is asked to end.
TIDY = """
import signal, sys

def tidy(*_):
    print("tidied")
    sys.exit(5)

signal.signal(signal.SIGTERM, tidy)
print("ready", flush=True)
signal.pause()
"""


class Output:
    """Collects a command's lines; ``awaited`` fires when a certain text has come."""

    def __init__(self, wanted: str = "") -> None:
        self.text = ""
        self.awaited: Deferred[None] = Deferred()
        self._wanted = wanted

    def write(self, text: str) -> None:
        """Take some lines."""
        self.text += text
        if self._wanted and self._wanted in self.text:
            self._wanted = ""
            self.awaited.callback(None)


def start(reactor: Reactor, script: str, output: Output, directory: Path) -> Command:
    """Start a shell script."""
    command = Command(reactor, output.write)
    command.start(["/bin/sh", "-c", script], ENV, directory)
    return command


@pytest_twisted.ensureDeferred
async def test_both_outputs_are_marked_and_the_exit_code_told(
    reactor: Reactor, tmp_path: Path
) -> None:
    """Each stream's lines have its character; the last line needs no newline."""
    output = Output()
    code = await start(
        reactor, "echo out; echo err >&2; printf last; exit 3", output, tmp_path
    ).ended

    assert code == 3
    assert sorted(output.text.splitlines()) == ["eerr", "olast", "oout"]


@pytest_twisted.ensureDeferred
async def test_a_command_runs_where_and_as_it_is_told(reactor: Reactor, tmp_path: Path) -> None:
    """Directory, environment and arguments arrive; standard input is empty."""
    output = Output()
    command = Command(reactor, output.write)
    script = (
        "import os, sys; print(os.getcwd(), os.environ['COLOUR'], sys.argv[1:], sys.stdin.read())"
    )
    command.start([sys.executable, "-c", script, "a b", "*"], ENV | {"COLOUR": "blue"}, tmp_path)

    assert await command.ended == 0
    assert output.text == f"o{tmp_path} blue ['a b', '*'] \n"


@pytest_twisted.ensureDeferred
async def test_a_command_that_is_not_there_says_so(reactor: Reactor, tmp_path: Path) -> None:
    """It ends as in a shell, with a sentence on standard error."""
    output = Output()
    command = Command(reactor, output.write)
    command.start(["no-such-command"], ENV, tmp_path)

    assert await command.ended == 127
    assert (
        output.text == f"ecannot run 'no-such-command' in '{tmp_path}': No such file or directory\n"
    )


@pytest_twisted.ensureDeferred
async def test_a_pipe_whose_reader_leaves_ends_the_writer(reactor: Reactor, tmp_path: Path) -> None:
    """SIGPIPE means to a command what it means in a shell."""
    output = Output()
    code = await start(reactor, "yes | head -n 1", output, tmp_path).ended

    assert (code, output.text) == (0, "oy\n")


@pytest_twisted.ensureDeferred
async def test_stop_ends_the_command_and_its_children(
    reactor: Reactor, tmp_path: Path, until_gone: UntilGone
) -> None:
    """SIGTERM reaches the whole process group."""
    output = Output(wanted="\n")
    command = start(reactor, "sleep 600 & echo $!; wait", output, tmp_path)
    await output.awaited
    command.stop(grace_s=60)

    assert await command.ended == -signal.SIGTERM
    await until_gone(int(output.text[1:]))


@pytest_twisted.ensureDeferred
async def test_a_command_that_will_not_stop_is_killed(reactor: Reactor, tmp_path: Path) -> None:
    """After the grace period comes SIGKILL."""
    output = Output(wanted="ready")
    command = start(
        reactor, "trap '' TERM; echo ready; while :; do sleep 600; done", output, tmp_path
    )
    await output.awaited
    command.stop(grace_s=0.05)

    assert await command.ended == -signal.SIGKILL


@pytest_twisted.ensureDeferred
async def test_a_command_may_clean_up_within_the_grace_period(
    reactor: Reactor, tmp_path: Path
) -> None:
    """What it writes after SIGTERM is still taken, and its own exit code counts."""
    output = Output(wanted="ready")
    command = Command(reactor, output.write)
    command.start([sys.executable, "-c", TIDY], ENV, tmp_path)
    await output.awaited
    command.stop(grace_s=60)

    assert await command.ended == 5
    assert output.text == "oready\notidied\n"


@pytest_twisted.ensureDeferred
async def test_stop_reaches_a_command_that_has_only_just_been_started(
    reactor: Reactor, tmp_path: Path
) -> None:
    """There is no moment at which a stop is lost."""
    output = Output()
    command = start(reactor, "echo started; sleep 600", output, tmp_path)
    command.stop(grace_s=60)

    assert await command.ended in {-signal.SIGTERM, -signal.SIGKILL}
    assert output.text == ""


@pytest_twisted.ensureDeferred
async def test_what_a_command_leaves_behind_is_killed(
    reactor: Reactor, tmp_path: Path, until_gone: UntilGone
) -> None:
    """A child in the background can't hold up the build, though it keeps the output open."""
    output = Output()
    code = await start(reactor, "sleep 600 & echo $!", output, tmp_path).ended

    assert code == 0
    await until_gone(int(output.text[1:]))


@pytest_twisted.ensureDeferred
async def test_a_paused_command_waits_and_loses_nothing(reactor: Reactor, tmp_path: Path) -> None:
    """With its pipes full a command stands still; afterwards every line is there."""
    output = Output(wanted="o1\n")
    command = start(reactor, "seq 100000", output, tmp_path)
    await output.awaited
    command.pauseProducing()
    before = output.text
    await deferLater(reactor, 0.05)

    assert output.text == before
    command.resumeProducing()
    assert await command.ended == 0
    assert output.text == "".join(f"o{n}\n" for n in range(1, 100001))


class Orphan(ProcessProtocol):
    """A command on its leash, whose pipe the test can drop as a killed master would."""

    def __init__(self) -> None:
        self.ready: Deferred[None] = Deferred()
        self.exited: Deferred[int | None] = Deferred()

    def outReceived(self, _data: bytes) -> None:
        """Tell that the command is running."""
        self.ready.callback(None)

    def processEnded(self, reason: Failure) -> None:
        """Tell which signal ended it."""
        end = reason.value
        self.exited.callback(None if isinstance(end, ProcessDone) else getattr(end, "signal", None))


@pytest_twisted.ensureDeferred
async def test_a_command_does_not_outlive_its_master(reactor: Reactor, tmp_path: Path) -> None:
    """The end of the lifeline, also by kill -9 of the master, is the end of the command."""
    orphan = Orphan()
    script = "trap '' TERM INT; echo ready; sleep 600"
    arguments = [*LEASH, str(tmp_path), "/bin/sh", "-c", script]
    reactor.spawnProcess(orphan, LEASH[0], arguments, ENV)
    await orphan.ready
    assert orphan.transport is not None
    orphan.transport.closeStdin()

    assert await orphan.exited == signal.SIGKILL
