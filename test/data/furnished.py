"""The house that every case of an update starts in."""

from __future__ import annotations

from typing import Any

from buildapi.data.api import AllUpdates
from buildapi.db import tables as t
from buildapi.db.hashes import name_hash
from buildapi.db.transaction import Tx
from buildapi.service import BuildAPI
from buildapi.testing import NOON, in_memory_api, result_of

# The house that every case starts in.  No two ids are equal: no key can be right by chance.
MASTER, OTHER_MASTER, BUILDER, WORKER, SET, REQUEST, PENDING = 1, 11, 2, 3, 4, 5, 6
NUMBER, SCHEDULER, BUILD, STAMP, SECOND_SET, STEP, LOG, SHORT = 7, 9, 10, 12, 14, 55, 60, 61
PROJECT, CODEBASE, COMMIT, BRANCH, SOURCE, RESULTS = 30, 31, 32, 33, 34, 35


def furnish(tx: Tx) -> None:
    """Put everything where it belongs."""

    def named(table: Any, ident: int, name: str, **others: Any) -> None:
        tx.insert(table, id=ident, name=name, name_hash=name_hash(name), **others)

    named(t.masters, OTHER_MASTER, "other:/master", active=1, last_active=NOON - 1000)
    named(t.builders, BUILDER, "runtests")
    named(t.schedulers, SCHEDULER, "nightly")
    tx.insert(t.workers, id=WORKER, name="worker-3", info="{}")
    tx.insert(t.builder_masters, id=20, builderid=BUILDER, masterid=MASTER)
    tx.insert(t.builder_masters, id=21, builderid=BUILDER, masterid=OTHER_MASTER)
    tx.insert(t.configured_workers, id=22, buildermasterid=20, workerid=WORKER)
    stamp = {"ss_hash": "x", "branch": "main", "repository": "git://app", "created_at": NOON}
    tx.insert(t.sourcestamps, id=STAMP, **stamp)
    for bsid, brid in ((SET, REQUEST), (SECOND_SET, PENDING)):
        tx.insert(t.buildsets, id=bsid, reason="why", submitted_at=NOON, complete=0, results=-1)
        tx.insert(t.buildset_sourcestamps, buildsetid=bsid, sourcestampid=STAMP)
        asked = {"buildsetid": bsid, "builderid": BUILDER, "results": -1, "submitted_at": NOON}
        tx.insert(t.buildrequests, id=brid, complete=0, priority=0, waited_for=0, **asked)
    tx.insert_later(t.buildrequest_claims, (REQUEST, MASTER, NOON))
    tx.insert(
        t.builds,
        id=BUILD,
        number=NUMBER,
        builderid=BUILDER,
        buildrequestid=REQUEST,
        workerid=WORKER,
        masterid=MASTER,
        started_at=NOON,
        locks_duration_s=0,
        state_string="building",
    )
    step = {"number": 4, "name": "compile", "state_string": "running", "urls_json": "[]"}
    tx.insert(t.steps, id=STEP, buildid=BUILD, **step)
    for logid, name in ((LOG, "stdio"), (SHORT, "other")):
        log = {"stepid": STEP, "complete": 0, "num_lines": 0, "type": "s"}
        tx.insert(t.logs, id=logid, name=name, slug=name, **log)
    named(t.changesources, SOURCE, "poller")
    named(t.projects, PROJECT, "app", slug="app")
    named(t.codebases, CODEBASE, "core", slug="core", projectid=PROJECT)
    commit = {"author": "alice", "comments": "a fix", "when_timestamp": NOON, "revision": "first"}
    tx.insert(t.codebase_commits, id=COMMIT, codebaseid=CODEBASE, **commit)
    named(t.codebase_branches, BRANCH, "main", codebaseid=CODEBASE, last_timestamp=NOON)
    tests = {"category": "pass_fail", "value_unit": "boolean", "complete": 0}
    place = {"builderid": BUILDER, "buildid": BUILD, "stepid": STEP}
    tx.insert(t.test_result_sets, id=RESULTS, **place, **tests)


def furnished() -> BuildAPI:
    """Return an API whose database is the house, furnished without a single event."""
    api = in_memory_api()
    result_of(api.data.updates.masterActive("test:/master", MASTER))
    result_of(api.data.transaction(furnish))
    return api


class Within:
    """The updates as part of a transaction."""

    def __init__(self, updates: AllUpdates, tx: Tx) -> None:
        self._updates = updates
        self._tx = tx

    def __getattr__(self, name: str) -> Any:
        """Return an update that happens within the transaction."""
        update = getattr(self._updates, name)
        return lambda *args, **kwargs: update.within(self._tx, *args, **kwargs)


def dump(api: BuildAPI) -> list[str]:
    """Return all that the database holds, but the number of its last batch."""
    connection = api.data.database._inline.connection  # type: ignore[union-attr]
    return [line for line in connection.iterdump() if '"buildapi_log"' not in line]
