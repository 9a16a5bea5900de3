"""Steps: the parts of a build, in order."""

from __future__ import annotations

import json
from typing import Annotated, Any

import sqlalchemy as sa

from buildapi.data.builds import Build
from buildapi.data.schema import Resource, field, happens
from buildapi.data.updates import Flag, Id, Name, ResultCode, Seconds, Updates, must_exist, update
from buildapi.data.values import Identifier, Time, nested
from buildapi.db.hashes import free_step_name
from buildapi.db.spelling import same_for_index
from buildapi.db.tables import builds, steps
from buildapi.db.transaction import Tx

Url = Annotated[Any, nested("Url", name=str, url=str)]


class Step(Resource):
    """One step of a build. Steps have unique ids, but are mostly named within their build."""

    plural, table, parent = "steps", steps, Build
    parent_on = builds.c.id == steps.c.buildid
    keys = {
        "stepid": steps.c.id,
        "step_number": steps.c.number,
        "step_name": steps.c.name,
        "buildid": steps.c.buildid,
    }
    one = (
        "steps/n:stepid",
        "builds/n:buildid/steps/n:step_number",
        "builds/n:buildid/steps/i:step_name",
        "builders/n:builderid/builds/n:build_number/steps/n:step_number",
        "builders/n:builderid/builds/n:build_number/steps/i:step_name",
        "builders/s:buildername/builds/n:build_number/steps/n:step_number",
        "builders/s:buildername/builds/n:build_number/steps/i:step_name",
    )
    many = (
        "builds/n:buildid/steps",
        "builders/n:builderid/builds/n:build_number/steps",
        "builders/s:buildername/builds/n:build_number/steps",
    )
    topic = "build.{buildid}.step.{number}"
    slash_keys = ("builds/{buildid}/steps/{stepid}", "steps/{stepid}")
    events = {
        "new": happens("The step exists; it has not started."),
        "started": happens("It has started."),
        "updated": happens("Its state string, its URLs or its locks changed."),
        "finished": happens("It has its results."),
    }

    stepid: int = field(steps.c.id, "Unique id of this step.")
    number: int = field(steps.c.number, "Its position in the build, from 0.")
    name: Identifier = field(
        steps.c.name, "Its name, unique within the build; at most 50 characters."
    )
    buildid: int = field(steps.c.buildid, "The build it is part of.")
    started_at: Time | None = field(steps.c.started_at, "When it started.")
    locks_acquired_at: Time | None = field(steps.c.locks_acquired_at, "When it had all its locks.")
    complete: bool = field(steps.c.complete_at.is_not(None), "Whether it has ended.")
    complete_at: Time | None = field(steps.c.complete_at, "When it ended.")
    results: int | None = field(steps.c.results, "Its result code, null until it ends.")
    state_string: str = field(steps.c.state_string, "What it is doing or did, for people.")
    urls: list[Url] = field(steps.c.urls_json, "Links that it gave: a list of {name, url}.")
    hidden: bool = field(steps.c.hidden, "Whether user interfaces should leave it out.")


_OF_BUILD = sa.select(steps.c.number, steps.c.name).where(
    steps.c.buildid == sa.bindparam("buildid")
)
# The steps of a build that have this name, as far as its index can tell.
_SAME = sa.select(steps.c.id).where(
    steps.c.buildid == sa.bindparam("buildid"), same_for_index(steps.c.name, "name")
)
_URLS = sa.select(steps.c.urls_json).where(steps.c.id == sa.bindparam("stepid"))


class StepUpdates(Updates):
    """What happens to steps."""

    @update
    def addStep(self, tx: Tx, buildid: Id, name: Name) -> tuple[int, int, str]:
        """
        Add a step to a build; return ``(stepid, number, name)``.  Publishes ``new``.

        name: cut to 50 characters; a taken one gets ``_1``, ``_2``, …
        """
        must_exist(tx, Build, buildid)
        there = tx.rows(_OF_BUILD, {"buildid": buildid})
        number = max((n for n, _ in there), default=-1) + 1
        taken = {taken for _, taken in there}
        free = free_step_name(name, taken)
        while tx.connector.FOLDS and tx.first(_SAME, {"buildid": buildid, "name": free}):
            taken.add(free)
            free = free_step_name(name, taken)
        stepid = tx.insert(
            steps, buildid=buildid, number=number, name=free, state_string="pending", urls_json="[]"
        )
        tx.emit(Step, stepid, "new")
        return stepid, number, free

    newStep = addStep

    @update
    def startStep(
        self,
        tx: Tx,
        stepid: Id,
        started_at: Seconds | None = None,
        locks_acquired: Flag = False,
    ) -> None:
        """
        Start a step, now or at epoch seconds; locks_acquired: with all its locks.  Publishes
        ``started``.
        """
        must_exist(tx, Step, stepid)
        at = tx.now if started_at is None else started_at
        locks = {"locks_acquired_at": at} if locks_acquired else {}
        tx.change(steps, stepid, started_at=at, **locks)
        tx.emit(Step, stepid, "started")

    @update
    def set_step_locks_acquired_at(
        self, tx: Tx, stepid: Id, locks_acquired_at: Seconds | None = None
    ) -> None:
        """Note when a step had all its locks (epoch seconds, else now).  Publishes ``updated``."""
        must_exist(tx, Step, stepid)
        at = tx.now if locks_acquired_at is None else locks_acquired_at
        tx.change(steps, stepid, locks_acquired_at=at)
        tx.emit(Step, stepid, "updated")

    @update
    def setStepStateString(self, tx: Tx, stepid: Id, state_string: str) -> None:
        """Say what a step is doing.  Publishes ``updated``."""
        must_exist(tx, Step, stepid)
        tx.change(steps, stepid, state_string=state_string)
        tx.emit(Step, stepid, "updated")

    @update
    def addStepURL(self, tx: Tx, stepid: Id, name: str, url: str) -> None:
        """Add a link to a step; an equal one is kept once.  Publishes ``updated`` in any case."""
        must_exist(tx, Step, stepid)
        urls = json.loads(tx.rows(_URLS, {"stepid": stepid})[0][0])
        link = {"name": name, "url": url}
        if link not in urls:
            tx.change(steps, stepid, urls_json=json.dumps([*urls, link]))
        tx.emit(Step, stepid, "updated")

    @update
    def finishStep(self, tx: Tx, stepid: Id, results: ResultCode, hidden: Flag) -> None:
        """End a step now, with its result code.  Publishes ``finished``."""
        must_exist(tx, Step, stepid)
        tx.change(steps, stepid, complete_at=tx.now, results=results, hidden=int(hidden))
        tx.emit(Step, stepid, "finished")
