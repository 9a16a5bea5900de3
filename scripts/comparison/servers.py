"""The two servers, each on its own copy of the same rows."""

from __future__ import annotations

import contextlib
import http.client
import importlib
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.processes import Processes, free_port, processes
from benchmarks.setup import FOLDER, ROOT, buildbot_venv

from comparison.rows import fill

SYSTEMS = {"sqlite": "", "postgresql": "PostgreSQL", "mariadb": "MariaDB"}
# Names that differ in case or blanks only are different here.
COLLATIONS = {"mariadb": "utf8mb4_nopad_bin"}


@dataclass(frozen=True)
class Both:
    """Where they listen, and the file that Buildbot's rows are in."""

    buildbot: str
    buildapi: str
    rows: Path


@contextlib.contextmanager
def both(folder: Path, seed: int, system: str) -> Iterator[Both]:
    """Have them serve the rows of a seed; buildapi's are in a database of ``system``."""
    FOLDER.mkdir(exist_ok=True)
    home, ours = folder / "buildbot", folder / "ours.sqlite"
    home.mkdir()
    rows = home / "state.sqlite"
    fill(f"sqlite:///{rows}", seed)
    with processes(folder / "logs") as running, _server(system) as moved:
        buildbot, master = _buildbot(running, home, rows)
        # Buildbot lists its forms in whatever order it came to set them up.
        forms = [form["name"] for form in _got(buildbot, "forceschedulers")["forceschedulers"]]
        # A master that starts puts its own rows in order; the copy has them, too.
        shutil.copyfile(rows, ours)
        url = f"sqlite:///{ours}"
        if moved is not None:
            copy = [sys.executable, "-m", "buildapi", "db", "copy", "--from", url, "--to", moved]
            subprocess.run(copy, check=True, env=_environment(), stdout=subprocess.DEVNULL)
            url = moved
        yield Both(buildbot, _buildapi(running, url, master, *forms), rows)


@contextlib.contextmanager
def _server(system: str) -> Iterator[str | None]:
    """Start a server of the tests; give the URL of a database there."""
    if system == "sqlite":
        yield None
        return
    sys.path.append(str(ROOT / "test"))
    modules = importlib.import_module("conftest").loaded()
    server = getattr(modules[f"test.{system}"], SYSTEMS[system])()
    try:
        yield server.fresh_database(COLLATIONS.get(system))
    finally:
        server.close()


def _environment() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'scripts'}"}


def _buildbot(running: Processes, home: Path, rows: Path) -> tuple[str, str]:
    """Start Buildbot; return where it listens, and its master's name."""
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    twistd = [str(buildbot_venv() / "bin" / "twistd"), "--nodaemon", "--no_save", "--pidfile="]
    script = Path(__file__).with_name("buildbot_master.py")
    given = {
        "COMPARE_DB_URL": f"sqlite:///{rows}",
        "COMPARE_PORT": str(port),
        "COMPARE_BASEDIR": str(home),
    }
    running.start(
        *("buildbot", [*twistd, "--python", str(script)]),
        ready=lambda: _own_master(url, home) is not None,
        env=given,
        cwd=home,
    )
    return url, str(_own_master(url, home))


def _buildapi(running: Processes, url: str, *master: str) -> str:
    port = free_port()
    where = f"http://127.0.0.1:{port}"
    running.start(
        "buildapi",
        [sys.executable, "-m", "comparison.obedient", url, str(port), *master],
        ready=lambda: _got(where, "masters") is not None,
        env=_environment(),
    )
    return where


def _own_master(url: str, home: Path) -> str | None:
    """Return the name of the master that serves, once it has its builders and schedulers."""
    masters = (_got(url, "masters?active=true") or {}).get("masters", [])
    own = [one for one in masters if one["name"].endswith(f":{home}")]
    for master in own:
        path = f"masters/{master['masterid']}"
        builders = _got(url, f"{path}/builders") or {"builders": []}
        schedulers = _got(url, f"{path}/schedulers") or {"schedulers": []}
        workers = _got(url, f"{path}/workers") or {"workers": []}
        if builders["builders"] and len(schedulers["schedulers"]) > 1 and workers["workers"]:
            return str(master["name"])
    return None


def _got(url: str, path: str) -> Any:
    """Return the JSON that a server answers; None if it does not answer yet."""
    host = url.removeprefix("http://")
    try:
        with contextlib.closing(http.client.HTTPConnection(host, timeout=20)) as connection:
            connection.request("GET", f"/api/v2/{path}")
            answer = connection.getresponse()
            return json.load(answer) if answer.status == http.HTTPStatus.OK else None
    except OSError:
        return None
