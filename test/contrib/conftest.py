"""What the tests of contrib share."""

import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import cast

import pytest
from twisted.internet import reactor as twisted_reactor
from twisted.internet.task import deferLater

# contrib isn't installed; it is imported from the top of the repository.
sys.path.append(str(Path(__file__).parents[2]))

from contrib.localmaster.process import Reactor


@pytest.fixture
def reactor() -> Reactor:
    """The one real reactor, under the name of what is wanted of it."""
    return cast("Reactor", twisted_reactor)


@pytest.fixture
def until_gone(reactor: Reactor) -> Callable[[int], Awaitable[None]]:
    """Wait until the kernel is done with a process; fail if it goes on living."""

    async def until_gone(pid: int) -> None:
        deadline = reactor.seconds() + 10
        while not _gone(pid):
            assert reactor.seconds() < deadline, f"process {pid} lives on"
            await deferLater(reactor, 0.01)

    return until_gone


def _gone(pid: int) -> bool:
    """Tell whether there is no such process, or only its remains."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return True
    return state == "Z"
