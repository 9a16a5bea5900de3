"""Test results: what the tests of a build said, in sets."""

from __future__ import annotations

from typing import Annotated, Any

import sqlalchemy as sa
from pydantic import Field, TypeAdapter, ValidationError

from buildapi.data.builders import Builder
from buildapi.data.builds import Build
from buildapi.data.commitgraphs import DEPTH
from buildapi.data.schema import Condition, Resource, field, happens
from buildapi.data.steps import Step
from buildapi.data.updates import Id, Updates, must_exist, update
from buildapi.db.tables import (
    builders,
    buildrequests,
    builds,
    buildset_sourcestamps,
    codebase_commits,
    sourcestamps,
    test_code_paths,
    test_names,
    test_result_sets,
    test_results,
)
from buildapi.db.transaction import Tx
from buildapi.errors import BadArgument, Conflict


def _of_commits() -> Condition:
    """
    Return the condition that a set's build was made of a commit of a range.

    The range is the second commit and its parents down to the first; empty if that is not reached.
    """
    commit = codebase_commits.alias("commit")
    chain = (
        sa.select(
            codebase_commits.c.id,
            codebase_commits.c.parent_commitid,
            codebase_commits.c.revision,
            sa.literal_column("0").label("depth"),
        )
        .where(codebase_commits.c.id == sa.bindparam("commitid2"))
        .cte("chain", recursive=True)
    )
    chain = chain.union(
        sa.select(
            commit.c.id,
            commit.c.parent_commitid,
            commit.c.revision,
            chain.c.depth + sa.literal_column("1"),
        ).where(
            commit.c.id == chain.c.parent_commitid,
            chain.c.id != sa.bindparam("commitid1"),
            chain.c.depth < sa.literal_column(str(DEPTH)),
        )
    )
    reached = sa.exists(sa.select(chain.c.id).where(chain.c.id == sa.bindparam("commitid1")))
    made = (
        sa.select(builds.c.id)
        .join(buildrequests, buildrequests.c.id == builds.c.buildrequestid)
        .join(
            buildset_sourcestamps,
            buildset_sourcestamps.c.buildsetid == buildrequests.c.buildsetid,
        )
        .join(sourcestamps, sourcestamps.c.id == buildset_sourcestamps.c.sourcestampid)
        .where(sourcestamps.c.revision.in_(sa.select(chain.c.revision)))
    )
    return sa.and_(reached, test_result_sets.c.buildid.in_(made))


class TestResultSet(Resource):
    """The results of some tests of a step."""

    __test__ = False  # its name is the contract's; it is no test

    plural, table, parent = "test_result_sets", test_result_sets, Builder
    singular = "test_result_set"
    parent_on = builders.c.id == test_result_sets.c.builderid
    keys = {
        "test_result_setid": test_result_sets.c.id,
        "builderid": test_result_sets.c.builderid,
        "buildid": test_result_sets.c.buildid,
        "stepid": test_result_sets.c.stepid,
    }
    special = {
        "codebases/n:codebaseid/commit_range/n:commitid1/n:commitid2/test_result_sets": (
            _of_commits()
        ),
    }
    one = ("test_result_sets/n:test_result_setid",)
    many = (
        "test_result_sets",
        "builders/n:builderid/test_result_sets",
        "builders/s:buildername/test_result_sets",
        "builds/n:buildid/test_result_sets",
        "steps/n:stepid/test_result_sets",
        "codebases/n:codebaseid/commit_range/n:commitid1/n:commitid2/test_result_sets",
    )
    topic = "testresultset.{test_result_setid}"
    slash_keys = ("test_result_sets/{test_result_setid}",)
    events = {
        "new": happens("The set exists; it has no results."),
        "results": happens("Results were added.  Body: test_result_setid, added.", slash=None),
        "completed": happens("It gets no more results."),
    }

    test_result_setid: int = field(test_result_sets.c.id, "Unique id of this set.")
    builderid: int = field(test_result_sets.c.builderid, "The builder.")
    buildid: int = field(test_result_sets.c.buildid, "The build.")
    stepid: int = field(test_result_sets.c.stepid, "The step that ran the tests.")
    description: str | None = field(test_result_sets.c.description, "What they are, for people.")
    category: str = field(test_result_sets.c.category, "The kind of results, such as pass_fail.")
    value_unit: str = field(test_result_sets.c.value_unit, "What the values are, such as ms.")
    tests_passed: int | None = field(test_result_sets.c.tests_passed, "How many passed, if known.")
    tests_failed: int | None = field(test_result_sets.c.tests_failed, "How many failed, if known.")
    complete: bool = field(test_result_sets.c.complete, "Whether it gets no more results.")


class TestResult(Resource):
    """What one test said."""

    __test__ = False  # its name is the contract's; it is no test

    plural, table, parent = "test_results", test_results, TestResultSet
    singular = "test_result"
    parent_on = test_result_sets.c.id == test_results.c.test_result_setid
    source = test_results.outerjoin(
        test_names, test_names.c.id == test_results.c.test_nameid
    ).outerjoin(test_code_paths, test_code_paths.c.id == test_results.c.test_code_pathid)
    keys = {"test_result_setid": test_results.c.test_result_setid}
    many = ("test_result_sets/n:test_result_setid/results",)

    test_resultid: int = field(test_results.c.id, "Unique id of this result.")
    builderid: int = field(test_results.c.builderid, "The builder.")
    test_result_setid: int = field(test_results.c.test_result_setid, "The set it is part of.")
    test_name: str | None = field(test_names.c.name, "The test's name, if it has one.")
    test_code_path: str | None = field(test_code_paths.c.path, "The file the test is in, if known.")
    line: int | None = field(test_results.c.line, "The line in that file, if known.")
    duration_ns: int | None = field(test_results.c.duration_ns, "How long it took, if known.")
    value: str = field(test_results.c.value, "What it said, in the unit of the set.")


_NAME = sa.select(test_names.c.id).where(
    test_names.c.builderid == sa.bindparam("builderid"), test_names.c.name == sa.bindparam("text")
)
_PATH = sa.select(test_code_paths.c.id).where(
    test_code_paths.c.builderid == sa.bindparam("builderid"),
    test_code_paths.c.path == sa.bindparam("text"),
)
Count = Annotated[int, Field(ge=0, lt=2**31)]
# What may be said of a result.
_KNOWN: dict[str, TypeAdapter[Any]] = {
    "value": TypeAdapter(str),
    "test_name": TypeAdapter(str | None),
    "test_code_path": TypeAdapter(str | None),
    "line": TypeAdapter(Count | None),
    "duration_ns": TypeAdapter(Annotated[int, Field(ge=0, lt=2**63)] | None),
}


def _checked(arguments: dict[str, Any]) -> None:
    """Raise ValueError if a result is none."""
    for index, given in enumerate(arguments["result_values"]):
        for name, wanted in _KNOWN.items():
            try:
                wanted.validate_python(given.get(name), strict=True)
            except ValidationError as error:
                reason = error.errors(include_url=False)[0]["msg"]
                raise ValueError(f"result_values.{index}.{name}: {reason}") from None
        if unknown := given.keys() - _KNOWN:
            sentence = f"there is no such part of a result; these are: {', '.join(_KNOWN)}"
            raise ValueError(f"result_values.{index}.{min(unknown, key=str)}: {sentence}")
        if given.get("test_name") is None and given.get("test_code_path") is None:
            raise ValueError(f"result_values.{index}: test_name or test_code_path is needed")


class TestResultUpdates(Updates):
    """What adds test results."""

    __test__ = False

    @update
    def addTestResultSet(
        self,
        tx: Tx,
        builderid: Id,
        buildid: Id,
        stepid: Id,
        description: str | None,
        category: str,
        value_unit: str,
    ) -> int:
        """Add a set for the results of a step; return its id.  Publishes ``new``."""
        must_exist(tx, Builder, builderid)
        must_exist(tx, Build, buildid)
        must_exist(tx, Step, stepid)
        ident = tx.insert(
            test_result_sets,
            builderid=builderid,
            buildid=buildid,
            stepid=stepid,
            description=description,
            category=category,
            value_unit=value_unit,
            complete=0,
        )
        tx.emit(TestResultSet, ident, "new")
        return ident

    @update
    def completeTestResultSet(
        self,
        tx: Tx,
        test_result_setid: Id,
        tests_passed: Count | None = None,
        tests_failed: Count | None = None,
    ) -> None:
        """End a set, with its counts if they are known.  Publishes ``completed``."""
        must_exist(tx, TestResultSet, test_result_setid)
        counts = {"tests_passed": tests_passed, "tests_failed": tests_failed}
        known = {name: count for name, count in counts.items() if count is not None}
        tx.change(test_result_sets, test_result_setid, complete=1, **known)
        tx.emit(TestResultSet, test_result_setid, "completed")

    @update
    def addTestResults(
        self, tx: Tx, builderid: Id, test_result_setid: Id, result_values: list[dict[str, Any]]
    ) -> None:
        """
        Add results to a set.  Publishes ``results`` with their number.

        result_values: dictionaries with ``value`` (a text), ``test_name`` or ``test_code_path`` or
        both, and maybe ``line`` and ``duration_ns``.  On a server Buildbot's column has room for no
        more than 2.1 seconds; what took longer is kept as that.
        """
        _, owner, *_, complete = must_exist(tx, TestResultSet, test_result_setid)
        if owner != builderid:
            # The gate hides a result by its own builder.
            raise BadArgument(
                f"addTestResults: builderid: test result set {test_result_setid} is of {owner}"
            )
        if complete:
            raise Conflict(f"test result set {test_result_setid} is complete")
        for given in result_values:
            tx.insert(
                test_results,
                builderid=builderid,
                test_result_setid=test_result_setid,
                test_nameid=_named(tx, _NAME, test_names, builderid, given.get("test_name")),
                test_code_pathid=_named(
                    tx, _PATH, test_code_paths, builderid, given.get("test_code_path")
                ),
                line=given.get("line"),
                duration_ns=_duration(tx, given.get("duration_ns")),
                value=given["value"],
            )
        body = {"test_result_setid": test_result_setid, "added": len(result_values)}
        tx.emit(TestResultSet, test_result_setid, "results", body=body)

    addTestResults = addTestResults.prepared(_checked)


def _duration(tx: Tx, duration_ns: int | None) -> int | None:
    return None if duration_ns is None else min(duration_ns, tx.connector.LARGEST_INTEGER)


def _named(
    tx: Tx, known: sa.Select[Any], table: sa.Table, builderid: int, text: str | None
) -> int | None:
    """Return the id of a builder's test name or code path; make it if it is new."""
    if text is None:
        return None
    row = tx.first(known, {"builderid": builderid, "text": text})
    column = "name" if table is test_names else "path"
    return row[0] if row else tx.insert(table, builderid=builderid, **{column: text})
