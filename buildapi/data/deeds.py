"""
What each control call does.

    builds          stop*  rebuild
    buildrequests   cancel*  set_priority
    forceschedulers force
    schedulers      enable
    workers         stop  pause  unpause  kill*

What is only a change of data is done whether a master listens or not.  Those with a star need one:
to stop a build that runs, to cancel a request that is claimed, to kill a worker; without a master
that obeys, they are refused.  A paused worker, or one that is to stop gracefully, is a flag in the
database; masters are told besides.

Each handler looks at the call on the reactor's thread, where it may wait and refuse, and returns a
*deed*: the body of the one transaction in which it is done.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import orjson

from buildapi.data.api import DataAPI
from buildapi.data.buildrequests import BuildRequest
from buildapi.data.builds import Build
from buildapi.data.forcefields import SOURCE, validate
from buildapi.data.forceschedulers import ForceSchedulers
from buildapi.data.gate import Action, Identity, Scope
from buildapi.data.obedience import Obedience
from buildapi.data.requesting import state_of
from buildapi.data.router import Match
from buildapi.data.schedulers import Scheduler
from buildapi.data.schema import Resource
from buildapi.data.values import boolean, is_text
from buildapi.data.workers import Worker
from buildapi.db.eventlog import Draft
from buildapi.db.transaction import Tx
from buildapi.errors import (
    BadArgument,
    Conflict,
    FieldErrors,
    Forbidden,
    NoSuchAction,
    NoSuchResource,
    Unavailable,
)
from buildapi.mq.event import CONTROL

NO_REASON = "no reason"
Params = Mapping[str, Any]
Deed = Callable[[Tx], Any]

# The word of a type in the slash keys of its messages, where it is not its plural.
_SLASH_WORDS: Mapping[type[Resource], str] = {Worker: "worker"}


@dataclass(frozen=True)
class Call:
    """What is asked for: of which object, with which parameters, by whom."""

    match: Match
    params: Params
    identity: Identity


@dataclass(frozen=True)
class Target:
    """An object that may be controlled.  scope: what the rights on it were decided by."""

    resource: type[Resource]
    row: Mapping[str, Any]
    scope: Scope

    @property
    def ident(self) -> int:
        """Its id."""
        found: int = self.row[self.resource.ident]
        return found


Handler = Callable[[Call], Awaitable[Deed]]


class Deeds:
    """Makes calls into deeds.  masters: who would hear of them."""

    def __init__(self, data: DataAPI, masters: Obedience) -> None:
        self._data = data
        self._updates = data.updates
        self._masters = masters
        self._handlers: Mapping[tuple[type[Resource], str], Handler] = {
            (Build, "stop"): self._stop,
            (Build, "rebuild"): self._rebuild,
            (BuildRequest, "cancel"): self._cancel,
            (BuildRequest, "set_priority"): self._set_priority,
            (ForceSchedulers, "force"): self._force,
            (Scheduler, "enable"): self._enable,
            (Worker, "stop"): self._stop_gracefully,
            (Worker, "pause"): self._pause,
            (Worker, "unpause"): self._unpause,
            (Worker, "kill"): self._kill,
        }

    def handler(self, match: Match, action: str) -> Handler:
        """Return what makes a call of ``action`` into a deed; NoSuchAction if nothing does."""
        resource = match.route.resource
        # Buildbot's builds take the names of methods in any case.
        word = action.lower() if resource is Build else action
        handler = self._handlers.get((resource, word)) if match.route.kind == "one" else None
        if handler is None:
            raise NoSuchAction(f"action: {action} is not supported here")
        return handler

    def check(self, identity: Identity, scope: Scope) -> None:
        """Raise Forbidden if the identity may not control what has this scope."""
        refusal = self._data.gate.refusal(identity, Action.CONTROL, scope)
        if refusal is not None:
            raise Forbidden(refusal)

    async def _target(self, call: Call) -> Target:
        """Read what is to be controlled; Forbidden if the identity may not control this one."""
        resource, bound = call.match.route.resource, call.match.bound
        elements = call.match.route.pattern.split("/")
        path = [str(bound[e.partition(":")[2]]) if ":" in e else e for e in elements]
        found = await self._data.get(path, identity=call.identity)
        scope = Scope(resource.plural)
        builderid = found.get("builderid")
        if builderid is not None:
            for owner in await self._data.get("builders", filters={"builderid": builderid}):
                scope = Scope(resource.plural, builderid, owner["projectid"])
        self.check(call.identity, scope)
        return Target(resource, found, scope)

    async def _stop(self, call: Call) -> Deed:
        build = await self._target(call)
        order = self._order(build, "stop", _reason(call.params))
        return _nothing if build.row["complete"] else order

    async def _rebuild(self, call: Call) -> Deed:
        build = await self._target(call)
        request = {"buildrequestid": build.row["buildrequestid"]}
        return lambda tx: _requested(self._updates.rebuildBuildrequest.within(tx, request))

    async def _cancel(self, call: Call) -> Deed:
        request = await self._target(call)
        order = self._order(request, "cancel", _reason(call.params))

        def deed(tx: Tx) -> None:
            state = state_of(tx, request.ident)
            if state.complete:
                return
            waits = state.claimed_by is None
            if not (waits and self._updates.cancelBuildRequest.within(tx, request.ident)):
                order(tx)

        return deed

    async def _set_priority(self, call: Call) -> Deed:
        request = await self._target(call)
        priority = call.params.get("priority")
        if not isinstance(priority, int) or isinstance(priority, bool):
            raise BadArgument("priority: an integer is wanted")
        if not -(2**31) <= priority < 2**31:
            raise BadArgument("priority: an integer of 32 bits is wanted")
        return lambda tx: self._updates.setBuildRequestPriority.within(tx, request.ident, priority)

    async def _enable(self, call: Call) -> Deed:
        scheduler = await self._target(call)
        enabled = call.params.get("enabled")
        if not isinstance(enabled, bool):
            try:
                enabled = boolean(str(enabled))
            except ValueError:
                raise BadArgument("enabled: true or false is wanted") from None
        return lambda tx: self._updates.schedulerEnable.within(tx, scheduler.ident, enabled)

    async def _pause(self, call: Call) -> Deed:
        worker = await self._target(call)
        reason = _reason(call.params)
        given = reason if "reason" in call.params else None
        message = _message(worker, "pause", reason)

        def deed(tx: Tx) -> None:
            self._updates.set_worker_paused.within(tx, worker.ident, True, given)
            tx.say(message)

        return deed

    async def _unpause(self, call: Call) -> Deed:
        worker = await self._target(call)
        message = _message(worker, "unpause", _reason(call.params))

        def deed(tx: Tx) -> None:
            self._updates.set_worker_paused.within(tx, worker.ident, False)
            tx.say(message)

        return deed

    async def _stop_gracefully(self, call: Call) -> Deed:
        worker = await self._target(call)
        message = _message(worker, "stop", _reason(call.params))

        def deed(tx: Tx) -> None:
            self._updates.set_worker_graceful.within(tx, worker.ident, True)
            tx.say(message)

        return deed

    async def _kill(self, call: Call) -> Deed:
        worker = await self._target(call)
        return self._order(worker, "kill", _reason(call.params))

    async def _force(self, call: Call) -> Deed:
        name = str(call.match.bound["schedulername"])
        scheduler = self._data.forceschedulers.get(name)
        if scheduler is None:
            raise NoSuchResource(f"there is no force scheduler {name}")
        found = await self._data.get(
            "builders",
            filters={"name": list(scheduler.builder_names)},
            fields=["builderid", "name", "projectid"],
            identity=call.identity,
        )
        # A builder that may not be seen is called unknown, however it is asked for.
        visible = replace(scheduler, builder_names=tuple(row["name"] for row in found))
        wanted = validate(visible, call.params, owner=call.identity.name)
        found = [row for row in found if row["name"] in wanted.builder_names]
        if wanted.builderid is not None:
            found = [row for row in found if row["builderid"] == wanted.builderid]
            if not found:
                raise FieldErrors({"builderid": f"{name} cannot force builder {wanted.builderid}."})
        if not found:
            raise Conflict(f"none of the builders of {name} exists yet")
        for row in found:
            scope = Scope(ForceSchedulers.plural, row["builderid"], row["projectid"])
            self.check(call.identity, scope)
        properties = {key: (value, SOURCE) for key, value in wanted.properties.items()}
        return lambda tx: _requested(
            self._updates.addBuildset.within(
                tx,
                scheduler=name,
                sourcestamps=list(wanted.sourcestamps),
                reason=wanted.buildset_reason,
                properties={**properties, "scheduler": (name, "Scheduler")},
                builderids=[row["builderid"] for row in found],
                priority=wanted.priority,
            )
        )

    def _order(self, target: Target, action: str, reason: str) -> Deed:
        """Return what tells a master to do it; refused if none would hear of it."""
        message = _message(target, action, reason)
        obeyed = self._masters.obeys(message.topic)

        def tell(tx: Tx) -> None:
            if not obeyed:
                raise Unavailable(f"no build master listens here, and {action} needs one")
            tx.say(message)

        return tell


def _message(target: Target, action: str, reason: str) -> Draft:
    resource, ident = target.resource, target.ident
    word = _SLASH_WORDS.get(resource, resource.plural)
    return Draft(
        f"{CONTROL}.{resource.singular}.{ident}.{action}",
        (f"{CONTROL}/{word}/{ident}/{action}",),
        orjson.dumps({"reason": reason}),
        target.scope.builderid,
        target.scope.projectid,
    )


def _reason(params: Params) -> str:
    reason = params.get("reason", NO_REASON)
    if not isinstance(reason, str) or not is_text(reason):
        raise BadArgument("reason: a text is wanted")
    return reason


def _requested(made: tuple[int, dict[int, int]]) -> list[Any]:
    """Return what has been asked for as JSON-RPC tells it."""
    bsid, brids = made
    return [bsid, {str(builderid): brid for builderid, brid in brids.items()}]


def _nothing(tx: Tx) -> None:
    """Do nothing: what was asked for is true already."""
