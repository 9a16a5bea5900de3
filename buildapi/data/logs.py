"""Logs: what steps print."""

from __future__ import annotations

from buildapi.data.schema import Resource, field, happens
from buildapi.data.steps import Step
from buildapi.data.values import Identifier
from buildapi.db.tables import logs, steps


class Log(Resource):
    """The text that a step printed, by lines."""

    plural, table, parent = "logs", logs, Step
    parent_on = steps.c.id == logs.c.stepid
    keys = {"logid": logs.c.id, "log_slug": logs.c.slug, "stepid": logs.c.stepid}
    one = (
        "logs/n:logid",
        "steps/n:stepid/logs/i:log_slug",
        "builds/n:buildid/steps/n:step_number/logs/i:log_slug",
        "builds/n:buildid/steps/i:step_name/logs/i:log_slug",
        "builders/n:builderid/builds/n:build_number/steps/n:step_number/logs/i:log_slug",
        "builders/n:builderid/builds/n:build_number/steps/i:step_name/logs/i:log_slug",
        "builders/s:buildername/builds/n:build_number/steps/n:step_number/logs/i:log_slug",
        "builders/s:buildername/builds/n:build_number/steps/i:step_name/logs/i:log_slug",
    )
    many = (
        "steps/n:stepid/logs",
        "builds/n:buildid/steps/n:step_number/logs",
        "builds/n:buildid/steps/i:step_name/logs",
        "builders/n:builderid/builds/n:build_number/steps/n:step_number/logs",
        "builders/n:builderid/builds/n:build_number/steps/i:step_name/logs",
        "builders/s:buildername/builds/n:build_number/steps/n:step_number/logs",
        "builders/s:buildername/builds/n:build_number/steps/i:step_name/logs",
    )
    topic = "build.{buildid}.step.{number}.log.{logid}"
    slash_keys = ("logs/{logid}", "steps/{stepid}/logs/{slug}")
    events = {
        "newlog": happens("The log exists; it has no lines.", slash="new"),
        "append": happens("Lines were appended; num_lines counts them, the text is never told."),
        "complete": happens("It gets no more lines.", slash="finished"),
    }

    logid: int = field(logs.c.id, "Unique id of this log.")
    name: str = field(logs.c.name, "Its name, such as stdio.")
    slug: Identifier = field(logs.c.slug, "Its name for URLs, unique within the step.")
    stepid: int = field(logs.c.stepid, "The step that printed it.")
    complete: bool = field(logs.c.complete, "Whether it gets no more lines.")
    num_lines: int = field(logs.c.num_lines, "How many lines it has.")
    type: Identifier = field(
        logs.c.type, "s: stdio, lines begin with o, e or h; t: text; h: HTML; d: deleted."
    )
