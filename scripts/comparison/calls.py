"""Random JSON-RPC calls: what a master would do changes nothing, for no worker is connected."""

from __future__ import annotations

import json
import random
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import quote

from comparison.judging import Question

T = TypeVar("T")

JSON = {"Content-Type": "application/json"}
TYPES = (
    *("application/json; charset=utf-8", "application/json;", "application/JSON", "text/plain"),
    *("application/x-www-form-urlencoded", "application/json,x", ""),
)
BODIES = (
    *(
        "",
        "{",
        "[]",
        "[{}]",
        "null",
        "1",
        '"x"',
        "{}",
        "{}x",
        "\ufeff{}",
        "\0",
        '{"jsonrpc": "2.0"',
    ),
    *('{"jsonrpc": "2.0", "jsonrpc": "1.0", "method": "stop", "id": 1, "params": {}}',),
)
WRONG: dict[str, Sequence[Any]] = {
    "jsonrpc": ("2", 2.0, 2, None, "", [], "2.0 "),
    "method": (None, 1, "", [], {}, True),
    "id": (1.5, [], {}, True, False, None, "", 10**30, "é"),
    "params": ([], None, "x", 1, [1]),
}
# What is done to whom, with parameters of the right type.
ACTIONS: dict[str, Sequence[tuple[str, dict[str, Any]]]] = {
    "builds": (("stop", {"reason": "é"}), ("STOP", {}), ("rebuild", {}), ("Rebuild", {"x": 1})),
    "buildrequests": (("nosuch", {}), ("Cancel", {}), ("set_priority", {"priority": "x"})),
    "workers": (
        ("pause", {"reason": "r"}),
        ("unpause", {}),
        ("stop", {}),
        ("kill", {}),
        ("KILL", {}),
    ),
    "schedulers": (("enable", {"enabled": True}), ("enable", {"enabled": False}), ("enable", {})),
    "builders": (("force", {}), ("stop", {})),
    "changes": (("stop", {}),),
    "masters": (("stop", {}),),
    "logs": (("stop", {}),),
    "projects": (("get", {}),),
}
TABLES = {"changes": "SELECT changeid FROM changes"}
PLACES = {
    "builds": "SELECT 'builders', builderid, 'builds', number FROM builds",
    "workers": "SELECT 'masters', m.id, 'workers', w.id FROM masters m, workers w"
    " UNION SELECT 'builders', b.id, 'workers', w.name FROM builders b, workers w",
}
# What a form may be filled in with, each wrong now and then.
# Lists of builders to force; both forms have the first.
BUILDERS = (["runtests"], ["nosuch", "runtests", 7], ["nosuch"], [], "runtests", None)
VALUES: dict[str, Sequence[Any]] = {
    "word": ("abc", "é", "", "ABC", ["abc"], "abc\n", " "),
    "count": (3, "4", "x", "", "1_0", " 7 ", "-1", ["5"], "0x1"),
    "clean": (True, False, [True]),
    "size": ("S", "M", "XL", "", ["L"], "s", " S"),
    "tests": (["a"], ["a", "b"], "a", ["c"], "", ["a", "c"], []),
    "notes": ("text", "a\nb", ["x"], ""),
    "more_inner": ("xx", "toolong", ["x"], "", "ééééé"),
    "inner": ("xx", "toolong", ["x"], ""),
    "constant": ("c", "other"),
    "more_constant": ("c", "other"),
    "reason": ("why", "", ["a"]),
    "username": ("me", "me <a@b.c>", "", "a@b", "@"),
    "priority": (1, "2", "x", "", "-3"),
    "app_branch": ("main", "é", "dev", "", ["main"]),
    "app_revision": ("abc", "", " "),
    "lib_branch": ("b", ""),
    "lib_repository": ("git://x", ""),
    "lib_project": ("p", ""),
    "owner": ("somebody", ""),
    "nosuch": ("x", None),
}
# What no form sends: no server may fail of it, but each may say what it likes.
WRONG_TYPES = (None, [], {}, 1.5, [1], [None], 10**30, ["a", "b"], True, {"a": 1}, "é" * 300, "\0")


class Calls:
    """Makes random calls about what one database has."""

    def __init__(self, database: Path, seed: int) -> None:
        self.random = random.Random(seed)
        with closing(sqlite3.connect(database)) as connection:
            self._ids = {
                kind: [
                    row[0] for row in connection.execute(TABLES.get(kind, f"SELECT id FROM {kind}"))
                ]
                for kind in ACTIONS
            }
            # The same objects by other paths, of some masters that know them and some that don't.
            self._places = {
                kind: [
                    "/".join(quote(str(word), safe="") for word in row)
                    for row in connection.execute(sql)
                ]
                for kind, sql in PLACES.items()
            }
            (self._builderid,) = connection.execute(
                "SELECT id FROM builders WHERE name = 'runtests'"
            ).fetchone()

    def one(self, among: Sequence[T]) -> T:
        """Choose one."""
        return self.random.choice(among)

    def chance(self, share: float) -> bool:
        """Say yes sometimes."""
        return self.random.random() < share

    def questions(self) -> Iterator[Question]:
        """Yield calls for ever."""
        while True:
            match self.random.randrange(8):
                case 0 | 1:
                    yield self.broken()
                case 2 | 3 | 4:
                    yield self.force()
                case _:
                    yield self.action()

    def broken(self) -> Question:
        """Return a request that is not quite a call."""
        path = f"builds/{self.one(self._ids['builds'])}"
        call = {"jsonrpc": "2.0", "method": "nosuch", "id": 1, "params": {}}
        headers = dict(JSON)
        match self.random.randrange(4):
            case 0:
                headers = {"Content-Type": self.one(TYPES)}
            case 1:
                return _asked(path, "rpc-protocol", self.one(BODIES))
            case 2:
                del call[self.one(list(call))]
            case _:
                for name in self.random.sample(list(WRONG), self.random.randint(1, 2)):
                    call[name] = self.one(WRONG[name])
        return _asked(path, "rpc-protocol", json.dumps(call), headers)

    def force(self) -> Question:
        """Fill in a form, mostly not quite right."""
        params: dict[str, Any] = {"word": "abc"} if self.chance(0.7) else {}
        for name in self.random.sample(list(VALUES), self.random.randint(0, 4)):
            params[name] = self.one(VALUES[name])
        if self.chance(0.5):
            # Buildbot lets a form force builders that are not its own.
            params["builderid"] = self.one((self._builderid, str(self._builderid), "runtests"))
        if self.chance(0.2):
            params["builderNames"] = self.one(BUILDERS)
        category = "rpc-force-errors"
        if self.chance(0.1):
            category = "rpc-wrong-types"
            params[self.one((*VALUES, "builderid"))] = self.one(WRONG_TYPES)
        scheduler = self.one(("form", "form", "form", "places", "places", "nosuch"))
        return self._call(f"forceschedulers/{scheduler}", category, "force", params)

    def action(self) -> Question:
        """Control something that is there, or not."""
        kind = self.one(list(ACTIONS))
        method, params = self.one(ACTIONS[kind])
        ident: Any = self.one((*self._ids[kind][-20:], *self._ids[kind][:20], 999999))
        path = f"{kind}/{ident}"
        if kind in self._places and self.chance(0.5):
            path = self.one(self._places[kind])
        category = "rpc-ok"
        if self.chance(0.1):
            method, category = self.one(("nosuch", "", "stop ", "get")), "rpc-unknown-method"
        return self._call(path, category, method, params)

    def _call(self, path: str, category: str, method: str, params: dict[str, Any]) -> Question:
        ident = self.one((1, "a", None, True))
        call = {"jsonrpc": "2.0", "method": method, "id": ident, "params": params}
        return _asked(path, category, json.dumps(call, ensure_ascii=self.one((True, False))))


def _asked(path: str, category: str, body: str, headers: dict[str, str] | None = None) -> Question:
    kind = path.partition("/")[0]
    return Question(path, f"{kind}/…", category, "POST", dict(headers or JSON), body)
