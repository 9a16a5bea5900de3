"""
The audit: who asked for which control call, when, and what came of it.

A call that is carried out is recorded in its own transaction; one that is refused, in one that
follows.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Self

import sqlalchemy as sa
from twisted.logger import Logger

from buildapi.db.connect import Reader
from buildapi.db.tables import buildapi_control_audit as audit
from buildapi.db.transaction import Tx
from buildapi.errors import BuildAPIError

OK = 200
CUT = "…"
MINUTE_S = 60.0

_log = Logger()

_WIDTH = 255
_PAGE = (
    sa.select(audit)
    .where(audit.c.id < sa.bindparam("before"))
    .order_by(audit.c.id.desc())
    .limit(sa.bindparam("most"))
)
_BEYOND_ALL = 2**63 - 1


@dataclass(frozen=True)
class Entry:
    """
    What is asked for, and by whom, as it is stored.

    characters: how much is kept of a long text.
    """

    who: str
    path: str
    action: str
    params: str
    characters: int

    @classmethod
    def of(  # the words of a call
        cls, who: str, path: str, action: str, params: Mapping[str, Any], characters: int
    ) -> Self:
        """Return the entry of a call."""
        try:
            text = json.dumps(dict(params), default=repr)
        except (TypeError, ValueError, RecursionError):
            text = CUT  # what is no JSON, or too deep
        who, path, action = (_stored(word, _WIDTH) for word in (who, path, action))
        return cls(who, path, action, _stored(text, characters), characters)

    def carried_out(self, tx: Tx, result: Any, *, repeated: bool = False) -> None:
        """Record that it has been done, in this transaction or, if ``repeated``, before."""
        self._record(tx, OK, json.dumps(result), repeated=repeated)

    def refused(self, tx: Tx, error: Exception) -> None:
        """Record that it was refused, and why."""
        if isinstance(error, BuildAPIError):
            self._record(tx, error.status, error.sentence)
        else:
            self._record(tx, 500, "an internal error; the server's log has it")

    def _record(self, tx: Tx, status: int, answer: str, *, repeated: bool = False) -> None:
        tx.insert(
            audit,
            at=tx.at,
            who=self.who,
            path=self.path,
            action=self.action,
            params=self.params,
            status=status,
            answer=_stored(answer, self.characters),
            repeated=int(repeated),
        )


class Ration:
    """So many a minute, and no more.  seconds: gives the time."""

    def __init__(self, most: int, seconds: Callable[[], float]) -> None:
        self.most = most
        self._seconds = seconds
        self._begun = 0.0
        self._taken = 0

    def take(self) -> bool:
        """Take one, and say whether it was there; the first that was not is told of in the log."""
        now = self._seconds()
        if not 0 <= now - self._begun < MINUTE_S:
            self._begun, self._taken = now, 0
        self._taken += 1
        if self._taken == self.most + 1:
            _log.warn(
                "{most} control calls were refused within a minute;"
                " the audit takes no more of them until it is over",
                most=self.most,
            )
        return self._taken <= self.most


def _stored(text: str, longest: int) -> str:
    """Return a text as every database can keep it; what is too long ends in CUT."""
    if len(text) > longest:
        text = text[: longest - len(CUT)] + CUT
    return text.replace("\0", "\ufffd").encode("utf-8", "replace").decode()


def page(reader: Reader, most: int, before: int | None) -> list[dict[str, Any]]:
    """Read calls, the newest first: at most ``most``, of those with an id below ``before``."""
    end = _BEYOND_ALL if before is None else min(before, _BEYOND_ALL)
    return [_shown(*row) for row in reader.rows(_PAGE, {"before": end, "most": most})]


def _shown(  # the columns
    ident: int,
    at: float,
    who: str,
    path: str,
    action: str,
    params: str,
    status: int,
    answer: str,
    repeated: int,
) -> dict[str, Any]:
    done = status == OK
    return {
        "id": ident,
        "at": at,
        "who": who,
        "path": path,
        "action": action,
        "params": _value(params),
        "status": status,
        "result": _value(answer) if done else None,
        "error": None if done else answer,
        "repeated": bool(repeated),
    }


def _value(text: str) -> Any:
    """Return the value of a JSON text; the text itself, if it was cut."""
    return text if text.endswith(CUT) else json.loads(text)
