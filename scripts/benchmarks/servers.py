"""The servers that are compared: how each is started on its own copy of the data, and asked."""

from __future__ import annotations

import http.client
import json
import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from email.message import Message
from pathlib import Path
from typing import Any

from benchmarks import setup
from benchmarks.databases import Data
from benchmarks.processes import Processes, free_port, listens

# Asked before each load: connections, caches and compiled statements are there then.
WARM_UP = 20


@dataclass(frozen=True)
class Server:
    """
    One server.

    orders_port: where the appender listens, if it has one.
    fragile: has to be started anew before each load (see ``buildbot``).
    """

    name: str
    argv: list[str]
    folder: Path
    port: int
    orders_port: int | None = None
    env: Mapping[str, str] = field(default_factory=dict)
    fragile: bool = False

    def start(self, running: Processes) -> None:
        """Start it and wait until it answers."""
        running.start(self.name, self.argv, ready=self._ready, env=self.env, cwd=self.folder)

    def fresh(self, running: Processes, warm_path: str, most: int = WARM_UP) -> None:
        """Make it ready for a load: ask ``most`` times what will be asked."""
        if self.fragile:
            running.stop(self.name)
            self.start(running)
        for _ in range(most):
            self._answer(warm_path)

    def recover(self, running: Processes, path: str) -> None:
        """Start a fragile one again if the load before has left it unable to answer."""
        if not self.fragile:
            return
        try:
            self._answer(path)
        except OSError:
            self.fresh(running, path, most=1)

    def get(self, path: str) -> Any:
        """Return the JSON that it answers."""
        return json.loads(self._answer(path)[1])

    def etag(self, path: str) -> str | None:
        """Return the ETag of an answer; None if it has none, or another one each time."""
        etags = {self._answer(path)[0].get("ETag") for _ in range(2)}
        return etags.pop() if len(etags) == 1 else None

    def _answer(self, path: str) -> tuple[Message, bytes]:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        try:
            connection.request("GET", path, headers={"Accept": "application/json"})
            answer = connection.getresponse()
            body = answer.read()
        finally:
            connection.close()
        if answer.status != http.HTTPStatus.OK:
            raise RuntimeError(f"{self.name} answers {answer.status} to {path}: {body[:200]!r}")
        return answer.headers, body

    def _ready(self) -> bool:
        ports = [self.port, *([self.orders_port] if self.orders_port else [])]
        return all(listens(port) for port in ports)


def buildapi(run: Path, data: Data) -> Server:
    """``buildapi serve``."""
    url, port = data.copy("buildapi").buildapi, free_port()
    serve = ["serve", "--db", url, "--listen", f"tcp:{port}:interface=127.0.0.1"]
    return _python("buildapi", run, ["-m", "buildapi", *serve], port)


def embedder(run: Path, data: Data) -> Server:
    """Buildapi, embedded in a master that takes orders."""
    url, port, orders_port = data.copy("embedder").buildapi, free_port(), free_port()
    arguments = ["-m", "benchmarks.embedder", url, str(port), str(orders_port)]
    return _python("embedder", run, arguments, port, orders_port)


def buildbot(run: Path, data: Data) -> Server:
    """
    A Buildbot master that takes orders.

    It writes its answers from a thread. When a client leaves just then, its reactor keeps the dead
    socket's number, and refuses the next connection that gets it. So it is started anew each time.
    """
    folder = run / "buildbot"
    folder.mkdir(parents=True, exist_ok=True)
    url, port, orders_port = data.copy("buildbot").buildbot, free_port(), free_port()
    twistd = setup.buildbot_venv() / "bin" / "twistd"
    options = ["--nodaemon", "--no_save", "--pidfile="]
    script = Path(__file__).with_name("buildbot_master.py")
    env = {
        "PYTHONPATH": str(script.parents[1]),
        "BENCH_DB_URL": url,
        "BENCH_BASEDIR": str(folder),
        "BENCH_PORT": str(port),
        "BENCH_ORDERS_PORT": str(orders_port),
    }
    argv = [str(twistd), *options, "--python", str(script)]
    return Server("buildbot", argv, folder, port, orders_port, env, fragile=True)


def klein(run: Path, _data: Data) -> Server:
    """Bare Klein with a constant."""
    port = free_port()
    return _python("klein", run, ["-m", "benchmarks.bare", "klein", str(port)], port)


def twisted(run: Path, _data: Data) -> Server:
    """Bare twisted.web with a constant."""
    port = free_port()
    return _python("twisted", run, ["-m", "benchmarks.bare", "twisted", str(port)], port)


def _python(
    name: str, run: Path, arguments: list[str], port: int, orders_port: int | None = None
) -> Server:
    folder = run / name
    folder.mkdir(parents=True, exist_ok=True)
    places = [str(setup.ROOT), str(setup.ROOT / "scripts")]
    env = {"PYTHONPATH": os.pathsep.join(places)}
    return Server(name, [sys.executable, *arguments], folder, port, orders_port, env)
