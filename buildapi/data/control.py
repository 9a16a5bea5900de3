"""
Control: what somebody asks of a build master, beyond reading.

Each call is one transaction: its effect (see ``deeds``), what its Idempotency-Key stands for, and
its entry in the audit.  What a master must do reaches it as a control message on the bus; without a
master that listens, the call is refused.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

from twisted.internet.defer import Deferred
from twisted.logger import Logger

from buildapi.data import audit, idempotency
from buildapi.data.api import ROUTER, DataAPI
from buildapi.data.audit import Entry, Ration
from buildapi.data.deeds import Call, Deed, Deeds, Params
from buildapi.data.forcefields import ForceScheduler
from buildapi.data.gate import MASTER, Action, Identity, Scope
from buildapi.data.idempotency import HOUR_S, Ticket
from buildapi.data.obedience import EVERYTHING, Obedience
from buildapi.db.retention import DAY_S, trim
from buildapi.db.tables import buildapi_control_audit, buildapi_control_keys
from buildapi.db.transaction import Tx
from buildapi.errors import BadArgument, BadQuery, BuildAPIError, Conflict, Forbidden
from buildapi.mq.bus import Bus
from buildapi.mq.event import Event
from buildapi.mq.listener import Listener
from buildapi.settings import Control as Settings

_log = Logger()


@dataclass(frozen=True)
class Asked:
    """A control call as it comes.  key: its Idempotency-Key."""

    path: str
    action: str
    params: Params
    identity: Identity
    key: str | None

    def check(self) -> None:
        """Raise BadArgument if it is no call at all."""
        for name, text in (("path", self.path), ("action", self.action), ("key", self.key or "")):
            if not isinstance(text, str):
                raise BadArgument(f"{name}: a text is wanted")
        if not isinstance(self.params, Mapping):
            raise BadArgument("params: a mapping of names to values is wanted")

    def entry(self, characters: int) -> Entry:
        """Return its entry for the audit, with so many characters of long texts."""
        return Entry.of(self.identity.name, self.path, self.action, self.params, characters)

    def ticket(self, longest: int) -> Ticket | None:
        """Return what its key means, if it has one; BadArgument if that is empty or too long."""
        if self.key is None:
            return None
        return idempotency.ticket(
            self.key, self.identity, self.path, self.action, self.params, longest
        )


class Control:
    """
    Carries out control calls on a data API.

    A master says what it obeys, and which forms it has:

        api.control.offer([ForceScheduler(name="force", builder_names=("tests",))])
        api.control.obey(stop_build, "control.build.*.stop")
    """

    def __init__(self, data: DataAPI, bus: Bus, settings: Settings) -> None:
        self._data = data
        self._settings = settings
        self._masters = Obedience(bus)
        self._deeds = Deeds(data, self._masters)
        self._refusals = Ration(settings.audit_refused_per_minute, data.database.seconds)
        keys_s, audit_s = settings.keep_keys_hours * HOUR_S, settings.keep_audit_days * DAY_S
        self.trims: tuple[Callable[[Tx], int], ...] = (
            lambda tx: trim(tx, buildapi_control_keys, keys_s, settings.keep_keys_count),
            lambda tx: trim(tx, buildapi_control_audit, audit_s, settings.keep_audit_count),
        )

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

    def call(
        self,
        path: str,
        action: str,
        params: Params,
        identity: Identity,
        key: str | None = None,
    ) -> Deferred[Any]:
        """
        Do ``action`` on the object at ``path``; fire with its result, as JSON-RPC tells it.

        key: an Idempotency-Key.  The same call with the same key is done once, and fires with the
        same result, for as long as the setting control.keep_keys_hours says.
        Fails with NoSuchPath, Forbidden, NoSuchAction, KeyReused, NoSuchResource, BadArgument or
        FieldErrors, Unavailable where no master obeys.
        """
        asked = Asked(path, action, params, identity, key)
        return Deferred.fromCoroutine(self._called(asked))

    def audit(
        self, limit: int = 100, before: int | None = None, identity: Identity = MASTER
    ) -> Deferred[list[dict[str, Any]]]:
        """
        Read which control calls were made, refused ones too; fire with the newest first.

        limit: most calls wanted.  before: only calls with a smaller id, for the next page.
        Each has id, at (epoch seconds), who, path, action, params, status (as of HTTP), result,
        error (a sentence, or null) and repeated (answered by its Idempotency-Key).  What is longer
        than the setting control.audit_characters is a text that ends in "…".
        Fails with Forbidden, BadQuery, Unavailable, or Conflict where nothing was ever recorded.
        """
        return Deferred.fromCoroutine(self._audited(limit, before, identity))

    async def _audited(
        self, limit: int, before: int | None, identity: Identity
    ) -> list[dict[str, Any]]:
        refusal = self._data.gate.refusal(identity, Action.AUDIT, Scope("audit"))
        if refusal is not None:
            raise Forbidden(refusal)
        most = self._settings.audit_page
        if not isinstance(limit, int) or not 1 <= limit <= most:
            raise BadQuery(f"limit must be 1 to {most}, not {limit}")
        if not isinstance(before, int | None):
            raise BadQuery("before must be the id of a call")
        if self._data.database.identity is None:
            raise Conflict("this database is only read, and has no tables of ours: no audit either")
        return await self._data.database.read(lambda reader: audit.page(reader, limit, before))

    async def _called(self, asked: Asked) -> Any:
        asked.check()
        entry = asked.entry(self._settings.audit_characters)
        try:
            return await self._carried_out(asked, entry)
        except Exception as error:
            await self._refused(entry, error)
            raise

    async def _carried_out(self, asked: Asked, entry: Entry) -> Any:
        match = ROUTER.find(asked.path)
        self._deeds.check(asked.identity, Scope(match.route.resource.plural))
        handler = self._deeds.handler(match, asked.action)
        ticket = asked.ticket(self._settings.key_characters)
        deed = await self._recalled(ticket)
        if deed is None:
            deed = await handler(Call(match, asked.params, asked.identity))
        return await self._data.transaction(partial(self._do, entry, ticket, deed))

    async def _recalled(self, ticket: Ticket | None) -> Deed | None:
        """
        Return a deed that does nothing, if the call has been carried out; KeyReused if another was.

        Whether it has been is decided in the transaction.  But a key that another call used comes
        before wrong parameters, and what was done once may not be possible twice.
        """
        if ticket is None or self._data.database.writer is None:
            return None
        now = self._data.database.seconds()
        known = await self._data.database.read(
            lambda reader: idempotency.recalled(reader, ticket, now, self._settings)
        )
        return None if known is None else lambda _: known.result

    def _do(self, entry: Entry, ticket: Ticket | None, deed: Deed, tx: Tx) -> Any:
        """Carry out a call, if that has not been done: the body of its transaction."""
        known = ticket and idempotency.recalled(tx, ticket, tx.at, self._settings)
        result = known.result if known else deed(tx)
        if ticket and not known:
            idempotency.remember(tx, ticket, result)
        entry.carried_out(tx, result, repeated=known is not None)
        return result

    async def _refused(self, entry: Entry, error: Exception) -> None:
        if not self._refusals.take():
            return
        try:
            await self._data.transaction(lambda tx: entry.refused(tx, error))
        except BuildAPIError as lost:
            _log.debug("a refused call is not in the audit: {sentence}", sentence=lost.sentence)
        except Exception:  # noqa: BLE001  the caller is to hear why the call was refused
            _log.failure("a refused call is not in the audit")
