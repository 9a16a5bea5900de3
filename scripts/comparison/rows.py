"""
A second database: random rows, of other kinds than the recorded sample has.

    python -m comparison.rows sqlite:////tmp/other.sqlite 7

All that the schema allows and masters leave behind is there: odd names, nulls, things incomplete,
links that form chains and circles, every compression of log chunks.  The same seed makes the same
rows.
"""

from __future__ import annotations

import base64
import contextlib
import json
import random
import sys
from collections.abc import Iterator, Sequence
from typing import Any, TypeVar

import sqlalchemy as sa

from buildapi.db import tables as t
from buildapi.db.compression import METHODS
from buildapi.db.hashes import free_slug, name_hash, shortened, ss_hash
from buildapi.db.migrate import opened
from buildapi.db.systems import connector

T = TypeVar("T")

WORDS = (
    *("a", "A", "ab", "Ab", "a ", " a", "a b", "a/b", "a%", "a_", "%", "_", "\\", "'", '"', "''"),
    *("", "0", "7", "-1", "null", "true", "é", "e\u0301", "É", "ß", "ss", "ﬁ", "İ", "i", "ı"),
    *(
        "日本",
        "\uffff",
        "\U0001f600",
        "\U00010000",
        "\ue000",
        "a\tb",
        "a\nb",
        "<b>&amp;",
        "x" * 250,
    ),
)
NAMED = [word for word in WORDS if word]
# As names: whole texts, and those that the URL can take as a number or an identifier.
NAMES = (
    *("runtests", "RunTests", "a b", "ünï/cøde", "7", "007", "-x", "a.b", "_", "%41", "☃", "q?x=1"),
    *("a&b", "a+b", "runtests ", "\U0001f600", "c#", "..", "e\u0301", "é"),
)
IDENTIFIERS = ("compile", "Compile", "unit-test", "a.b", "_x", "-y", "git", "shell", "A" * 50)
# Around now, at the beginning of time, and at the end of 32 bits.
TIMES = (0, 1, 2**31 - 1, *range(1_795_000_000, 1_795_000_000 + 40, 7))
NUMBERS = (0, 1, 2, 3, 10, -1, 2**31 - 1, -(2**31))
RESULTS = (0, 1, 2, 3, 4, 5, 6)
VALUES = (
    *(None, True, False, 0, 1, -1, 1.5, 1e300, 2**63, -(2**70), "", "text", "é☃\U0001f600", "\0"),
    *([], {}, [1, [2, [3, [4]]]], {"a": {"b": {"c": [None, "d"]}}}, {"": ""}),
)
SOURCES = ("Force", "Worker", "Change", "Builder ünï", "", "a'b\"c")
CODEBASES = ("", "app", "lib")
LINES = ("make: ok", "", "é☃\U0001f600", "\x0b\x0c\x85\u2028", "<b>&", "tab\there", "x" * 300, "\0")


class House:
    """The random rows, table by table, and how they are put into a database."""

    def __init__(self, connection: sa.Connection, seed: int) -> None:
        self.connection = connection
        self.random = random.Random(seed)

    def add(self, table: sa.Table, **values: Any) -> int:
        """Insert a row; return its key, if it has one."""
        done = self.connection.execute(sa.insert(table).values(**values))
        return int(done.inserted_primary_key[0]) if table.primary_key.columns else 0

    def one(self, among: Sequence[T]) -> T:
        """Choose one."""
        return self.random.choice(among)

    def maybe(self, among: Sequence[T]) -> T | None:
        """Choose one, or nothing."""
        return self.one(among) if among and self.random.random() < 0.6 else None

    def some(self, among: Sequence[T], most: int = 3) -> list[T]:
        """Choose a few different ones, or none."""
        return self.random.sample(among, self.random.randint(0, min(most, len(among))))

    def flag(self, share: float = 0.5) -> int:
        """Choose 0 or 1."""
        return int(self.random.random() < share)

    def named(self, table: sa.Table, name: str, **values: Any) -> int:
        """Insert a row that is found by the hash of its name."""
        return self.add(table, name=name, name_hash=name_hash(name), **values)

    def fill(self) -> None:
        """Make everything."""
        self.installation()
        self.sources()
        self.followed()
        self.wishes()
        self.deeds()
        self.chains()

    def installation(self) -> None:
        """Masters, workers, projects, builders and what a master is configured with."""
        # The clock of a master that runs meanwhile must not find them dead.
        self.masters = [
            self.named(t.masters, f"master {i}:/srv/é", active=int(i < 2), last_active=2**31 - 1)
            for i in range(4)
        ]
        self.projects = [
            self.named(
                t.projects,
                name,
                slug=name,
                description=self.maybe(WORDS),
                description_format=self.maybe(("markdown", "")),
                description_html=self.maybe(WORDS),
            )
            for name in IDENTIFIERS[:5]
        ]
        tags = [self.named(t.tags, name) for name in NAMES[:8]]
        self.builders = [
            self.named(
                t.builders,
                name,
                projectid=self.maybe(self.projects[:-1]),
                description=self.maybe(WORDS),
                description_format=self.maybe(("markdown", "")),
                description_html=self.maybe(WORDS),
            )
            for name in NAMES
        ]
        homes = []
        for builderid in self.builders:
            for tagid in self.some(tags):
                self.add(t.builders_tags, builderid=builderid, tagid=tagid)
            for masterid in self.some(self.masters):
                home = self.add(t.builder_masters, builderid=builderid, masterid=masterid)
                homes.append(home)
        self.workers = [self.worker(name, homes) for name in ("w", "w-2", "wörker 3", "9", "w.4")]
        for name in NAMES[:9]:
            schedulerid = self.named(t.schedulers, name, enabled=self.flag())
            for masterid in self.some(self.masters, 1):
                self.add(t.scheduler_masters, schedulerid=schedulerid, masterid=masterid)
            sourceid = self.named(t.changesources, name)
            for masterid in self.some(self.masters, 1):
                self.add(t.changesource_masters, changesourceid=sourceid, masterid=masterid)

    def worker(self, name: str, homes: Sequence[int]) -> int:
        """Make a worker that is configured and connected here and there."""
        info = {"admin": self.one(WORDS), "version": self.one(VALUES), "é": [1, None]}
        workerid = self.add(
            t.workers,
            name=name,
            info=json.dumps(self.one(({}, info))),
            paused=self.flag(),
            pause_reason=self.maybe(WORDS),
            graceful=self.flag(),
        )
        for home in self.some(homes, 8):
            self.add(t.configured_workers, buildermasterid=home, workerid=workerid)
        for masterid in self.some(self.masters):
            self.add(t.connected_workers, masterid=masterid, workerid=workerid)
        return workerid

    def sources(self) -> None:
        """Source stamps, with patches and without, and changes, one after the other and not."""
        self.stamps: list[int] = []
        self.places: dict[str, list[int]] = {codebase: [] for codebase in CODEBASES}
        seen = set()
        for _ in range(60):
            stamp = self.stamp()
            if stamp["ss_hash"] not in seen:
                seen.add(stamp["ss_hash"])
                self.stamps.append(self.add(t.sourcestamps, **stamp))
                self.places[stamp["codebase"]].append(self.stamps[-1])
        self.chains_of: dict[str, list[int]] = {codebase: [] for codebase in CODEBASES}
        for _ in range(80):
            self.change()

    def stamp(self) -> dict[str, Any]:
        """Return a source stamp as a row."""
        patchid = None
        if self.flag(0.2):
            patchid = self.add(
                t.patches,
                patchlevel=self.one((0, 1, 2)),
                patch_base64=base64.b64encode(self.one(WORDS).encode()).decode(),
                patch_author=self.one(WORDS),
                patch_comment=self.one(WORDS),
                subdir=self.maybe(WORDS),
            )
        codebase = self.one(CODEBASES)
        what = {
            "branch": self.maybe(("main", "Main", *WORDS)),
            "revision": self.maybe([f"{codebase:0>8}{i:032x}" for i in range(20)]),
            "repository": self.one(("git://x", "", "é")),
            "project": self.one(("", "p", "P")),
            "codebase": codebase,
            "patchid": patchid,
        }
        return {**what, "ss_hash": ss_hash(**what), "created_at": self.one(TIMES)}

    def change(self) -> None:
        """Make a change."""
        stampid = self.one(self.stamps)
        stamp = self.connection.execute(
            sa.select(t.sourcestamps).where(t.sourcestamps.c.id == stampid)
        ).one()
        same = {n: getattr(stamp, n) for n in ("repository", "codebase", "project", "revision")}
        changeid = self.add(
            t.changes,
            **same,
            branch=shortened(stamp.branch, 255) if stamp.branch is not None else None,
            author=self.one(WORDS),
            committer=self.maybe(WORDS),
            comments=self.one(WORDS),
            revlink=self.maybe(WORDS),
            when_timestamp=self.one(TIMES),
            category=self.maybe(WORDS),
            sourcestampid=stampid,
            # A chain stays in its codebase.
            parent_changeids=self.maybe(self.chains_of[stamp.codebase][-5:]),
        )
        self.chains_of[stamp.codebase].append(changeid)
        for name in self.some(WORDS):
            self.add(t.change_files, changeid=changeid, filename=name)
        for name in self.some(WORDS):
            # Masters store no other source.
            pair = json.dumps([self.one(VALUES), "Change"])
            self.add(
                t.change_properties, changeid=changeid, property_name=name, property_value=pair
            )

    def followed(self) -> None:
        """Codebases whose commits are followed: trees with several roots and branches."""
        for projectid in self.projects[:3]:
            for name in self.some(IDENTIFIERS, 3):
                codebaseid = self.named(
                    t.codebases, name, projectid=projectid, slug=f"s_{name}"[:50]
                )
                commits: list[int] = []
                for number in range(self.one((0, 3, 25))):
                    commits.append(
                        self.add(
                            t.codebase_commits,
                            codebaseid=codebaseid,
                            author=self.one(WORDS),
                            committer=self.maybe(WORDS),
                            comments=self.one(WORDS),
                            when_timestamp=self.one(TIMES),
                            revision=f"{'app':0>8}{number:032x}",
                            parent_commitid=self.one(commits[-4:])
                            if commits and self.flag(0.9)
                            else None,
                        )
                    )
                for branch in self.some(("main", "Main", *WORDS)):
                    self.named(
                        t.codebase_branches,
                        branch,
                        codebaseid=codebaseid,
                        commitid=self.maybe(commits),
                        last_timestamp=self.one(TIMES),
                    )

    def wishes(self) -> None:
        """Sets of build requests: complete, waiting, claimed by whichever master."""
        self.requests: list[tuple[int, int]] = []
        self.sets: list[int] = []
        for _ in range(150):
            complete = self.flag(0.7)
            bsid = self.add(
                t.buildsets,
                external_idstring=self.maybe(WORDS),
                reason=self.maybe(WORDS),
                submitted_at=self.one(TIMES),
                complete=complete,
                complete_at=self.one(TIMES) if complete else None,
                results=self.one(RESULTS) if complete else -1,
                parent_relationship=self.maybe(("Triggered from", "")),
            )
            self.sets.append(bsid)
            for codebase in self.some(CODEBASES):
                stampid = self.one(self.places[codebase])
                self.add(t.buildset_sourcestamps, buildsetid=bsid, sourcestampid=stampid)
            for name in self.some(NAMED):
                pair = json.dumps([self.one(VALUES), self.one(SOURCES)])
                self.add(
                    t.buildset_properties, buildsetid=bsid, property_name=name, property_value=pair
                )
            for builderid in self.some(self.builders):
                self.requests.append((self.request(bsid, builderid, complete), builderid))

    def request(self, bsid: int, builderid: int, whole: int) -> int:
        """Make a request; those of a complete set are complete."""
        complete = whole or self.flag(0.3)
        brid = self.add(
            t.buildrequests,
            buildsetid=bsid,
            builderid=builderid,
            priority=self.one(NUMBERS),
            complete=complete,
            results=self.one(RESULTS) if complete else -1,
            submitted_at=self.one(TIMES),
            complete_at=self.one(TIMES) if complete else None,
            waited_for=self.flag(),
        )
        if self.flag(0.8):
            self.add(
                t.buildrequest_claims,
                brid=brid,
                masterid=self.one(self.masters),
                claimed_at=self.one(TIMES),
            )
        return brid

    def deeds(self) -> None:
        """Builds of requests, with steps, logs, properties, data and test results."""
        numbers: dict[int, int] = {}
        self.builds: list[int] = []
        for brid, builderid in self.requests:
            for _ in range(self.one((0, 1, 1, 1, 2))):
                # A number may have been lost.
                numbers[builderid] = numbers.get(builderid, 0) + self.one((1, 1, 1, 2))
                self.builds.append(self.build(brid, builderid, numbers[builderid]))

    def build(self, brid: int, builderid: int, number: int) -> int:
        """Make a build, and what it has."""
        complete = self.flag(0.9)
        buildid = self.add(
            t.builds,
            number=number,
            builderid=builderid,
            buildrequestid=brid,
            workerid=self.maybe(self.workers),
            masterid=self.one(self.masters),
            started_at=self.one(TIMES),
            complete_at=self.one(TIMES) if complete else None,
            locks_duration_s=self.one((0, 3, 2**31 - 1)),
            state_string=self.one(("build successful", *WORDS)),
            results=self.one(RESULTS) if complete else None,
        )
        for name in self.some(NAMED, 6):
            value = json.dumps(self.one(VALUES))
            self.add(
                t.build_properties,
                buildid=buildid,
                name=name,
                value=value,
                source=self.one(SOURCES),
            )
        for name in self.some(IDENTIFIERS):
            value = self.random.randbytes(self.one((0, 1, 300)))
            self.add(
                t.build_data,
                buildid=buildid,
                name=name,
                value=value,
                length=len(value),
                source=self.one(SOURCES),
            )
        for place, name in enumerate(self.some((*IDENTIFIERS, "a b", "日本", "é", "9"), 4)):
            self.step(buildid, builderid, place, name)
        return buildid

    def step(self, buildid: int, builderid: int, number: int, name: str) -> None:
        """Make a step, and what it has."""
        complete = self.flag(0.9)
        urls = [{"name": self.one(WORDS), "url": self.one(WORDS)} for _ in self.some("ab")]
        stepid = self.add(
            t.steps,
            number=number,
            name=name,
            buildid=buildid,
            started_at=self.one(TIMES) if complete else self.maybe(TIMES),
            locks_acquired_at=self.maybe(TIMES),
            complete_at=self.one(TIMES) if complete else None,
            state_string=self.one(WORDS),
            results=self.one(RESULTS) if complete else None,
            urls_json=json.dumps(urls),
            hidden=self.flag(),
        )
        slugs: set[str] = set()
        for log in self.some(("stdio", "Stdio", "report.html", "a b", "1st", "é"), 2):
            slugs.add(self.log(stepid, log, free_slug(log, slugs)))
        for _ in range(self.one((0, 0, 0, 1, 2))):
            self.tests(builderid, buildid, stepid)

    def log(self, stepid: int, name: str, slug: str) -> str:
        """Make a log, its lines in chunks of any size and compression; return its slug."""
        kind = self.one("ssthd")
        mark = "oeh" if kind == "s" else [""]
        lines = [self.one(mark) + self.one(LINES) for _ in range(self.one((0, 1, 2, 30)))]
        logid = self.add(
            t.logs,
            name=name,
            slug=slug,
            stepid=stepid,
            complete=self.flag(0.9),
            num_lines=len(lines),
            type=kind,
        )
        for first, part in self.cut([] if kind == "d" else lines):
            method = METHODS[self.one(list(METHODS))]
            self.add(
                t.logchunks,
                logid=logid,
                first_line=first,
                last_line=first + len(part) - 1,
                content=method.compress("\n".join(part).encode()),
                compressed=method.number,
            )
        return slug

    def cut(self, lines: list[str]) -> Iterator[tuple[int, list[str]]]:
        """Yield the lines in portions, with the number of the first."""
        first = 0
        while first < len(lines):
            size = self.random.randint(1, 12)
            yield first, lines[first : first + size]
            first += size

    def tests(self, builderid: int, buildid: int, stepid: int) -> None:
        """Make a set of test results."""
        setid = self.add(
            t.test_result_sets,
            builderid=builderid,
            buildid=buildid,
            stepid=stepid,
            description=self.maybe(WORDS),
            category=self.one(WORDS),
            value_unit=self.one(("boolean", "ms", "")),
            tests_passed=self.maybe(NUMBERS),
            tests_failed=self.maybe(NUMBERS),
            complete=self.flag(),
        )
        for _ in range(self.one((0, 1, 4))):
            named = self.maybe(WORDS)
            placed = self.maybe(WORDS)
            self.add(
                t.test_results,
                builderid=builderid,
                test_result_setid=setid,
                test_nameid=None
                if named is None
                else self.add(t.test_names, builderid=builderid, name=named),
                test_code_pathid=None
                if placed is None
                else self.add(t.test_code_paths, builderid=builderid, path=placed),
                line=self.maybe(NUMBERS),
                duration_ns=self.maybe(NUMBERS),
                value=self.one(WORDS),
            )

    def chains(self) -> None:
        """Say which sets were triggered, and which rebuilt, by which build."""
        for bsid in self.sets:
            self.connection.execute(
                sa.update(t.buildsets)
                .where(t.buildsets.c.id == bsid)
                .values(
                    parent_buildid=self.maybe(self.builds), rebuilt_buildid=self.maybe(self.builds)
                )
            )


def fill(url: str, seed: int) -> None:
    """Make the tables of a new database, and the rows of this seed."""
    system = connector(url, read_only=False, busy_timeout_s=5)
    with contextlib.closing(system.inspector()) as connection:
        opened(system.alchemy(connection), system.BEGIN, writable=True)
    engine = sa.create_engine(url)
    with engine.begin() as connection:
        House(connection, seed).fill()
    engine.dispose()


if __name__ == "__main__":
    fill(sys.argv[1], int(sys.argv[2]))
