"""
The rows of the database that every server of a run serves: those of a master with N builds.

Pure: the same N gives the same rows. Every build is complete, so that a master that starts on it
has nothing to tidy up; beside them a few requests wait. A row is a tuple in the order of its
table's columns.
"""

from __future__ import annotations

import hashlib
import json
import zlib
from collections.abc import Iterable, Iterator
from typing import Any

import sqlalchemy as sa

from buildapi.db import tables
from buildapi.db.hashes import name_hash, ss_hash

Row = tuple[Any, ...]
Part = Iterator[tuple[sa.Table, Iterable[Row]]]

BUILDERS = 40
WORKERS = 24
WORKERS_PER_BUILDER = 3
SCHEDULERS = 8
AUTHORS = 30
PENDING_REQUESTS = 20
BUILDS_PER_CHANGE = 4
STEPS = ("worker_preparation", "git", "configure", "compile", "test")
FEWEST_PROPERTIES, MOST_PROPERTIES = 10, 30
MOST_FILES = 12
BUILD_S = 300
FIRST_START = 1_767_225_600  # 2026-01-01
TAGS = ("linux", "windows", "macos", "nightly", "release", "docs")
BRANCHES = ("main", "stable-4", "feature/söme-thing")
SUCCESS, WARNINGS, FAILURE = 0, 1, 2
# Nine in ten are good.
RESULTS = (SUCCESS,) * 18 + (WARNINGS, FAILURE)
STATES = {SUCCESS: "build successful", WARNINGS: "warnings test", FAILURE: "failed test (failure)"}
LOG_VARIANTS = 64
COMPRESSED_GZ = 1
# As Buildbot cuts them: a chunk holds at most 1,000 lines and 64 KB.
BIG_LOG_CHUNKS, BIG_LOG_CHUNK_LINES = 600, 1_000


def parts(builds: int) -> Part:
    """Yield tables and rows of them; a table may come more than once."""
    for part in (_installation(), _sources(builds), _wishes(builds), _deeds(builds)):
        yield from part


def big_log(builds: int) -> int:
    """The id of the one log that is tens of megabytes long."""
    return builds * len(STEPS) + 1


def _installation() -> Part:
    yield tables.alembic_version, [(tables.REVISION,)]
    names = ["bench.example.org:/srv/ci/master", "old.example.org:/srv/ci/master"]
    yield tables.masters, [(n, name, name_hash(name), 0, FIRST_START) for n, name in _from_1(names)]
    yield tables.projects, [(1, "engine", name_hash("engine"), "engine", "The engine", None, None)]
    yield tables.workers, [_worker(n) for n in _ids(WORKERS)]
    yield tables.builders, [_builder(n) for n in _ids(BUILDERS)]
    yield tables.tags, [(n, tag, name_hash(tag)) for n, tag in _from_1(TAGS)]
    yield (
        tables.builders_tags,
        [(n + k * BUILDERS, n, (n + k) % len(TAGS) + 1) for k in range(2) for n in _ids(BUILDERS)],
    )
    yield tables.builder_masters, [(n, n, 1) for n in _ids(BUILDERS)]
    yield (
        tables.configured_workers,
        [
            (n * WORKERS_PER_BUILDER + k + 1, n + 1, (n + k) % WORKERS + 1)
            for n in range(BUILDERS)
            for k in range(WORKERS_PER_BUILDER)
        ],
    )
    schedulers = [f"scheduler-{n}" for n in _ids(SCHEDULERS)]
    yield tables.schedulers, [(n, name, name_hash(name), 1) for n, name in _from_1(schedulers)]
    yield tables.changesources, [(1, "git", name_hash("git"))]


def _sources(builds: int) -> Part:
    changes = _changes(builds)
    yield tables.users, ((n, _author(n), None, None) for n in _ids(AUTHORS))
    yield tables.sourcestamps, (_sourcestamp(n) for n in changes)
    yield tables.changes, (_change(n) for n in changes)
    yield (
        tables.change_files,
        (
            (n, f"src/part{n % 50}/file{k}.c")
            for n in changes
            for k in range(_draw(n, MOST_FILES) + 1)
        ),
    )
    yield (
        tables.change_properties,
        (
            (n, name, value)
            for n in changes
            for name, value in (
                ("event", '["push", "Change"]'),
                ("reviewers", f'[["dev{n % AUTHORS}"], "Change"]'),
                ("pull_request", f'[{n % 977}, "Change"]'),
            )
        ),
    )
    yield tables.change_users, ((n, n % AUTHORS + 1) for n in changes)


def _wishes(builds: int) -> Part:
    pending = range(builds + 1, builds + 1 + PENDING_REQUESTS)
    yield tables.buildsets, (_buildset(n) for n in _ids(builds))
    yield (
        tables.buildsets,
        ((n, None, "nightly", _start(n), 0, None, -1, *_NULLS[:3]) for n in pending),
    )
    everything = range(1, pending.stop)
    yield (
        tables.buildset_properties,
        (
            (n, name, value)
            for n in everything
            for name, value in (
                ("scheduler", '["scheduler-1", "Scheduler"]'),
                ("clean", '[false, "Force"]'),
            )
        ),
    )
    yield tables.buildset_sourcestamps, ((n, n, _change_of(n, builds)) for n in everything)
    yield tables.buildrequests, (_buildrequest(n) for n in _ids(builds))
    yield (
        tables.buildrequests,
        ((n, n, _builderid(n), 0, 0, -1, _start(n), None, 0) for n in pending),
    )
    yield tables.buildrequest_claims, ((n, 1, _start(n)) for n in _ids(builds))


def _deeds(builds: int) -> Part:
    yield tables.builds, (_build(n) for n in _ids(builds))
    yield tables.build_properties, (row for n in _ids(builds) for row in _properties(n, builds))
    yield tables.steps, (_step(n, k) for n in _ids(builds) for k in range(len(STEPS)))
    stepids = _ids(builds * len(STEPS))
    texts = [_log_text(variant) for variant in range(LOG_VARIANTS)]
    big, big_lines = big_log(builds), BIG_LOG_CHUNKS * BIG_LOG_CHUNK_LINES
    yield (
        tables.logs,
        ((n, "stdio", "stdio", n, 1, texts[n % LOG_VARIANTS][0], "s") for n in stepids),
    )
    yield (
        tables.logchunks,
        (
            (n, 0, lines - 1, content, COMPRESSED_GZ)
            for n in stepids
            for lines, content in (texts[n % LOG_VARIANTS],)
        ),
    )
    # A log of the very first step, beside the usual one.
    yield tables.logs, [(big, "everything", "everything", 1, 1, big_lines, "s")]
    yield tables.logchunks, (_big_chunk(big, k) for k in range(BIG_LOG_CHUNKS))


_NULLS = (None,) * 8


def _worker(n: int) -> Row:
    info = {"admin": "ops@example.org", "host": f"host {n}", "access_uri": None, "version": "4.3.0"}
    return n, f"worker-{n}", json.dumps(info), 0, None, 0


def _builder(n: int) -> Row:
    name = f"builder {n}/ünit" if n % 10 == 0 else f"builder-{n}"
    return n, name, f"Builds part {n}", None, None, 1 if n % 2 else None, name_hash(name)


def _author(n: int) -> str:
    return f"Jörg {n} <dev{n}@example.org>"


def _revision(n: int) -> str:
    return hashlib.sha1(str(n).encode(), usedforsecurity=False).hexdigest()


def _sourcestamp(n: int) -> Row:
    source = {
        "branch": BRANCHES[n % len(BRANCHES)],
        "revision": _revision(n),
        "repository": "https://git.example.org/engine.git",
        "codebase": "",
        "project": "engine",
    }
    found_by = ss_hash(**source, patchid=None)
    return (
        n,
        found_by,
        source["branch"],
        source["revision"],
        None,
        source["repository"],
        source["codebase"],
        source["project"],
        _start(n * BUILDS_PER_CHANGE),
    )


def _change(n: int) -> Row:
    return (
        n,
        _author(n % AUTHORS + 1),
        None,
        f"Make part {n % 50} quicker\n\nIt looked at every ünit twice ({n}).",
        BRANCHES[n % len(BRANCHES)],
        _revision(n),
        f"https://git.example.org/engine/commit/{_revision(n)}",
        _start(n * BUILDS_PER_CHANGE),
        None,
        "https://git.example.org/engine.git",
        "",
        "engine",
        n,
        n - 1 or None,
    )


def _buildset(n: int) -> Row:
    return n, None, "The scheduler saw a change", _start(n), 1, _end(n), _results(n), *_NULLS[:3]


def _buildrequest(n: int) -> Row:
    return n, n, _builderid(n), n % 3, 1, _results(n), _start(n), _end(n), 0


def _build(n: int) -> Row:
    results = _results(n)
    state = STATES[results]
    times = _start(n), _end(n)
    return n, _number(n), _builderid(n), n, n % WORKERS + 1, 1, *times, n % 3, state, results


def _properties(n: int, builds: int) -> Iterator[Row]:
    worker = f"worker-{n % WORKERS + 1}"
    revision = _revision(_change_of(n, builds))
    yield n, "scheduler", '"scheduler-1"', "Scheduler"
    yield n, "buildername", f'"builder-{_builderid(n)}"', "Builder"
    yield n, "builderid", str(_builderid(n)), "Builder"
    yield n, "workername", f'"{worker}"', "Worker"
    yield n, "buildnumber", str(_number(n)), "Build"
    yield n, "branch", '"main"', "Build"
    yield n, "revision", f'"{revision}"', "Build"
    yield n, "got_revision", f'"{revision}"', "Git"
    yield n, "owners", '["J\\u00f6rg <dev@example.org>"]', "Build"
    yield n, "builddir", f'"/srv/{worker}/builder-{_builderid(n)}"', "Worker"
    for k in range(_draw(n, MOST_PROPERTIES - FEWEST_PROPERTIES + 1)):
        yield n, f"option_{k}", f'{{"level": {k}, "text": "as ünit {n} wants"}}', "Force"


def _step(n: int, k: int) -> Row:
    seconds = BUILD_S // len(STEPS)
    began = _start(n) + k * seconds
    results = _results(n) if k == len(STEPS) - 1 else SUCCESS
    urls = '[{"name": "report", "url": "https://example.org/r"}]' if k == len(STEPS) - 1 else "[]"
    stepid = (n - 1) * len(STEPS) + k + 1
    times = began, began, began + seconds
    return stepid, k, STEPS[k], n, *times, f"'{STEPS[k]} ...'", results, urls, 0


def _log_text(variant: int) -> tuple[int, bytes]:
    lines = ["hmake check"]
    lines += [f"ocompiling src/part{k}/file{variant * k}.c" for k in range(10 + variant)]
    lines.append("hprogram finished with exit code 0")
    return len(lines), zlib.compress("\n".join(lines).encode(), 9)


def _big_chunk(logid: int, k: int) -> Row:
    first = k * BIG_LOG_CHUNK_LINES
    lines = range(first, first + BIG_LOG_CHUNK_LINES)
    text = "\n".join(
        f"o[{n}] compiling src/part{n % 50}/file{n % 977}.c -> {n:08x}.o" for n in lines
    )
    return logid, first, lines[-1], zlib.compress(text.encode()), COMPRESSED_GZ


def _draw(n: int, most: int) -> int:
    """A number below ``most`` that looks drawn by lot, the same in every run."""
    return (n * 2_654_435_761 >> 8) % most


def _ids(most: int) -> range:
    return range(1, most + 1)


def _from_1(names: Iterable[str]) -> Iterable[tuple[int, str]]:
    return enumerate(names, start=1)


def _changes(builds: int) -> range:
    return _ids(max(1, builds // BUILDS_PER_CHANGE))


def _change_of(n: int, builds: int) -> int:
    return min(n // BUILDS_PER_CHANGE + 1, len(_changes(builds)))


def _builderid(n: int) -> int:
    return (n - 1) % BUILDERS + 1


def _number(n: int) -> int:
    return (n - 1) // BUILDERS + 1


def _results(n: int) -> int:
    return RESULTS[_draw(n, len(RESULTS))]


def _start(n: int) -> int:
    return FIRST_START + n * 60


def _end(n: int) -> int:
    return _start(n) + BUILD_S
