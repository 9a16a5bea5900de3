"""Steps: the parts of a build, in order."""

from __future__ import annotations

from buildapi.data.builds import Build
from buildapi.data.schema import Resource, field, happens
from buildapi.data.values import Identifier, Json, Time
from buildapi.db.tables import builds, steps



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
    name: Identifier = field(steps.c.name, "Its name, unique within the build; at most 50 characters.")
    buildid: int = field(steps.c.buildid, "The build it is part of.")
    started_at: Time | None = field(steps.c.started_at, "When it started.")
    locks_acquired_at: Time | None = field(steps.c.locks_acquired_at, "When it had all its locks.")
    complete: bool = field(steps.c.complete_at.is_not(None), "Whether it has ended.")
    complete_at: Time | None = field(steps.c.complete_at, "When it ended.")
    results: int | None = field(steps.c.results, "Its result code, null until it ends.")
    state_string: str = field(steps.c.state_string, "What it is doing or did, for people.")
    urls: list[Json] = field(steps.c.urls_json, "Links that it gave: a list of {name, url}.")
    hidden: bool = field(steps.c.hidden, "Whether user interfaces should leave it out.")
