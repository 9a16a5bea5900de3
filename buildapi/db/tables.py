"""
Every table: Buildbot 4.3's (``metadata``, alembic revision 067), then our own (``own``).

Buildbot's tables are theirs to change and ours to keep: names, types, defaults, indexes and foreign
keys stand here as a Buildbot master makes them, so that either program opens the other's database.
What they have in common is said once:

- A date is a whole number of seconds since the epoch, a truth is 0 or 1.
- Complete means that ``complete_at`` is set, where there is no column ``complete``.
- ``name_hash`` makes names of any length unique; ``hashes`` tells how it is computed.
- SQLite does not enforce the foreign keys; what a delete takes with it is deleted by hand.
"""

from __future__ import annotations

from typing import Any

from sqlalchemy import (
    BigInteger,
    Column,
    Double,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    PrimaryKeyConstraint,
    SmallInteger,
    String,
    Table,
    Text,
)
from sqlalchemy.dialects.mysql import LONGBLOB, LONGTEXT

# What ``alembic_version`` holds in a database with these tables.
REVISION = "067"
# The width of a hash: hex sha1.
HASH_CHARACTERS = 40

metadata = MetaData()
own = MetaData()


def _owner(
    name: str, target: str, *, key: str | None = None, nullable: bool = False, primary: bool = False
) -> Column[int]:
    """Refer to the row that this one is part of: it goes when its owner goes."""
    reference = ForeignKey(target, name=key, ondelete="CASCADE")
    return Column(name, Integer, reference, nullable=nullable, primary_key=primary)


def _link(name: str, target: str, *, key: str | None = None, late: bool = False) -> Column[int]:
    """
    Refer to a row that may be absent, and be forgotten when that row goes.

    late: where the dialect can, add the constraint after all tables, as two refer to each other.
    """
    reference = ForeignKey(target, name=key, ondelete="SET NULL", use_alter=late)
    return Column(name, Integer, reference)


def _prefix(**lengths: int) -> dict[str, Any]:
    """The start of a text that MySQL and MariaDB put into an index, as they can't take it whole."""
    return {"mysql_length": lengths, "mariadb_length": lengths}


_LongBinary = LargeBinary().with_variant(LONGBLOB(), "mysql", "mariadb")
_LongText = Text().with_variant(LONGTEXT(), "mysql", "mariadb")
# Spelled INTEGER it is SQLite's own row number, so the table needs no second tree.
_Seq = BigInteger().with_variant(Integer(), "sqlite")


# --- The installation: masters, workers, and the things that a master configures

# A build master process, known by host and folder; ``active`` while it runs.
masters = Table(
    "masters",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("name", Text, nullable=False),
    Column("name_hash", String(HASH_CHARACTERS), nullable=False),
    Column("active", Integer, nullable=False),
    Column("last_active", Integer, nullable=False),
    Index("master_name_hashes", "name_hash", unique=True),
)

# A machine, or part of one, that runs builds for masters.
workers = Table(
    "workers",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("name", String(50), nullable=False),
    Column("info", Text, nullable=False),
    Column("paused", SmallInteger, nullable=False, server_default="0"),
    Column("pause_reason", Text),
    Column("graceful", SmallInteger, nullable=False, server_default="0"),
    Index("workers_name", "name", unique=True),
)

# A named group of builders and codebases.
projects = Table(
    "projects",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("name", Text, nullable=False),
    Column("name_hash", String(HASH_CHARACTERS), nullable=False),
    Column("slug", String(50), nullable=False),
    Column("description", Text),
    Column("description_format", Text),
    Column("description_html", Text),
    Index("projects_name_hash", "name_hash", unique=True),
)

# A recipe that is run again and again; its name survives every reconfiguration.
builders = Table(
    "builders",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("name", Text, nullable=False),
    Column("description", Text),
    Column("description_format", Text),
    Column("description_html", Text),
    _link("projectid", "projects.id", key="fk_builders_projectid"),
    Column("name_hash", String(HASH_CHARACTERS), nullable=False),
    Index("builder_name_hash", "name_hash", unique=True),
    Index("builders_projectid", "projectid"),
)

# A master has this builder in its configuration at present.
builder_masters = Table(
    "builder_masters",
    metadata,
    Column("id", Integer, primary_key=True),
    _owner("builderid", "builders.id"),
    _owner("masterid", "masters.id"),
    Index("builder_masters_builderid", "builderid"),
    Index("builder_masters_identity", "builderid", "masterid", unique=True),
    Index("builder_masters_masterid", "masterid"),
)

# A word that builders are found by.
tags = Table(
    "tags",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("name", Text, nullable=False),
    Column("name_hash", String(HASH_CHARACTERS), nullable=False),
    Index("tag_name_hash", "name_hash", unique=True),
)

# A builder carries a tag.
builders_tags = Table(
    "builders_tags",
    metadata,
    Column("id", Integer, primary_key=True),
    _owner("builderid", "builders.id"),
    _owner("tagid", "tags.id"),
    Index("builders_tags_builderid", "builderid"),
    Index("builders_tags_unique", "builderid", "tagid", unique=True),
)

# A worker may run a builder's builds on one master.
configured_workers = Table(
    "configured_workers",
    metadata,
    Column("id", Integer, primary_key=True),
    _owner("buildermasterid", "builder_masters.id"),
    _owner("workerid", "workers.id"),
    Index("configured_workers_buildmasterid", "buildermasterid"),
    Index("configured_workers_identity", "buildermasterid", "workerid", unique=True),
    Index("configured_workers_workers", "workerid"),
)

# A worker has a live connection to a master.
connected_workers = Table(
    "connected_workers",
    metadata,
    Column("id", Integer, primary_key=True),
    _owner("masterid", "masters.id"),
    _owner("workerid", "workers.id"),
    Index("connected_workers_identity", "masterid", "workerid", unique=True),
    Index("connected_workers_masterid", "masterid"),
    Index("connected_workers_workers", "workerid"),
)

# What turns changes, clocks or people's wishes into buildsets.
schedulers = Table(
    "schedulers",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("name", Text, nullable=False),
    Column("name_hash", String(HASH_CHARACTERS), nullable=False),
    Column("enabled", SmallInteger, server_default="1"),
    Index("scheduler_name_hash", "name_hash", unique=True),
)

# The one master on which a scheduler runs at present.
scheduler_masters = Table(
    "scheduler_masters",
    metadata,
    _owner("schedulerid", "schedulers.id", primary=True),
    _owner("masterid", "masters.id"),
)

# What watches repositories for changes.
changesources = Table(
    "changesources",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("name", Text, nullable=False),
    Column("name_hash", String(HASH_CHARACTERS), nullable=False),
    Index("changesource_name_hash", "name_hash", unique=True),
)

# The one master on which a change source runs at present.
changesource_masters = Table(
    "changesource_masters",
    metadata,
    _owner("changesourceid", "changesources.id", primary=True),
    _owner("masterid", "masters.id"),
)


# --- Sources: what is to be built

# A difference that somebody wants tried on top of a revision.
patches = Table(
    "patches",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("patchlevel", Integer, nullable=False),
    Column("patch_base64", Text, nullable=False),
    Column("patch_author", Text, nullable=False),
    Column("patch_comment", Text, nullable=False),
    Column("subdir", Text),
)

# One exact state of one codebase; equal ones share a row through ``ss_hash``.
sourcestamps = Table(
    "sourcestamps",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("ss_hash", String(HASH_CHARACTERS), nullable=False),
    Column("branch", String(256)),
    Column("revision", String(256)),
    _owner("patchid", "patches.id", nullable=True),
    Column("repository", String(512), nullable=False, server_default=""),
    Column("codebase", String(256), nullable=False, server_default=""),
    Column("project", String(512), nullable=False, server_default=""),
    Column("created_at", Integer, nullable=False),
    Index("sourcestamps_ss_hash_key", "ss_hash", unique=True),
)

# A commit, as a change source told of it.
changes = Table(
    "changes",
    metadata,
    Column("changeid", Integer, primary_key=True),
    Column("author", String(255), nullable=False),
    Column("committer", String(255)),
    Column("comments", Text, nullable=False),
    Column("branch", String(255)),
    Column("revision", String(255)),
    Column("revlink", String(256)),
    Column("when_timestamp", Integer, nullable=False),
    Column("category", String(255)),
    Column("repository", String(512), nullable=False, server_default=""),
    Column("codebase", String(256), nullable=False, server_default=""),
    Column("project", String(512), nullable=False, server_default=""),
    _owner("sourcestampid", "sourcestamps.id"),
    _link("parent_changeids", "changes.changeid"),
    Index("changes_author", "author"),
    Index("changes_branch", "branch"),
    Index("changes_category", "category"),
    Index("changes_revision", "revision"),
    Index("changes_sourcestampid", "sourcestampid"),
    Index("changes_when_timestamp", "when_timestamp"),
)

# A file that a change touches.
change_files = Table(
    "change_files",
    metadata,
    _owner("changeid", "changes.changeid"),
    Column("filename", String(1024), nullable=False),
    Index("change_files_changeid", "changeid"),
)

# A property of a change: the JSON pair of value and source.
change_properties = Table(
    "change_properties",
    metadata,
    _owner("changeid", "changes.changeid"),
    Column("property_name", String(256), nullable=False),
    Column("property_value", Text, nullable=False),
    Index("change_properties_changeid", "changeid"),
)

# A person, known by whatever identifier the version control has.
users = Table(
    "users",
    metadata,
    Column("uid", Integer, primary_key=True),
    Column("identifier", String(255), nullable=False),
    Column("bb_username", String(128)),
    Column("bb_password", String(128)),
    Index("users_bb_user", "bb_username", unique=True),
    Index("users_identifier", "identifier", unique=True),
)

# One more way to recognise or reach a person.
users_info = Table(
    "users_info",
    metadata,
    _owner("uid", "users.uid"),
    Column("attr_type", String(128), nullable=False),
    Column("attr_data", String(128), nullable=False),
    Index("users_info_attrs", "attr_type", "attr_data", unique=True),
    Index("users_info_uid", "uid"),
    Index("users_info_uid_attr_type", "uid", "attr_type", unique=True),
)

# Who made a change.
change_users = Table(
    "change_users",
    metadata,
    _owner("changeid", "changes.changeid"),
    _owner("uid", "users.uid"),
    Index("change_users_changeid", "changeid"),
)

# A change that a scheduler has seen and not yet used.
scheduler_changes = Table(
    "scheduler_changes",
    metadata,
    _owner("schedulerid", "schedulers.id"),
    _owner("changeid", "changes.changeid"),
    Column("important", Integer),
    Index("scheduler_changes_changeid", "changeid"),
    Index("scheduler_changes_schedulerid", "schedulerid"),
    Index("scheduler_changes_unique", "schedulerid", "changeid", unique=True),
)

# A repository of a project whose commits are followed.
codebases = Table(
    "codebases",
    metadata,
    Column("id", Integer, primary_key=True),
    _owner("projectid", "projects.id"),
    Column("name", Text, nullable=False),
    Column("name_hash", String(HASH_CHARACTERS), nullable=False),
    Column("slug", String(50), nullable=False),
    Index("codebases_projects_name_hash", "projectid", "name_hash", unique=True),
)

# One commit of a followed codebase.
codebase_commits = Table(
    "codebase_commits",
    metadata,
    Column("id", Integer, primary_key=True),
    _owner("codebaseid", "codebases.id"),
    Column("author", String(255), nullable=False),
    Column("committer", String(255)),
    Column("comments", Text, nullable=False),
    Column("when_timestamp", Integer, nullable=False),
    Column("revision", String(70), nullable=False),
    _link("parent_commitid", "codebase_commits.id"),
    Index("codebase_commits_unique", "codebaseid", "revision", unique=True),
)

# Where a branch of a followed codebase points to.
codebase_branches = Table(
    "codebase_branches",
    metadata,
    Column("id", Integer, primary_key=True),
    _owner("codebaseid", "codebases.id"),
    Column("name", String(255), nullable=False),
    Column("name_hash", String(HASH_CHARACTERS), nullable=False),
    _link("commitid", "codebase_commits.id"),
    Column("last_timestamp", Integer, nullable=False),
    Index("codebase_branches_unique", "codebaseid", "name_hash", unique=True),
)


# --- Wishes: what somebody or something wants built

# Requests that were made together, for one set of source stamps; done when all are.
buildsets = Table(
    "buildsets",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("external_idstring", String(256)),
    Column("reason", String(256)),
    Column("submitted_at", Integer, nullable=False),
    Column("complete", SmallInteger, nullable=False, server_default="0"),
    Column("complete_at", Integer),
    Column("results", SmallInteger),
    _link("parent_buildid", "builds.id", key="parent_buildid", late=True),
    Column("parent_relationship", Text),
    _link("rebuilt_buildid", "builds.id", key="rebuilt_buildid", late=True),
    Index("buildsets_complete", "complete"),
    Index("buildsets_submitted_at", "submitted_at"),
)

# A property of a buildset: the JSON pair of value and source.
buildset_properties = Table(
    "buildset_properties",
    metadata,
    _owner("buildsetid", "buildsets.id"),
    Column("property_name", String(256), nullable=False),
    Column("property_value", Text, nullable=False),
    Index("buildset_properties_buildsetid", "buildsetid"),
)

# A buildset is for this source stamp, at most one per codebase.
buildset_sourcestamps = Table(
    "buildset_sourcestamps",
    metadata,
    Column("id", Integer, primary_key=True),
    _owner("buildsetid", "buildsets.id"),
    _owner("sourcestampid", "sourcestamps.id"),
    Index("buildset_sourcestamps_buildsetid", "buildsetid"),
    Index("buildset_sourcestamps_unique", "buildsetid", "sourcestampid", unique=True),
)

# The wish for one build on one builder.  ``results`` is -1 until it is complete.
buildrequests = Table(
    "buildrequests",
    metadata,
    Column("id", Integer, primary_key=True),
    _owner("buildsetid", "buildsets.id"),
    _owner("builderid", "builders.id"),
    Column("priority", Integer, nullable=False, server_default="0"),
    Column("complete", Integer, server_default="0"),
    Column("results", SmallInteger),
    Column("submitted_at", Integer, nullable=False),
    Column("complete_at", Integer),
    Column("waited_for", SmallInteger, server_default="0"),
    Index("buildrequests_builderid", "builderid"),
    Index("buildrequests_buildsetid", "buildsetid"),
    Index("buildrequests_complete", "complete"),
)

# A master has taken the request; requests without a row here are unclaimed.
buildrequest_claims = Table(
    "buildrequest_claims",
    metadata,
    _owner("brid", "buildrequests.id"),
    _owner("masterid", "masters.id"),
    Column("claimed_at", Integer, nullable=False),
    Index("buildrequest_claims_brids", "brid", unique=True),
    Index("ix_buildrequest_claims_masterid", "masterid"),
)


# --- Deeds: what ran, and what it said

# One run of a builder for a request; it runs until ``complete_at`` is set.
builds = Table(
    "builds",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("number", Integer, nullable=False),
    _owner("builderid", "builders.id"),
    _owner("buildrequestid", "buildrequests.id", key="buildrequestid"),
    _link("workerid", "workers.id"),
    _owner("masterid", "masters.id"),
    Column("started_at", Integer, nullable=False),
    Column("complete_at", Integer),
    Column("locks_duration_s", Integer, nullable=False),
    Column("state_string", Text, nullable=False),
    Column("results", Integer),
    Index("builds_buildrequestid", "buildrequestid"),
    Index("builds_masterid", "masterid"),
    Index("builds_number", "builderid", "number", unique=True),
    Index("builds_workerid", "workerid"),
)

# A property of a build: ``value`` is JSON text.
build_properties = Table(
    "build_properties",
    metadata,
    _owner("buildid", "builds.id"),
    Column("name", String(256), nullable=False),
    Column("value", Text, nullable=False),
    Column("source", String(256), nullable=False),
    Index("build_properties_buildid", "buildid"),
)

# A named piece of raw bytes that a build keeps.
build_data = Table(
    "build_data",
    metadata,
    Column("id", Integer, primary_key=True),
    _owner("buildid", "builds.id"),
    Column("name", String(256), nullable=False),
    Column("value", _LongBinary, nullable=False),
    Column("length", Integer, nullable=False),
    Column("source", String(256), nullable=False),
    Index("build_data_buildid_name", "buildid", "name", unique=True),
)

# One command or action of a build; it runs until ``complete_at`` is set.
steps = Table(
    "steps",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("number", Integer, nullable=False),
    Column("name", String(50), nullable=False),
    _owner("buildid", "builds.id"),
    Column("started_at", Integer),
    Column("locks_acquired_at", Integer),
    Column("complete_at", Integer),
    Column("state_string", Text, nullable=False),
    Column("results", Integer),
    Column("urls_json", Text, nullable=False),
    Column("hidden", SmallInteger, nullable=False, server_default="0"),
    Index("steps_name", "buildid", "name", unique=True),
    Index("steps_number", "buildid", "number", unique=True),
    Index("steps_started_at", "started_at"),
)

# One stream of text of a step; ``slug`` is its name in URLs.
logs = Table(
    "logs",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("name", Text, nullable=False),
    Column("slug", String(50), nullable=False),
    _owner("stepid", "steps.id"),
    Column("complete", SmallInteger, nullable=False),
    Column("num_lines", Integer, nullable=False),
    Column("type", String(1), nullable=False),
    Index("logs_slug", "stepid", "slug", unique=True),
)

# A run of whole lines of a log (first and last, from 0); see ``chunks`` for ``compressed``.
logchunks = Table(
    "logchunks",
    metadata,
    _owner("logid", "logs.id"),
    Column("first_line", Integer, nullable=False),
    Column("last_line", Integer, nullable=False),
    # MariaDB takes the smallest type that holds this many, and that holds 16 MB.
    Column("content", LargeBinary(65536)),
    Column("compressed", SmallInteger, nullable=False),
    Index("logchunks_firstline", "logid", "first_line"),
    Index("logchunks_lastline", "logid", "last_line"),
)


# --- Test results

# Test results of one step that share a category and a unit.
test_result_sets = Table(
    "test_result_sets",
    metadata,
    Column("id", Integer, primary_key=True),
    _owner("builderid", "builders.id"),
    _owner("buildid", "builds.id"),
    _owner("stepid", "steps.id"),
    Column("description", Text),
    Column("category", Text, nullable=False),
    Column("value_unit", Text, nullable=False),
    Column("tests_passed", Integer),
    Column("tests_failed", Integer),
    Column("complete", SmallInteger, nullable=False),
)

# A test's name, stored once per builder.
test_names = Table(
    "test_names",
    metadata,
    Column("id", Integer, primary_key=True),
    _owner("builderid", "builders.id"),
    Column("name", Text, nullable=False),
    Index("test_names_name", "builderid", "name", **_prefix(name=255)),
)

# A source file that tests are in, stored once per builder.
test_code_paths = Table(
    "test_code_paths",
    metadata,
    Column("id", Integer, primary_key=True),
    _owner("builderid", "builders.id"),
    Column("path", Text, nullable=False),
    Index("test_code_paths_path", "builderid", "path", **_prefix(path=255)),
)

# The outcome of one test.
test_results = Table(
    "test_results",
    metadata,
    Column("id", Integer, primary_key=True),
    _owner("builderid", "builders.id"),
    _owner("test_result_setid", "test_result_sets.id"),
    _owner("test_nameid", "test_names.id", nullable=True),
    _owner("test_code_pathid", "test_code_paths.id", nullable=True),
    Column("line", Integer),
    Column("duration_ns", Integer),
    Column("value", Text, nullable=False),
)


# --- Memory of masters' objects, and the revision of this schema

# Something that keeps state across restarts: a name within a class.
objects = Table(
    "objects",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("name", String(128), nullable=False),
    Column("class_name", String(128), nullable=False),
    Index("object_identity", "name", "class_name", unique=True),
)

# One remembered value of an object, as JSON text.
object_state = Table(
    "object_state",
    metadata,
    _owner("objectid", "objects.id"),
    Column("name", String(255), nullable=False),
    Column("value_json", Text, nullable=False),
    Index("name_per_object", "objectid", "name", unique=True),
)

# The revision that Buildbot's own migrations have reached.
alembic_version = Table(
    "alembic_version",
    metadata,
    Column("version_num", String(32), nullable=False),
    PrimaryKeyConstraint("version_num", name="alembic_version_pkc"),
)


# --- Our own, beside Buildbot's ---

# The event log: its name (a restored backup gets a new one) and its counters.  One row, id 1.
buildapi_log = Table(
    "buildapi_log",
    own,
    Column("id", Integer, primary_key=True, autoincrement=False),
    Column("uuid", String(36), nullable=False),
    # The last event's number, and the last transaction's, which is a random one: did a COMMIT get
    # through?
    Column("seq", BigInteger, nullable=False),
    Column("batch", BigInteger, nullable=False),
)

# What we remember about this database: who writes, which version of our tables it has.
buildapi_meta = Table(
    "buildapi_meta",
    own,
    Column("name", String(64), primary_key=True),
    Column("value", _LongText, nullable=False),
)

# One event that was committed: ``keys`` is a JSON list of slash keys, ``body`` the JSON message.
buildapi_events = Table(
    "buildapi_events",
    own,
    Column("seq", _Seq, primary_key=True, autoincrement=False),
    Column("at", Double, nullable=False),
    Column("topic", String(255), nullable=False),
    Column("keys", _LongText, nullable=False),
    Column("body", _LongText, nullable=False),
    # The scope that rights are decided by.  Not foreign keys: events outlive their objects.
    Column("builderid", Integer),
    Column("projectid", Integer),
)

# A control call that was made with an Idempotency-Key, and its result as JSON text.  ``token`` is
# made of the key and of who used it, ``digest`` of what was asked for.
buildapi_control_keys = Table(
    "buildapi_control_keys",
    own,
    Column("id", Integer, primary_key=True),
    Column("token", String(64), nullable=False),
    Column("digest", String(64), nullable=False),
    Column("at", Double, nullable=False),
    Column("result", _LongText, nullable=False),
    Index("buildapi_control_keys_token", "token", unique=True),
)

# A control call, refused ones too: ``params`` is JSON text, ``answer`` the result as JSON text or
# the sentence of the error.
buildapi_control_audit = Table(
    "buildapi_control_audit",
    own,
    Column("id", Integer, primary_key=True),
    Column("at", Double, nullable=False),
    Column("who", String(255), nullable=False),
    Column("path", String(255), nullable=False),
    Column("action", String(255), nullable=False),
    Column("params", _LongText, nullable=False),
    # The HTTP status, and whether the answer is that of an earlier call with the same key.
    Column("status", Integer, nullable=False),
    Column("answer", _LongText, nullable=False),
    Column("repeated", SmallInteger, nullable=False),
)


# How far a consumer of events, known by name, has come in the log of this identity.
buildapi_consumers = Table(
    "buildapi_consumers",
    own,
    Column("name", String(100), primary_key=True),
    Column("log", String(36), nullable=False),
    Column("seq", BigInteger, nullable=False),
    # When it last said so (epoch seconds).
    Column("at", BigInteger, nullable=False),
)


def _beside(name: str, *columns: Column[Any]) -> Index:
    """An index on Buildbot's table that ``metadata.create_all`` knows nothing of."""
    index = Index(name, *columns)
    if index.table is not None:
        index.table.indexes.discard(index)
    return index


# Indexes that Buildbot lacks.  In databases that we make; elsewhere when an operator asks for them.
indexes = [
    # A builder's newest builds: 63 instead of 1,388 microseconds among 50,000 builds.
    _beside("buildapi_builds_builderid", builds.c.builderid, builds.c.id),
    # A builder's newest failures: 70 instead of 900 microseconds there; the rarer, the more.
    _beside("buildapi_builds_results", builds.c.builderid, builds.c.results, builds.c.id),
    # The builds that run now (complete_at IS NULL), the last to end, and the last to start.
    _beside("buildapi_builds_complete_at", builds.c.complete_at),
    _beside("buildapi_builds_started_at", builds.c.started_at),
    # The queue of one builder; Buildbot's two indexes read its whole past, or everybody's queue.
    _beside("buildapi_buildrequests_queue", buildrequests.c.builderid, buildrequests.c.complete),
    # What a build triggered or was a rebuild of, and what a deleted build leaves behind.
    _beside("buildapi_buildsets_parent_buildid", buildsets.c.parent_buildid),
    _beside("buildapi_buildsets_rebuilt_buildid", buildsets.c.rebuilt_buildid),
    # From a change to its builds.
    _beside("buildapi_buildset_sourcestamps_ssid", buildset_sourcestamps.c.sourcestampid),
    # Test results have no index at all: one set's, one step's or one build's is a scan of all.
    _beside("buildapi_test_result_sets_builderid", test_result_sets.c.builderid),
    _beside("buildapi_test_result_sets_buildid", test_result_sets.c.buildid),
    _beside("buildapi_test_result_sets_stepid", test_result_sets.c.stepid),
    _beside("buildapi_test_results_setid", test_results.c.test_result_setid),
]
