"""
Start a command on a leash: nothing of it outlives the master.

Run as a program of its own, ``python leash.py DIRECTORY COMMAND ARGUMENT...``, with a pipe as its
standard input whose other end only the master holds.  The command gets a session and process group
of its own, so that one signal reaches all its children.  A second process of that group waits for
the end of the pipe.  When it comes, because the command has ended or because the master was killed,
it kills the group.

The directory is changed here: Twisted starts a process in another directory by fork, and a process
with threads had better not fork.
"""

from __future__ import annotations

import os
import signal
import sys

CANNOT_RUN, NOT_FOUND = 126, 127  # as a shell says it


def watch(lifeline: int) -> None:
    """Wait for the end of the pipe, then kill the process group, this process included."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    nothing = os.open(os.devnull, os.O_RDWR)
    os.dup2(nothing, 1)
    os.dup2(nothing, 2)
    while os.read(lifeline, 1):
        pass
    os.killpg(0, signal.SIGKILL)


def run(directory: str, command: list[str]) -> int:
    """Become ``command``; return an exit code only if that can't be done."""
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    # Python ignores this one, and a command would inherit that.
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)
    try:
        os.chdir(directory)
        os.execvp(command[0], command)  # noqa: S606 -- running what it is told to is its purpose
    except OSError as error:
        sys.stderr.write(f"cannot run {command[0]!r} in {directory!r}: {error.strerror}\n")
        return NOT_FOUND if isinstance(error, FileNotFoundError) else CANNOT_RUN


def main(directory: str, *command: str) -> int:
    """Fork the watcher and become the command."""
    os.setsid()
    lifeline = os.dup(0)
    os.set_inheritable(lifeline, False)
    if os.fork() == 0:
        watch(lifeline)
    return run(directory, [*command])


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
