"""
The real Buildbot 4.3, as a black box: its command line and its REST API, in an environment of its
own, which ``scripts/bench`` uses too.

The first test that asks for the fixture ``buildbot`` has it installed from the package index, which
takes a quarter of a minute; it stays in ``.bench`` for the next run.
"""

from __future__ import annotations

import fcntl
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import pytest
import sqlalchemy as sa

from test.kept import Kept, free_port

ROOT = Path(__file__).parents[1]
INSTALL = "from benchmarks.setup import buildbot_venv; buildbot_venv()"
ENVIRONMENT = ROOT / ".bench" / "buildbot-venv"
# What Buildbot calls the systems, with the drivers that it knows.
SCHEMES = {"postgresql+psycopg": "postgresql+psycopg2", "mariadb+pymysql": "mysql+pymysql"}
CONFIGURATION = """\
BuildmasterConfig = {{
    "db": {{"db_url": {url!r}}},
    "www": {{"port": "tcp:{port}:interface=127.0.0.1"}},
    "protocols": {{}},
    "multiMaster": True,
    "buildbotNetUsageData": None,
}}
"""
# Its commands look for the name in quotes of this kind.
APPLICATION = """\
from buildbot.master import BuildMaster
from twisted.application.service import Application

application = Application('buildmaster')
BuildMaster({base!r}, "master.cfg").setServiceParent(application)
"""

# InnoDB counts the foreign keys that nobody named, in the order in which they came.
COUNTED = re.compile(r"_ibfk_\d+$")
# What is asked about each table besides its columns; the order of the answers means nothing.
LISTS: dict[str, Callable[[sa.Inspector, str], Any]] = {
    "indexes": sa.Inspector.get_indexes,
    "unique constraints": sa.Inspector.get_unique_constraints,
    "foreign keys": sa.Inspector.get_foreign_keys,
    "check constraints": sa.Inspector.get_check_constraints,
}


class Buildbot:
    """Runs masters, each in a directory that is removed after the test."""

    def __init__(self, program: Path) -> None:
        self._program = str(program)
        # The files of its web UI.
        (self.ui,) = program.parents[1].glob("lib/python3*/site-packages/buildbot_www/static")

    def create(self, url: str) -> None:
        """Have a new master make the tables of an empty database."""
        with _directory() as base:
            self._run("create-master", "--quiet", f"--db={_spelled(url)}", str(base))

    def upgrade(self, url: str) -> None:
        """Have a master bring a database to the revision that it needs."""
        with self._master(url) as (base, _):
            self._run("upgrade-master", "--quiet", str(base))

    @contextmanager
    def serving(self, url: str) -> Iterator[str]:
        """Serve a database while the block runs; yields where the API is."""
        with self._master(url) as (base, port):
            kept = Kept(base, "SIGTERM")
            try:
                kept.order("start", self._program, "start", "--nodaemon", str(base))
                place = f"http://127.0.0.1:{port}/api/v2"
                kept.patiently(lambda: got(f"{place}/masters"), OSError)
                yield place
            finally:
                kept.close()

    @contextmanager
    def _master(self, url: str) -> Iterator[tuple[Path, int]]:
        with _directory() as base:
            base.mkdir()
            port = free_port()
            configuration = CONFIGURATION.format(url=_spelled(url), port=port)
            (base / "master.cfg").write_text(configuration)
            (base / "buildbot.tac").write_text(APPLICATION.format(base=str(base)))
            yield base, port

    def _run(self, *arguments: str) -> None:
        done = subprocess.run(
            [self._program, *arguments], capture_output=True, text=True, timeout=120, check=False
        )
        assert done.returncode == 0, done.stdout + done.stderr


@contextmanager
def _directory() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="buildapi-buildbot-") as folder:
        yield Path(folder) / "master"


def got(url: str) -> Any:
    """Return the JSON that a URL answers with."""
    with urlopen(url, timeout=20) as answer:  # noqa: S310  it is http
        return json.load(answer)


def description(url: str) -> dict[str, dict[str, Any]]:
    """
    Everything that SQLAlchemy can learn about the tables of a database.

    Left out are the options of MariaDB's tables: Buildbot spells out a character set of three
    bytes, which can't hold every text; ours have what the database has.
    """
    engine = sa.create_engine(url)
    look = sa.inspect(engine)
    described = {table: _table(look, table) for table in look.get_table_names()}
    engine.dispose()
    return described


def _table(look: sa.Inspector, table: str) -> dict[str, Any]:
    return {
        "columns": [{**column, "type": repr(column["type"])} for column in look.get_columns(table)],
        "primary key": look.get_pk_constraint(table),
        **{kind: sorted(_said(part) for part in ask(look, table)) for kind, ask in LISTS.items()},
    }


def _said(part: Any) -> str:
    """Put one index or constraint into words that can be compared."""
    if COUNTED.search(part["name"] or ""):
        part = {**part, "name": "counted"}
    return repr(sorted(part.items()))


def _spelled(url: str) -> str:
    scheme, rest = url.split("://", 1)
    # Left to itself it chooses MyISAM, which has neither transactions nor foreign keys.
    engine = "?storage_engine=InnoDB" if scheme.startswith("mariadb") else ""
    return f"{SCHEMES.get(scheme, scheme)}://{rest}{engine}"


@pytest.fixture(scope="session")
def buildbot() -> Buildbot:
    """Buildbot, installed if it is not; where it can't be, the test is skipped."""
    ENVIRONMENT.parent.mkdir(exist_ok=True)
    env = os.environ | {"PYTHONPATH": str(ROOT / "scripts")}
    with (ENVIRONMENT.parent / "lock").open("w") as lock:
        # Two runs of the tests at once would spoil each other's installation.
        fcntl.flock(lock, fcntl.LOCK_EX)
        done = subprocess.run(
            [sys.executable, "-c", INSTALL], env=env, capture_output=True, text=True, check=False
        )
    if done.returncode:
        pytest.skip(f"Buildbot can't be installed: {done.stderr.strip().splitlines()[-1]}")
    program = shutil.which("buildbot", path=ENVIRONMENT / "bin")
    assert program is not None
    return Buildbot(Path(program))
