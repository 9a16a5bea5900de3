"""``scripts/compare``: a real Buildbot and ours, asked the same about rows that nobody recorded."""

from __future__ import annotations

import importlib
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
SCRIPTS = ROOT / "scripts"


@pytest.mark.usefixtures("buildbot")
@pytest.mark.parametrize("kind", ["sqlite", "postgresql", "mariadb"])
def test_random_requests_are_answered_as_by_buildbot(kind: str) -> None:
    """Every path once or twice, on each database system; but for what the contract differs in."""
    options = ["--seeds", "11", "--rounds", "1", "--calls", "80", "--db", kind]

    done = subprocess.run(
        [sys.executable, "-m", "comparison", *options],
        cwd=SCRIPTS,
        env={"PYTHONPATH": f"{ROOT}:{SCRIPTS}", "PATH": "/usr/sbin:/usr/bin:/bin"},
        capture_output=True,
        text=True,
        check=False,
        timeout=400,
    )

    assert done.returncode == 0, done.stdout + done.stderr
    assert "= 100.00% are as the contract says" in done.stdout


def test_an_answer_that_is_not_buildbots_is_told_of(monkeypatch: pytest.MonkeyPatch) -> None:
    """With what was asked, and what is wrong with it."""
    monkeypatch.syspath_prepend(SCRIPTS)
    judging: Any = importlib.import_module("comparison.judging")
    command: Any = importlib.import_module("comparison.__main__")
    asked = judging.Question("builds/7?limit=1", "builds/n:buildid")
    found = [
        judging.Verdict(asked, right=True, why="", rule="null", status=200),
        judging.Verdict(asked, right=False, why="status: expected 200", rule=None, status=404),
    ]

    told = "\n".join(command.report(found, 4))

    assert "1 GET /builds/n:buildid" in told
    assert "/builds/7?limit=1" in told
    assert "status: expected 200" in told
    assert told.endswith("1/2 = 50.00% are as the contract says")
