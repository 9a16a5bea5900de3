"""
Random GETs: every path of the API, of what is there and what is not, with any arguments; now and
then HEAD, another Accept, an Origin.
"""

from __future__ import annotations

import random
import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import quote, quote_plus

from comparison.judging import Question

T = TypeVar("T")
Pairs = list[tuple[str, str]]

OPERATORS = ("eq", "ne", "lt", "le", "gt", "ge", "contains", "in", "notin")
STRANGE = (
    *("", "a", "A", "é", "e\u0301", "%", "_", "a%", "\\", "'", '"', "a ", "\0", "a\0b", "☃"),
    *("\U0001f600", "\uffff", "x" * 300, "None", "null", "1", "-1", "1.5", "1e3", " 1 ", "+2"),
    *("1_0", "2147483647", "2147483648", "-2147483649", "9223372036854775807"),
    *("9223372036854775808", "-9223372036854775809", "true", "FALSE", "on", "No", "0x10", "٣"),
)
ACCEPTS = ("*/*", "text/html", "text/html,application/json;q=0", "APPLICATION/JSON", "")
ORIGINS = (
    *("http://ci.example.org:1", "HTTP://CI.example.org:80", "http://a.wild.example.org", "null"),
    *("https://ci.example.org:1", "http://ci.example.org", "x.wild.example.org.evil"),
)
PREFLIGHTS = ("GET", "POST", "HEAD", "PUT", "get", None)
WINDOWS = ("0", "1", "2", "3", "5", "20", "1000", "100000000000", " 2 ", "+1", "-1", "x", "", "1.0")
# What a build knows of everything around it; one row is a consistent set of keys.
_AROUND = """
SELECT b.id AS buildid, b.number AS build_number, b.builderid AS builderid, r.name AS buildername,
    b.workerid AS workerid, b.buildrequestid AS buildrequestid, q.buildsetid AS bsid,
    m.masterid AS masterid, s.id AS stepid, s.number AS step_number, s.name AS step_name,
    l.id AS logid, l.slug AS log_slug, d.name AS data_name, w.name AS worker_name
FROM builds b JOIN builders r ON r.id = b.builderid
    LEFT JOIN buildrequests q ON q.id = b.buildrequestid LEFT JOIN steps s ON s.buildid = b.id
    LEFT JOIN logs l ON l.stepid = s.id LEFT JOIN build_data d ON d.buildid = b.id
    LEFT JOIN builder_masters m ON m.builderid = b.builderid
    LEFT JOIN workers w ON w.id = b.workerid
"""
_CODE = """
SELECT p.id AS projectid, p.name AS projectname, c.id AS codebaseid, c.name AS codebasename,
    x.id AS commitid, x.revision AS revision, x.id AS commitid1, y.id AS commitid2, h.id AS branchid
FROM projects p LEFT JOIN codebases c ON c.projectid = p.id
    LEFT JOIN codebase_commits x ON x.codebaseid = c.id
    LEFT JOIN codebase_commits y ON y.codebaseid = c.id
    LEFT JOIN codebase_branches h ON h.codebaseid = c.id
"""
_ALONE = {
    "ssid": "SELECT id FROM sourcestamps",
    "changeid": "SELECT changeid FROM changes",
    "schedulerid": "SELECT id FROM schedulers",
    "changesourceid": "SELECT id FROM changesources",
    "test_result_setid": "SELECT id FROM test_result_sets",
    "any_master": "SELECT id FROM masters",
    "any_worker": "SELECT id FROM workers",
    "any_builder": "SELECT id FROM builders",
}
LISTS = {
    *("", "application.spec", "branches", "builders", "buildrequests", "builds", "buildsets"),
    *("changes", "changesources", "codebases", "commits", "data", "forceschedulers", "logs"),
    *("masters", "projects", "properties_list", "property_list", "results", "schedulers"),
    *("sourcestamps", "steps", "test_result_sets", "triggered_builds", "workers"),
}
WRONG = (
    *("nosuch", "order", "field", "id__eq", "name__nosuch", "results__", "results__eq__ne"),
    *("limit__eq", "property__eq", "__eq", "", "Results", "results__EQ"),
)
_OTHER_NAMES = {"buildsetid": "bsid"}


class Questions:
    """Makes random questions about what one database has.  specs: ``application.spec``, by path."""

    def __init__(self, database: Path, specs: Mapping[str, Any], seed: int) -> None:
        self.random = random.Random(seed)
        self._specs = specs
        connection = sqlite3.connect(database)
        connection.row_factory = sqlite3.Row
        self._around = [dict(row) for row in connection.execute(_AROUND)]
        self._code = [dict(row) for row in connection.execute(_CODE)]
        self._alone = {
            name: [row[0] for row in connection.execute(sql)] for name, sql in _ALONE.items()
        }
        connection.close()

    def is_list(self, pattern: str) -> bool:
        """Whether a path of this pattern has many objects."""
        last = pattern.rpartition("/")[2]
        return last in LISTS

    def one(self, among: Sequence[T]) -> T:
        """Choose one."""
        return self.random.choice(among)

    def chance(self, share: float) -> bool:
        """Say yes sometimes."""
        return self.random.random() < share

    def paths(self, rounds: int) -> Iterator[tuple[str, str]]:
        """Yield pairs of path and pattern, each pattern ``rounds`` times."""
        for _ in range(rounds):
            for pattern in self._specs:
                yield self.path(pattern), pattern

    def question(self, path: str, pattern: str, query: str) -> Question:
        """Ask for a path with a query, in one of the ways that there are."""
        whole = f"{path}?{query}" if query else path
        match self.random.randrange(24):
            case 0:
                return Question(whole, pattern, "head", "HEAD", {"Accept": self.one(ACCEPTS)})
            case 1:
                return Question(whole, pattern, "format", headers={"Accept": self.one(ACCEPTS)})
            case 2:
                headers = {"Accept": "application/json", "Origin": self.one(ORIGINS)}
                method = self.one(("GET", "OPTIONS", "OPTIONS", "HEAD"))
                asked = self.one(PREFLIGHTS) if method == "OPTIONS" else None
                if asked is not None:
                    headers["Access-Control-Request-Method"] = asked
                return Question(whole, pattern, "cors", method, headers)
            case 3 if self.chance(0.3):
                return Question(whole, pattern, "methods", self.one(("PUT", "DELETE", "OPTIONS")))
            case _:
                return Question(whole, pattern)

    def path(self, pattern: str) -> str:
        """Return a path of this pattern, mostly of something that is there."""
        known = {
            **{name: self.one(rows) for name, rows in self._alone.items()},
            **self.one(self._code),
            **self.one(self._around),
        }
        if self.chance(0.15):
            known["builderid"], known["masterid"] = known["any_builder"], known["any_master"]
        if self.chance(0.5):
            known["workerid"] = known["any_worker"]
        words = []
        for element in pattern.split("/"):
            kind, colon, name = element.rpartition(":")
            words.append(self.spelled(self.key(kind, name, known, words)) if colon else element)
        return "/".join(words)

    def key(self, kind: str, name: str, known: dict[str, Any], before: list[str]) -> str:
        """Return the value of one key in a path."""
        if name == "name":
            name = "data_name" if "data" in before else "worker_name"
        value = known.get(_OTHER_NAMES.get(name, name))
        if value is None or self.chance(0.04):
            strange = [word for word in STRANGE if word and "\0" not in word]
            return (
                self.one(["999999", "0", "99999999999999999999"])
                if kind == "n"
                else self.one(strange)
            )
        return str(value)

    def spelled(self, text: str) -> str:
        """Return a text as an element of a path, in one of the ways that it can be escaped."""
        match self.random.randrange(8):
            case 0:
                return "".join(f"%{byte:02x}" for byte in text.encode())
            case 1:
                return quote(text, safe="!$&'()*+,;=:@")
            case _:
                return quote(text, safe="")

    def query(self, pattern: str, items: list[dict[str, Any]] | None) -> str:
        """Return a query string.  items: what the list has; None for a single object."""
        described = self._specs[pattern]["type_spec"].get("fields", [])
        fields = {one["name"]: one["type_spec"] for one in described}
        names = list(fields)
        pairs = self.page(names)
        if items is not None or self.chance(0.1):
            for _ in range(self.one((0, 0, 1, 1, 1, 2, 3))):
                pairs += self.filter(names, items or [])
        if self.chance(0.2) and names:
            pairs += self.selection(names, pairs)
        if self.chance(0.03):
            pairs.append((self.one(WRONG), self.one(("x", "", "1"))))
        self.random.shuffle(pairs)
        words = [f"{self.escaped(name)}={self.escaped(value)}" for name, value in pairs]
        if words and self.chance(0.03):
            words.insert(0, self.one(("", "nonsense", "a;b", "builderid")))
        return "&".join(words)

    def page(self, names: Sequence[str]) -> Pairs:
        """Return what is ordered by, which window is wanted, and which properties."""
        pairs: Pairs = []
        for _ in range(self.one((0, 0, 1, 1, 2, 4)) if names else 0):
            sign = self.one(("", "", "-", "-", "--" if self.chance(0.05) else ""))
            pairs.append(("order", sign + self.one(names)))
        for name in ("limit", "offset"):
            while self.chance(0.3):
                pairs.append((name, self.one(WINDOWS[:6] if self.chance(0.85) else WINDOWS)))
        while self.chance(0.12):
            pairs.append(("property", self.one(("*", *STRANGE[:12], "owner"))))
        return pairs

    def selection(self, names: Sequence[str], pairs: Pairs) -> Pairs:
        """Return a choice of fields, mostly with those that are ordered and filtered by."""
        chosen = set(self.random.sample(names, self.random.randint(1, min(4, len(names)))))
        if self.chance(0.9):
            chosen |= {name.lstrip("-") for key, name in pairs if key == "order"}
            chosen |= {key.partition("__")[0] for key, _ in pairs} & set(names)
        return [("field", name) for name in sorted(chosen)]

    def escaped(self, text: str) -> str:
        """Return a text as a part of a query."""
        if self.chance(0.05):
            return "".join(f"%{byte:02x}" for byte in text.encode())
        return quote_plus(text, safe="/:,*!" if self.chance(0.2) else "")

    def filter(self, names: Sequence[str], items: list[dict[str, Any]]) -> Pairs:
        """Return a filter, its argument once or several times."""
        if not names:
            return []
        name = self.one(names)
        op = self.one(OPERATORS)
        argument = name if op == "eq" and self.chance(0.5) else f"{name}__{op}"
        compares = op in ("lt", "le", "gt", "ge") and self.chance(0.95)
        often = 1 if compares else self.one((1, 1, 1, 2, 3, 8))
        return [(argument, self.value(name, op, items)) for _ in range(often)]

    def value(self, name: str, op: str, items: list[dict[str, Any]]) -> str:
        """Return a value for a filter, mostly one that something has."""
        if not items or self.chance(0.15):
            return self.one(STRANGE)
        value = self.one(items).get(name)
        if isinstance(value, list) and value:
            value = self.one(value)
        if isinstance(value, bool):
            return self.one(("true", "1", "on") if value else ("false", "0", "no"))
        if isinstance(value, int) and self.chance(0.3):
            value += self.one((-1, 1))
        if isinstance(value, str) and value and op == "contains":
            start = self.random.randrange(len(value))
            value = value[start : start + self.random.randint(1, 4)]
        return self.one(STRANGE) if value is None or isinstance(value, dict | list) else str(value)
