"""
Control: what somebody asks of a build master, beyond reading.

What is only a change of data (a rebuild, a forced build, a request that nobody builds yet) is done
here, in one transaction. What a master must do reaches it as a control message on the bus; without
a master that listens, the call is refused.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import orjson
from twisted.internet.defer import Deferred

from buildapi.data.api import ROUTER, DataAPI
from buildapi.data.buildrequests import BuildRequest
from buildapi.data.builds import Build
from buildapi.data.forcefields import SOURCE, validate
from buildapi.data.forceschedulers import ForceSchedulers
from buildapi.data.gate import Action, Identity, Scope
from buildapi.data.requesting import state_of
from buildapi.data.router import Match
from buildapi.data.schedulers import Scheduler
from buildapi.data.values import boolean
from buildapi.db.eventlog import Draft
from buildapi.db.transaction import Tx
from buildapi.errors import (
    BadArgument,
    Conflict,
    Forbidden,
    NoSuchAction,
    NoSuchResource,
    Unavailable,
)
from buildapi.mq.bus import Bus
from buildapi.mq.event import Event
from buildapi.mq.listener import Listener

NO_REASON = "no reason"
Params = Mapping[str, Any]


class Control:
    """Carries out control calls on a data API."""

    def __init__(self, data: DataAPI, bus: Bus) -> None:
        self._data = data
        self._bus = bus
        self._masters: list[Listener] = []
        self._handlers: dict[tuple[Any, str], Callable[[Match, Params, Identity], Any]] = {
            (Build, "stop"): self._stop,
            (Build, "rebuild"): self._rebuild,
            (BuildRequest, "cancel"): self._cancel,
            (Scheduler, "enable"): self._enable,
            (ForceSchedulers, "force"): self._force,
        }

    def obey(self, callback: Callable[[Event], None]) -> Listener:
        """
        Get the control messages (``control.#``); what needs a master is accepted while somebody
        does.

        callback: called on the reactor thread; the message is ``{"reason": text}``.
        """
        listener = self._bus.listen(["control.#"], callback)
        self._masters.append(listener)
        return listener

    def call(self, path: str, action: str, params: Params, identity: Identity) -> Deferred[Any]:
        """
        Do ``action`` on the object at ``path``; fire with its result, as JSON-RPC tells it.

        Fails with NoSuchPath, Forbidden, NoSuchAction, NoSuchResource, BadArgument or FieldErrors,
        Unavailable where no master listens.
        """
        return Deferred.fromCoroutine(self._called(path, action, params, identity))

    async def _called(self, path: str, action: str, params: Params, identity: Identity) -> Any:
        match = ROUTER.find(path)
        resource = match.route.resource
        self._check(identity, Scope(resource.plural))
        # Buildbot's builds take the names of methods in any case.
        word = action.lower() if resource is Build else action
        handler = self._handlers.get((resource, word)) if match.route.kind == "one" else None
        if handler is None:
            raise NoSuchAction(f"action: {action} is not supported here")
        return await handler(match, params, identity)

    def _check(self, identity: Identity, scope: Scope) -> None:
        refusal = self._data.gate.refusal(identity, Action.CONTROL, scope)
        if refusal is not None:
            raise Forbidden(refusal)

    async def _object(self, match: Match, identity: Identity) -> dict[str, Any]:
        """Read what is to be controlled; Forbidden if the identity may not control this one."""
        elements = match.route.pattern.split("/")
        path = [str(match.bound[e.partition(":")[2]]) if ":" in e else e for e in elements]
        found: dict[str, Any] = await self._data.get(path, identity=identity)
        builderid = found.get("builderid")
        owners = await self._data.get("builders", filters={"builderid": builderid or []})
        for owner in owners:
            self._check(identity, Scope(match.route.resource.plural, builderid, owner["projectid"]))
        return found

    async def _stop(self, match: Match, params: Params, identity: Identity) -> None:
        build = await self._object(match, identity)
        reason = _reason(params)
        if not build["complete"]:
            await self._tell(
                "build", "builds", build["buildid"], "stop", reason, build["builderid"]
            )

    async def _rebuild(self, match: Match, params: Params, identity: Identity) -> list[Any]:  # noqa: ARG002  one signature for all
        build = await self._object(match, identity)
        request = await self._data.get(("buildrequests", build["buildrequestid"]))
        bsid, brids = await self._data.updates.rebuildBuildrequest(request)
        return [bsid, {str(builderid): brid for builderid, brid in brids.items()}]

    async def _cancel(self, match: Match, params: Params, identity: Identity) -> None:
        request = await self._object(match, identity)
        brid, reason = request["buildrequestid"], _reason(params)
        if await self._data.transaction(lambda tx: self._cancelled(tx, brid)):
            return
        await self._tell(
            "buildrequest", "buildrequests", brid, "cancel", reason, request["builderid"]
        )

    def _cancelled(self, tx: Tx, brid: int) -> bool:
        """Cancel a request that nobody has claimed; say whether nothing is left to do."""
        updates = self._data.updates
        state = state_of(tx, brid)
        if state.complete:
            return True
        return state.claimed_by is None and updates.cancelBuildRequest.within(tx, brid)

    async def _enable(self, match: Match, params: Params, identity: Identity) -> None:
        scheduler = await self._object(match, identity)
        if "enabled" not in params:
            raise BadArgument("enabled: true or false is wanted")
        enabled = params["enabled"]
        if not isinstance(enabled, bool):
            try:
                enabled = boolean(str(enabled))
            except ValueError:
                raise BadArgument("enabled: true or false is wanted") from None
        await self._data.updates.schedulerEnable(scheduler["schedulerid"], enabled)

    async def _force(self, match: Match, params: Params, identity: Identity) -> list[Any]:
        name = str(match.bound["schedulername"])
        scheduler = self._data.forceschedulers.get(name)
        if scheduler is None:
            raise NoSuchResource(f"there is no force scheduler {name}")
        wanted = validate(scheduler, params, owner=identity.name)
        found = await self._data.get(
            "builders",
            filters={"name": list(scheduler.builder_names)},
            fields=["builderid", "name", "projectid"],
            identity=identity,
        )
        builderids = [row["builderid"] for row in found]
        if wanted.builderid is not None:
            if wanted.builderid not in builderids:
                raise BadArgument(f"builderid: {name} cannot force builder {wanted.builderid}")
            found = [row for row in found if row["builderid"] == wanted.builderid]
            builderids = [wanted.builderid]
        if not builderids:
            raise Conflict(f"none of the builders of {name} exists yet")
        for row in found:
            scope = Scope(ForceSchedulers.plural, row["builderid"], row["projectid"])
            self._check(identity, scope)
        properties = {key: (value, SOURCE) for key, value in wanted.properties.items()}
        bsid, brids = await self._data.updates.addBuildset(
            scheduler=name,
            sourcestamps=list(wanted.sourcestamps),
            reason=wanted.buildset_reason,
            properties={**properties, "scheduler": (name, "Scheduler")},
            builderids=builderids,
            priority=wanted.priority,
        )
        return [bsid, {str(builderid): brid for builderid, brid in brids.items()}]

    async def _tell(  # the words of one message
        self, word: str, plural: str, ident: int, action: str, reason: str, builderid: int | None
    ) -> None:
        """Send a control message; Unavailable if no master would get it."""
        self._masters = [listener for listener in self._masters if not listener.closed]
        if not self._masters:
            raise Unavailable(f"no build master listens here, and {action} needs one")
        draft = Draft(
            f"control.{word}.{ident}.{action}",
            (f"control/{plural}/{ident}/{action}",),
            orjson.dumps({"reason": reason}),
            builderid,
        )
        await self._data.transaction(lambda tx: tx.say(draft))


def _reason(params: Params) -> str:
    reason = params.get("reason", NO_REASON)
    if not isinstance(reason, str):
        raise BadArgument("reason: a text is wanted")
    return reason
