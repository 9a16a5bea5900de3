"""What the gate itself promises."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

SKIPPING = """
import pytest

def test_that_needs_something() -> None:
    pytest.skip("there is no such program")
"""


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A project with this suite's set-up and helpers, and one test, which is skipped."""
    suite = tmp_path / "test"
    unwanted = shutil.ignore_patterns("test_*", "reference", "__pycache__")
    shutil.copytree(Path(__file__).parent, suite, ignore=unwanted)
    (suite / "test_skipping.py").write_text(SKIPPING)
    return tmp_path


def run(project: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run the project's tests in a process of their own."""
    return subprocess.run(
        [sys.executable, "-m", "pytest", "-ra", "--rootdir", project, "-p", "no:cacheprovider"],
        cwd=project,
        env={k: v for k, v in os.environ.items() if k != "CI"} | environment,
        capture_output=True,
        text=True,
        check=False,
    )


def test_a_skipped_test_is_listed_and_forgiven(project: Path) -> None:
    """Where something is missing the suite passes, and says at its end what it did not test."""
    done = run(project)

    assert done.returncode == 0
    assert "there is no such program" in done.stdout
    assert "1 skipped" in done.stdout.splitlines()[-1]


def test_a_skipped_test_fails_the_run_in_ci(project: Path) -> None:
    """With CI=true nothing may be missing; the last line is still pytest's own."""
    done = run(project, CI="true")

    assert done.returncode == 1
    assert "1 skipped, and nothing may be" in done.stdout
    assert "1 skipped" in done.stdout.splitlines()[-1]
