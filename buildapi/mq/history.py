"""
The event log as streams need it: what it has, what it had, and who has read how far.

A position means "I have everything up to and including this ``seq``".
"""

from __future__ import annotations

from typing import NamedTuple, Protocol

from twisted.internet.defer import Deferred

from buildapi.errors import Gone
from buildapi.mq.event import Event

# How many stored events are read at a time.
PORTION = 1_000


class Replay(NamedTuple):
    """
    Events to be told again.

    begin: the first position that the log had of those asked for, expired ones included; None if it
    had none.  position: where to go on.
    """

    events: list[Event]
    begin: int | None
    position: int


class Extent(NamedTuple):
    """What the log has now.  log: its identity.  oldest: the first event that is kept."""

    log: str
    oldest: int
    newest: int


class History(Protocol):
    """The event log, as streams need it."""

    def extent(self) -> Deferred[Extent]:
        """Say what the log has."""

    def replayed(self, after: int, most: int) -> Deferred[Replay]:
        """Read at most ``most`` events after a position."""

    def consumed(self, consumer: str) -> Deferred[int | None]:
        """Read the position of a named consumer; None if it has none."""

    def consume(self, consumer: str, seq: int) -> Deferred[None]:
        """Store the position of a named consumer; it never moves back."""


def replaced(since: int, extent: Extent) -> Gone:
    """Return what becomes of a position whose log was replaced while somebody listened."""
    return Gone(
        f"position {since} is of an event log that was replaced; this one is {extent.log}: read"
        " what is now, and go on from its X-Seq",
        *extent,
    )


def checked(since: int, extent: Extent, log: str | None = None) -> None:
    """Raise Gone for a position of another log, or one that this log has not reached."""
    if log is not None and log != extent.log:
        raise Gone(f"position {since} is of the event log {log}; this one is {extent.log}", *extent)
    if since > extent.newest:
        raise Gone(
            f"position {since} is of another event log: this one has reached {extent.newest}",
            *extent,
        )
