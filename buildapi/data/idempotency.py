"""
Idempotency keys: who repeats a call with its key gets the same answer, and it is done once.

A key belongs to who uses it.  What it stands for is remembered in the transaction that carries out
the call, so that neither a crash nor a second call at the same time can do it twice: the one
writer runs them one after the other.  A call that failed has changed nothing and is not remembered;
its key may be used again, with other parameters too.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa

from buildapi.data.gate import Identity
from buildapi.db.connect import Reader
from buildapi.db.tables import buildapi_control_keys as keys
from buildapi.db.transaction import Tx
from buildapi.errors import BadArgument, KeyReused
from buildapi.settings import Control

HOUR_S = 3_600

_FIND = sa.select(keys.c.digest, keys.c.result).where(
    keys.c.token == sa.bindparam("token"), keys.c.at >= sa.bindparam("since")
)
_FORGET = sa.delete(keys).where(keys.c.token == sa.bindparam("token_"))


@dataclass(frozen=True)
class Ticket:
    """A key in somebody's hand (``token``), and the call that it is used for (``digest``)."""

    token: str
    digest: str


@dataclass(frozen=True)
class Remembered:
    """That a call has been carried out already, with this result."""

    result: Any


def ticket(
    key: str, identity: Identity, path: str, action: str, params: Mapping[str, Any], longest: int
) -> Ticket:
    """
    Return what a key means with this call.

    Raises BadArgument for a key that is empty or has more than ``longest`` characters, and for
    parameters that are no JSON.
    """
    if not 1 <= len(key) <= longest:
        raise BadArgument(
            f"Idempotency-Key: it must have 1 to {longest} characters, and has {len(key)}"
        )
    # Builds take the names of actions in any case; nothing else has two that differ in it alone.
    return Ticket(
        _hash(key, identity.name, identity.trusted), _hash(path, action.lower(), dict(params))
    )


def _hash(*parts: Any) -> str:
    try:
        text = json.dumps(parts, sort_keys=True)
    except (TypeError, ValueError, RecursionError) as error:
        raise BadArgument(f"params must be JSON: {error}") from None
    return hashlib.sha256(text.encode()).hexdigest()


def recalled(reader: Reader, it: Ticket, now: float, settings: Control) -> Remembered | None:
    """Return the result of the call, if it has been carried out; KeyReused if another one was."""
    since = now - settings.keep_keys_hours * HOUR_S
    row = reader.first(_FIND, {"token": it.token, "since": since})
    if row is None:
        return None
    if row[0] != it.digest:
        raise KeyReused("this Idempotency-Key was used for another call; give each call its own")
    return Remembered(json.loads(row[1]))


def remember(tx: Tx, it: Ticket, result: Any) -> None:
    """Remember, in the transaction that carries out the call, what came of it."""
    # One that has expired may still be there.
    tx.run(_FORGET, {"token_": it.token})
    tx.insert(keys, token=it.token, digest=it.digest, at=tx.at, result=json.dumps(result))
