"""The command line of ``scripts/bench``."""

from __future__ import annotations

import argparse
import json
import resource
import shutil
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks import (
    databases,
    following,
    measure,
    report,
    servers,
    setup,
    stalled,
    streams,
    table,
)
from benchmarks.databases import Data
from benchmarks.measure import Effort, Results
from benchmarks.processes import DidNotStart, Processes, processes
from benchmarks.servers import Server

CHAPTERS = {
    "rest": measure.rest,
    "reads": measure.all_reads,
    "busy": measure.busy,
    "appends": measure.appends,
    "follower": following.followers,
    "crowd": following.crowds,
    "bus": streams.bus,
    "fanout": streams.fanout,
    "returning": streams.returning,
    "stalled": stalled.stalled,
}
DATABASES: dict[str, type[Data]] = {
    "sqlite": databases.SQLiteFile,
    "postgresql": databases.PostgreSQL,
    "mariadb": databases.MariaDB,
}
PEERS = ("buildbot", "klein", "twisted")

EPILOG = """\
Every server runs on 127.0.0.1, on its own copy of the same generated database. All are there at
once and are asked in turn, so that a ratio compares figures of the same minutes. Buildbot's
failures are told and do not count; any other wrong answer makes the exit status 1. A missed aim
does not: times depend on the machine.
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run what was asked for and print the table."""
    given = _parser().parse_args(arguments)
    effort = Effort(
        database=given.db,
        builds=round(given.builds * given.scale),
        rounds=1 if given.quick else 5,
        load_s=1 if given.quick else 2,
        most_append_s=3 if given.quick else 6,
        pace_s=1 if given.quick else 4,
    )
    # A thousand WebSockets, at both ends.
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    setup.FOLDER.mkdir(exist_ok=True)
    with setup.alone():
        return _run(given, effort)


def _run(given: argparse.Namespace, effort: Effort) -> int:
    setup.wrk()
    facts, results = report.machine(effort), Results()
    run = setup.FOLDER / "run"
    shutil.rmtree(run, ignore_errors=True)
    with processes(run / "logs") as running:
        data = DATABASES[given.db](run, effort.builds)
        data.prepare()
        try:
            _measure(given, run, data, running, effort, results)
        finally:
            data.close()
    _print(facts, results)
    if given.json:
        given.json.write_text(json.dumps(report.as_json(facts, results), indent=2) + "\n")
    return 1 if any(not wrong.startswith("buildbot:") for wrong in results.wrong) else 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="scripts/bench",
        description="Measure buildapi beside Buildbot, bare Klein and bare twisted.web.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--quick",
        action="store_true",
        help="one short round: five minutes (else five long ones: most of an hour)",
    )
    chapters = "these chapters; default: all"
    parser.add_argument("--only", nargs="+", choices=CHAPTERS, help=chapters)
    parser.add_argument("--without", action="append", choices=PEERS, default=[], help="leave out")
    parser.add_argument("--builds", type=int, default=50_000, help="size of the database (50000)")
    parser.add_argument("--scale", type=float, default=1, help="so many times that size (1)")
    parser.add_argument("--db", choices=DATABASES, default="sqlite", help="where it is (sqlite)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures there, too")
    return parser


def _measure(
    given: argparse.Namespace,
    run: Path,
    data: Data,
    running: Processes,
    effort: Effort,
    results: Results,
) -> None:
    peers = [peer for peer in PEERS if peer not in given.without]
    casts = {
        "rest": ("buildapi", *peers),
        "appends": ("embedder", *(peer for peer in peers if peer == "buildbot")),
    }
    casts["bus"] = ()
    casts["returning"] = casts["crowd"] = casts["stalled"] = ("embedder",)
    casts["follower"] = casts["fanout"] = casts["appends"]
    casts["reads"] = ("buildapi", *(peer for peer in peers if peer == "buildbot"))
    casts["busy"] = ("buildapi", *(peer for peer in peers if peer == "twisted"))
    for name in given.only or CHAPTERS:
        cast = _started(
            [getattr(servers, maker)(run, data) for maker in casts[name]], running, results
        )
        for doing in CHAPTERS[name](cast, running, effort, results):
            setup.say(doing)
        running.stop_all()


def _started(cast: list[Server], running: Processes, results: Results) -> list[Server]:
    """Start the servers and return those that did; the others are told of in the end."""
    started = []
    for server in cast:
        try:
            server.start(running)
            started.append(server)
        except DidNotStart as error:
            results.wrong.append(str(error))
    return started


def _print(facts: dict[str, Any], results: Results) -> None:
    effort = facts["effort"]
    rounds = effort["rounds"]
    print(
        f"{facts['cores']} cores, Python {facts['python']}, {facts['database']}, "
        f"load by {facts['load']}; {effort['builds']:,} builds; "
        f"{f'the middle one of {rounds} rounds' if rounds > 1 else 'one round'}; "
        f"load average before: {facts['load_before']:.1f}\n"
    )
    print(table.drawn(report.chapters(results, effort["builds"])))
    if results.equal_rows:
        print("buildapi and Buildbot gave the same rows, compared as JSON values.")
    for note in results.notes:
        print(f"NOTE: {note}")
    for wrong in results.wrong:
        print(f"WRONG: {wrong}")


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        setup.say("stopped; every server has been ended")
        sys.exit(128 + signal.SIGINT)
