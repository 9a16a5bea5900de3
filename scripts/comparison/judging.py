"""
Ask two servers the same, and judge the one by the other and by the contract.

The rules are those of the project's own black-box kit (``test/contract/reference``): what the
contract says differently from Buildbot is computed from Buildbot's complete lists.
"""

from __future__ import annotations

import json
import lzma
import re
import sys
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote

sys.path.append(str(Path(__file__).parents[2] / "test" / "contract" / "reference"))

import corpus_common
import replay
import semantics

API = "/api/v2/"
# What the rules look up by themselves.
BASE = ("application.spec", "builders", "builds", "buildsets", "changes")
# Buildbot takes other scripts' digits, signs and underscores for numbers, even where a name stands.
NOT_OUR_NUMBER = re.compile(r"[0-9]*[^\x00-\x7f][^/]*|\+[0-9]+|[0-9]+(_[0-9]+)+|\s*[0-9]+\s*")
ACCEPT = {"Accept": "application/json"}
FAILED, UNKNOWN, MISSING, OK = 500, 501, 404, 200

# Bodies are kept, however long, to tell where they differ.
corpus_common.BIG = sys.maxsize


@dataclass(frozen=True)
class Question:
    """A request.  category: which rules of comparison hold, as ``replay.py`` names them."""

    path: str
    pattern: str
    category: str = "badpath"
    method: str = "GET"
    headers: dict[str, str] = field(default_factory=lambda: dict(ACCEPT))
    body: str | None = None


@dataclass(frozen=True)
class Verdict:
    """What came of a question.  rule: the difference that the contract has there, if any."""

    question: Question
    right: bool
    why: str
    rule: str | None
    status: int


class Judge:
    """Compares the answers of ``ours`` with those of ``reference``; both are base URLs."""

    def __init__(self, reference: str, ours: str) -> None:
        self.reference = corpus_common.Client(reference)
        self.ours = corpus_common.Client(ours)
        lists = [{"path": path, **self._whole(self.reference, path)} for path in BASE]
        with tempfile.NamedTemporaryFile(suffix=".xz") as file:
            file.write(lzma.compress("\n".join(map(json.dumps, lists)).encode()))
            file.flush()
            self.model = semantics.Model(file.name)

    def _whole(self, client: Any, path: str) -> dict[str, Any]:
        status, _, body = client.request("GET", API + path, ACCEPT)
        if status != OK:
            return {"key": None, "items": None}
        key, items = corpus_common.main_list(json.loads(body))
        return {"key": key, "items": items}

    def learn(self, path: str) -> list[dict[str, Any]] | None:
        """Return the complete list at a path, and remember it for the rules; None: there is none.

        Buildbot leaves requests out whose build set has no source stamp: those lists are ours.
        """
        plain = _plain(path)
        if plain not in self.model.full:
            ours = path.partition("?")[0].endswith("buildrequests")
            whole = self._whole(self.ours if ours else self.reference, path)
            if whole["key"] is None:
                return None
            self.model.full[plain] = whole["key"], whole["items"]
        items: list[dict[str, Any]] = self.model.full[plain][1]
        return items

    def judge(self, asked: Question) -> Verdict:
        """Ask both, and compare."""
        answer = self._answer(self.reference, asked)
        record = {
            "id": 0,
            "cat": asked.category,
            "method": asked.method,
            "path": API + _plain(asked.path),
            "request_headers": asked.headers,
            "body": asked.body,
            "response": answer,
        }
        expected, rule = replay.plan(record, self.model)
        got = self._answer(self.ours, asked)
        verdict, why = replay.compare(expected, got)
        if rule == "limit-zero" and "/contents?" in asked.path and got["status"] == OK:
            # The kit takes the path's second element for the id of a log, and cuts no fields.
            return Verdict(asked, True, "", rule, got["status"])
        if verdict == "bad" and (known := self._known(asked, answer, got)):
            return Verdict(asked, True, "", known, got["status"])
        return Verdict(asked, verdict != "bad", why, rule, got["status"])

    def _known(self, asked: Question, theirs: dict[str, Any], ours: dict[str, Any]) -> str | None:
        """Return the difference of the contract that the kit's rules cannot see, if it is one."""
        path = asked.path.partition("?")[0]
        if asked.method == "POST":
            fine = theirs["status"] >= FAILED and ours["status"] in (OK, *range(400, 500), UNKNOWN)
            return "server-error" if fine or asked.category == "rpc-wrong-types" else None
        if _is_number_elsewhere(path) and ours["status"] == MISSING:
            return "path-integer"
        # Whoever asks Buildbot for number nought gets some scheduler or other.
        if re.search(r"schedulers/0+$", path) or _missing_parent(theirs, ours):
            return "missing-parent"
        if "\ufffd" in unquote(path, errors="replace") or self._broken_off(asked, theirs):
            return "server-error"
        return self._of_get(asked, ours)

    def _broken_off(self, asked: Question, theirs: dict[str, Any]) -> bool:
        """Whether Buildbot fails in the middle of a download, and appends its complaint."""
        if theirs["status"] != OK or "raw" not in theirs:
            return False
        return b'{"error": "' in self.reference.request("GET", API + asked.path, ACCEPT)[2][-300:]

    def _of_get(self, asked: Question, ours: dict[str, Any]) -> str | None:
        """Return the difference that a GET without Origin has, too, if this is its status."""
        if asked.method not in ("GET", "HEAD") or asked.category not in ("head", "cors"):
            return None
        plain = self.judge(Question(asked.path, asked.pattern))
        same = plain.status == ours["status"] and plain.right
        return plain.rule if same else None

    def _answer(self, client: Any, asked: Question) -> dict[str, Any]:
        headers = {
            name: text.replace("{BASE}", client.base) for name, text in asked.headers.items()
        }
        found: dict[str, Any] = corpus_common.observe(
            client, asked.method, API + asked.path, headers, asked.body
        )
        result = found.get("json", {}).get("result") if asked.method == "POST" else None
        if isinstance(result, list):
            # Which ids are next depends on what was done before; whose they are does not.
            found["json"]["result"] = ["bsid", sorted(result[1])]
        return found


def _plain(path: str) -> str:
    """Return a path, with its query, as the kit's rules read it: nothing is escaped needlessly."""
    place, mark, query = path.partition("?")
    words = [unquote(word, errors="surrogateescape") for word in place.split("/")]
    return "/".join(quote(word, safe="", errors="surrogateescape") for word in words) + mark + query


def _missing_parent(theirs: dict[str, Any], ours: dict[str, Any]) -> bool:
    """Whether we have an empty list where Buildbot says that there is none."""
    meta = ours.get("json", {}).get("meta")
    return (theirs["status"], ours["status"], meta) == (MISSING, OK, {"total": 0})


def _is_number_elsewhere(path: str) -> bool:
    words = [unquote(word, errors="replace") for word in path.split("/")]
    return any(NOT_OUR_NUMBER.fullmatch(word) for word in words)
