"""What is read in the chapters "reads" and "busy", and what is aimed at."""

from __future__ import annotations

from dataclasses import dataclass

from benchmarks.generate import BUILDERS, STEPS, big_log

API = "/api/v2"
ROW = f"{API}/builds/{{id}}"
LIST = f"{API}/builds?limit=50&order=-buildid"
# A builder without anything odd in its name.
BUILDER = 7
# Of how many rows one may be the first of a page.
PAGES = 1_000


@dataclass(frozen=True)
class Read:
    """
    A request that is compared.

    path: may hold ``{id}``, a number from 1 to ``most``.  aim: how many times Buildbot's rate.
    megabytes: what counts is not how many answers come, but how much.
    unchanged: asked with the ETag of an earlier answer.
    """

    name: str
    path: str
    aim: float | None
    connections: int = 16
    most: int = 1
    megabytes: bool = False
    unchanged: bool = False


def reads(builds: int) -> tuple[Read, ...]:
    """Return all of them, for a database of so many builds."""
    newest = f"{API}/builds?order=-buildid&limit=50"
    filtered = f"complete=true&results=2&builderid={BUILDER}"
    by_number = f"{API}/builders/{BUILDER}/builds/{{id}}/steps/{len(STEPS) - 1}/logs/stdio"
    by_name = f"{API}/builders/builder-{BUILDER}/builds/{{id}}/steps/{STEPS[-1]}/logs/stdio"
    numbers = builds // BUILDERS
    changes = f"{API}/changes?limit=50&order=-changeid"
    # What was answered before is answered from memory: these show what it costs to read.
    any_page = "&offset={id}"
    return (
        Read("single build", ROW, 12, most=builds),
        Read("list of 50 builds", newest, 70),
        Read("  each time another page", newest + any_page, None, most=PAGES),
        Read("  with property=*", f"{newest}&property=*", 130),
        Read("    each time another page", f"{newest}&property=*{any_page}", None, most=PAGES),
        Read("  filtered by builder and results", f"{newest}&{filtered}", None),
        Read("  unchanged (304)", newest, None, unchanged=True),
        Read("deep path by numbers", by_number, 15, most=numbers),
        Read("deep path by names", by_name, 15, most=numbers),
        Read("50 changes", changes, 60),
        Read("  each time other changes", changes + any_page, None, most=PAGES),
        Read("all builders", f"{API}/builders", 20),
        Read("raw log, MB/s", f"{API}/logs/{big_log(builds)}/raw", 15, 2, megabytes=True),
    )


def heaviest(builds: int) -> tuple[str, ...]:
    """Return the paths that cost most; they are asked for while a cheap read is measured."""
    big = big_log(builds)
    return (
        f"{API}/builds?property=*",
        f"{API}/builds?order=state_string",
        f"{API}/builds?order=-state_string&property=*&limit=1000",
        f"{API}/builds?state_string__contains=nowhere",
        f"{API}/changes?comments__contains=nowhere&order=author",
        f"{API}/logs/{big}/raw",
        f"{API}/logs/{big}/contents",
    )
