"""
What all tests share: database servers; with CI=true a skipped test fails the run; hypothesis has no
deadline.
"""

from __future__ import annotations

import importlib.util
import os
import sys
from pathlib import Path

import hypothesis
import pytest

# A machine that is busy with something else is no reason to fail.
hypothesis.settings.register_profile("patient", deadline=None)
hypothesis.settings.load_profile("patient")


def pytest_configure(config: pytest.Config) -> None:
    """Offer the fixtures of ``servers``, which can't be imported: this folder is no package."""
    place = Path(__file__).with_name("servers.py")
    spec = importlib.util.spec_from_file_location("buildapi_test_servers", place)
    assert spec is not None
    assert spec.loader is not None
    servers = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = servers
    spec.loader.exec_module(servers)
    config.pluginmanager.register(servers, "servers")


def _skips_that_count(config: pytest.Config) -> int:
    if os.environ.get("CI") != "true":
        return 0
    reporter = config.pluginmanager.get_plugin("terminalreporter")
    return len(reporter.stats.get("skipped", ())) if reporter else 0


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Fail the run if a test was skipped where nothing may be missing."""
    if _skips_that_count(session.config) and session.exitstatus == pytest.ExitCode.OK:
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


def pytest_terminal_summary(
    terminalreporter: pytest.TerminalReporter, config: pytest.Config
) -> None:
    """Say why a run without a failed test failed."""
    if count := _skips_that_count(config):
        terminalreporter.write_line(f"CI=true: {count} skipped, and nothing may be", red=True)
