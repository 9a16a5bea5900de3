"""``scripts/soak``: kill, resume, compare; prints figures, and fails if anything is lost."""

from __future__ import annotations

import argparse
import contextlib
import importlib
import random
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from soaking.clients import ROADS, TOPICS, Client, matches
from soaking.followers import FOLLOWERS, Follower
from soaking.verdict import Stored, acknowledged, complaints
from soaking.visitor import Visitor

ROOT = Path(__file__).parent.parent.parent
PATIENCE_S = 120.0
EARLY = 0.1


def options(argv: list[str]) -> argparse.Namespace:
    """Return the options."""
    parser = argparse.ArgumentParser(prog="scripts/soak", description=__doc__)
    parser.add_argument("--kills", type=int, default=10, help="how often the server dies (10)")
    parser.add_argument("--clients", type=int, default=20, help="how many clients listen (20)")
    parser.add_argument("--followers", type=int, default=8, help="how many follow logs (8)")
    parser.add_argument("--builds", type=int, default=5, help="how many builds run at once (5)")
    parser.add_argument("--longest", type=float, default=2.0, help="longest life, seconds (2)")
    parser.add_argument("--db", choices=("sqlite", "postgresql", "mariadb"), default="sqlite")
    parser.add_argument("--seed", type=int, default=random.randrange(10**6))
    return parser.parse_args(argv)


@contextlib.contextmanager
def database(kind: str, folder: Path) -> Iterator[str]:
    """Give the URL of a new database; servers are those of the tests."""
    if kind == "sqlite":
        yield f"sqlite:///{folder}/state.sqlite"
        return
    sys.path.append(str(ROOT / "test"))
    name = {"postgresql": "PostgreSQL", "mariadb": "MariaDB"}[kind]
    server = getattr(importlib.import_module("conftest").loaded()[f"test.{kind}"], name)()
    try:
        yield server.fresh_database()
    finally:
        server.close()


class Soak:
    """One run.  ``starts``: how long the master took until it was ready, each time."""

    def __init__(self, chosen: argparse.Namespace, url: str, folder: Path) -> None:
        self.starts: list[float] = []
        self.told = folder / "acknowledged"
        self.told.touch()
        self.stored = Stored(url)
        self._chosen = chosen
        self._url = url
        self._errors = folder / "errors"
        self._random = random.Random(chosen.seed)
        with socket.create_server(("127.0.0.1", 0)) as probe:
            self._port: int = probe.getsockname()[1]
        self.clients: list[Client] = [
            ROADS[n % len(ROADS)](
                self._port, TOPICS[n // len(ROADS) % len(TOPICS)], chosen.seed + n
            )
            for n in range(chosen.clients)
        ]
        self.followers: list[Follower] = [
            FOLLOWERS[n % len(FOLLOWERS)](self._port, chosen.seed + chosen.clients + n)
            for n in range(chosen.followers)
        ]
        self._visitors: list[Visitor] = [*self.clients, *self.followers]

    def run(self) -> None:
        """Kill the master so many times; let it end at last, and the clients catch up."""
        for number in range(self._chosen.kills):
            # Now and then it dies while it starts.
            early = number > 0 and self._random.random() < EARLY
            with self._master(self._chosen.builds, wait=not early) as process:
                if number == 0:
                    for visitor in self._visitors:
                        visitor.start()
                time.sleep(self._random.uniform(0, self._chosen.longest))
                process.kill()
        with self._master(self._chosen.builds) as process:
            time.sleep(1)
            process.send_signal(signal.SIGTERM)
            process.wait(PATIENCE_S)
        with self._master(0):
            self._catch_up()

    def _catch_up(self) -> None:
        events = self.stored.events()
        for client in self.clients:
            own = (seq for seq, event in events.items() if matches(client.topic, event[0]))
            client.target = max(own, default=0)
        for follower in self.followers:
            follower.enough.set()
        until = time.monotonic() + PATIENCE_S
        for visitor in self._visitors:
            visitor.join(max(0.0, until - time.monotonic()))
            visitor.given_up.set()

    @contextlib.contextmanager
    def _master(self, builds: int, *, wait: bool = True) -> Iterator[subprocess.Popen[str]]:
        command = [sys.executable, "-m", "soaking.master", self._url, str(self._port)]
        began = time.monotonic()
        with (
            self._errors.open("a") as errors,
            subprocess.Popen(
                [*command, str(self.told), str(builds)],
                stdout=subprocess.PIPE,
                stderr=errors,
                text=True,
            ) as process,
        ):
            try:
                assert process.stdout is not None
                if wait and process.stdout.readline() != "ready\n":
                    raise SystemExit(f"the master did not start:\n{self._errors.read_text()}")
                if wait:
                    self.starts.append(time.monotonic() - began)
                yield process
            finally:
                process.kill()

    def report(self) -> Iterator[str]:
        """Give the figures."""
        told, updates = acknowledged(self.told)
        yield f"kills                    {self._chosen.kills:>10,}"
        yield f"builds finished          {len(told.get(('builds', 'results'), {})):>10,}"
        yield f"logs                     {len(told.get(('logs', 'stepid'), {})):>10,}"
        yield f"acknowledged updates     {updates:>10,}"
        yield f"events in the log        {self.stored.newest():>10,}"
        middle, longest = statistics.median(self.starts), max(self.starts)
        yield f"start until ready, s     {middle:>10.2f}   longest {longest:.2f}"
        for road in ROADS:
            mine = [client for client in self.clients if client.road == road.road]
            events, repeated = _sum(mine, "received"), _sum(mine, "repeated")
            yield f"{_visits(mine, 'clients')}, {events:,} events, {repeated:,} repeated"
        for way in FOLLOWERS:
            some = [follower for follower in self.followers if follower.road == way.road]
            logs = sum(len(follower.ended) for follower in some)
            lines, resumed = _sum(some, "received"), _sum(some, "resumed")
            followed = f"{logs:,} logs to the end, {lines:,} lines, {resumed:,} resumed"
            yield f"{_visits(some, 'followers')}, {followed}"


def _visits(visitors: Sequence[Visitor], kind: str) -> str:
    road = visitors[0].road if visitors else "nobody"
    return (
        f"{road:<12} {len(visitors)} {kind}: {_sum(visitors, 'connections')} connections, "
        f"{_sum(visitors, 'lost')} lost, {_sum(visitors, 'stalls')} stalls"
    )


def _sum(visitors: Sequence[Visitor], name: str) -> int:
    return sum(getattr(visitor, name) for visitor in visitors)


def main(argv: list[str]) -> int:
    """Run, print, and say whether all is well."""
    chosen = options(argv)
    folder = Path(tempfile.mkdtemp(prefix="buildapi-soak-"))
    print(f"soak: {chosen.kills} kills on {chosen.db}, seed {chosen.seed}, in {folder}", flush=True)
    with database(chosen.db, folder) as url:
        soak = Soak(chosen, url, folder)
        soak.run()
        print("\n".join(soak.report()))
        wrong = list(complaints(soak.stored, soak.clients, soak.followers, soak.told))
    for sentence in wrong[:50]:
        print(f"WRONG: {sentence}")
    if wrong:
        print(f"{len(wrong)} complaints; see {folder}")
        return 1
    shutil.rmtree(folder)
    print("nothing was missed, nothing came twice, nothing acknowledged was lost")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
