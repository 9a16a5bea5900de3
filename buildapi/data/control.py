"""
Control: what somebody asks of a build master, beyond reading.

Each call is one transaction (see ``deeds``).  What a master must do reaches it as a control message
on the bus; without a master that listens, the call is refused.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from twisted.internet.defer import Deferred

from buildapi.data.api import ROUTER, DataAPI
from buildapi.data.deeds import Call, Deeds, Params
from buildapi.data.forcefields import ForceScheduler
from buildapi.data.gate import Identity, Scope
from buildapi.data.obedience import EVERYTHING, Obedience
from buildapi.mq.bus import Bus
from buildapi.mq.event import Event
from buildapi.mq.listener import Listener


class Control:
    """
    Carries out control calls on a data API.

    A master says what it obeys, and which forms it has:

        api.control.offer([ForceScheduler(name="force", builder_names=("tests",))])
        api.control.obey(stop_build, "control.build.*.stop")
    """

    def __init__(self, data: DataAPI, bus: Bus) -> None:
        self._data = data
        self._masters = Obedience(bus)
        self._deeds = Deeds(data, self._masters)

    def obey(self, callback: Callable[[Event], object], pattern: str = EVERYTHING) -> Listener:
        """
        Get the control messages that match ``pattern``, by default all; what needs a master is
        accepted while somebody obeys it.  Close the listener to obey no more.

        callback: called on the reactor thread with an event such as ``control.build.10.stop``,
        whose message is ``{"reason": text}``; it may be ``async``.
        Raises BadQuery for a bad pattern, BadArgument for one of more than control messages.
        """
        return self._masters.obey(callback, pattern)

    def offer(self, forceschedulers: Iterable[ForceScheduler]) -> None:
        """Let these be the force schedulers from now on: those that were there before are gone."""
        self._data.forceschedulers = {scheduler.name: scheduler for scheduler in forceschedulers}

    def call(self, path: str, action: str, params: Params, identity: Identity) -> Deferred[Any]:
        """
        Do ``action`` on the object at ``path``; fire with its result, as JSON-RPC tells it.

        Fails with NoSuchPath, Forbidden, NoSuchAction, NoSuchResource, BadArgument or FieldErrors,
        Unavailable where no master obeys.
        """
        return Deferred.fromCoroutine(self._called(path, action, params, identity))

    async def _called(self, path: str, action: str, params: Params, identity: Identity) -> Any:
        match = ROUTER.find(path)
        self._deeds.check(identity, Scope(match.route.resource.plural))
        handler = self._deeds.handler(match, action)
        deed = await handler(Call(match, params, identity))
        return await self._data.transaction(deed)
