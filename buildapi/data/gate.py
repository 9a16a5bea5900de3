"""
The one place where rights are decided.

Every road (REST, JSON-RPC, WebSocket, raw logs, calls made in process for a client) asks here, per
resource and per event, with the identity of who asks. Pure: no I/O, no state.

Today's rules: reading is free; control and everything that changes state, reading the audit of
control calls and the figures of operators, is allowed where the server listens on loopback only.
An embedder changes them by a subclass, ``BuildAPI(settings, gate=MyGate)``.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from buildapi.mq.event import Event


class Action(Enum):
    """What somebody wants to do."""

    READ = "read"
    CONTROL = "control"
    AUDIT = "audit"
    METRICS = "reading metrics"


@dataclass(frozen=True)
class Identity:
    """
    Who asks.  name: as told to others, ``owner`` in control calls.  trusted: the master itself.
    """

    name: str = "anonymous"
    trusted: bool = False


ANONYMOUS = Identity()
MASTER = Identity("master", trusted=True)


@dataclass(frozen=True)
class Scope:
    """
    What something belongs to: a resource type or a kind of event, and its builder and project.
    """

    kind: str
    builderid: int | None = None
    projectid: int | None = None


@dataclass(frozen=True)
class Restriction:
    """What an identity must not see in lists: everything of these builders."""

    hidden_builderids: frozenset[int]


@dataclass(frozen=True)
class Gate:
    """The rules.  loopback_only: whether every address the server listens on is a loopback one."""

    loopback_only: bool = True

    def refusal(self, identity: Identity, action: Action, scope: Scope) -> str | None:
        """Return why this is not allowed, as a sentence; None if it is."""
        if action is Action.READ:
            hidden = self.restriction(identity)
            if hidden is not None and scope.builderid in hidden.hidden_builderids:
                return f"{identity.name} may not see builder {scope.builderid}"
            return None
        if self.loopback_only or identity.trusted:
            return None
        return (
            f"{action.value} is refused: this server listens on more than the loopback interface "
            "and can't know who you are; let it listen on 127.0.0.1 only"
        )

    def restriction(self, identity: Identity) -> Restriction | None:  # noqa: ARG002  later rules ask it
        """
        Return what ``identity`` must not see in lists and streams; None: everything is visible.
        """
        return None

    def sees(self, identity: Identity, event: Event) -> bool:
        """Say whether ``identity`` may be told of ``event``."""
        # Asked for every event and every client.
        if self.restriction(identity) is None:
            return True
        scope = Scope(event.topic.partition(".")[0], event.builderid, event.projectid)
        return self.refusal(identity, Action.READ, scope) is None
