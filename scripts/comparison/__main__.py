"""The command line of ``scripts/compare``."""

from __future__ import annotations

import argparse
import collections
import itertools
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from comparison.calls import Calls
from comparison.judging import Judge, Question, Verdict
from comparison.questions import Questions
from comparison.servers import SYSTEMS, Both, both


def parser() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    found = argparse.ArgumentParser(
        prog="scripts/compare",
        description="Ask Buildbot 4.3 and buildapi the same random requests about the same rows.",
        epilog="Exit status 1 if an answer differs where the contract does not say so.",
    )
    found.add_argument("--seeds", type=int, nargs="+", default=[1], help="each a database (1)")
    found.add_argument("--rounds", type=int, default=10, help="how often each path is taken (10)")
    found.add_argument("--calls", type=int, default=300, help="how many POSTs (300)")
    found.add_argument("--db", choices=SYSTEMS, default="sqlite", help="where buildapi's rows are")
    found.add_argument("--show", type=int, default=4, help="differences shown of each path (4)")
    return found


def verdicts(servers: Both, seed: int, rounds: int, calls: int) -> Iterator[Verdict]:
    """Ask everything; the calls come last, for they change things."""
    judge = Judge(servers.buildbot, servers.buildapi)
    questions = Questions(servers.rows, judge.model.specs, seed)
    seen: set[str] = set()
    for path, pattern in questions.paths(rounds):
        items = judge.learn(path) if questions.is_list(pattern) else None
        if path not in seen:
            seen.add(path)
            yield judge.judge(Question(path, pattern))
        if items is None and questions.is_list(pattern):
            continue
        for _ in range(2):
            query = questions.query(pattern, items)
            # The rules need the whole list as it is with these properties.
            wanted = [pair for pair in query.split("&") if pair.startswith("property=")]
            if wanted and items is not None and judge.learn(f"{path}?{'&'.join(wanted)}") is None:
                continue
            yield judge.judge(questions.question(path, pattern, query))
    for question in itertools.islice(Calls(servers.rows, seed).questions(), calls):
        yield judge.judge(question)


def report(found: Sequence[Verdict], show: int) -> Iterator[str]:
    """Say what differs, and how much was asked."""
    wrong = collections.defaultdict(list)
    for one in found:
        if not one.right:
            wrong[one.question.method, one.question.pattern, one.rule].append(one)
    for (method, pattern, rule), some in sorted(wrong.items(), key=lambda pair: -len(pair[1])):
        yield f"{len(some):5} {method} /{pattern}  [{rule}]"
        for one in some[:show]:
            asked = one.question
            headers = {k: v for k, v in asked.headers.items() if asked.category != "badpath"}
            yield f"        /{asked.path[:300]} {headers or ''} {(asked.body or '')[:300]}"
            yield f"            {one.why[:400]}"
    rules = collections.Counter(one.rule for one in found if one.rule)
    yield f"by rule: {', '.join(f'{rule} {count}' for rule, count in rules.most_common())}"
    right = sum(one.right for one in found)
    yield f"{right}/{len(found)} = {100 * right / len(found):.2f}% are as the contract says"


def main(arguments: Sequence[str] | None = None) -> int:
    """Compare, print, and say whether all is well."""
    given = parser().parse_args(arguments)
    status = 0
    for seed in given.seeds:
        began = time.monotonic()
        with (
            tempfile.TemporaryDirectory(prefix="buildapi-compare-") as folder,
            both(Path(folder), seed, given.db) as servers,
        ):
            found = list(verdicts(servers, seed, given.rounds, given.calls))
        print(f"seed {seed} on {given.db}, {time.monotonic() - began:.0f} s")
        print("\n".join(report(found, given.show)), flush=True)
        status |= not all(one.right for one in found)
    return status


if __name__ == "__main__":
    sys.exit(main())
