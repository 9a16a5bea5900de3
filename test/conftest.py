"""
What all tests share: database servers; with CI=true a skipped test fails the run; hypothesis has no
deadline; what tests start can be interrupted.
"""

from __future__ import annotations

import contextlib
import importlib.util
import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import hypothesis
import pytest
from twisted.internet.task import Clock

from buildapi.testing.memory import DATABASE

# A machine that is busy with something else is no reason to fail.
hypothesis.settings.register_profile("patient", deadline=None, max_examples=200)
# For thousands of examples where a test says so: pytest --hypothesis-profile=thorough FILE
hypothesis.settings.register_profile("thorough", deadline=None, max_examples=12_000)
hypothesis.settings.load_profile("patient")


SYSTEMS = ("sqlite", "postgresql", "mariadb")
# Modules that tests share, most with fixtures, each after those that it imports.
FIXTURES = [
    "test.kept",
    "test.servers",
    "test.postgresql",
    "test.mariadb",
    "test.buildbot",
    "test.browser",
    "test.www.follow.following",
    "test.www.watch.watching",
    "test.data.furnished",
    "test.data.told",
    "test.data.buildcases",
    "test.data.othercases",
]


def loaded() -> dict[str, ModuleType]:
    """Load the modules with fixtures, which can't be imported: Python has a ``test``, too."""
    for name in FIXTURES:
        place = Path(__file__).parents[1].joinpath(*name.split(".")).with_suffix(".py")
        spec = importlib.util.spec_from_file_location(name, place)
        assert spec is not None
        assert spec.loader is not None
        sys.modules[name] = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(sys.modules[name])
    return {name: sys.modules[name] for name in FIXTURES}


def pytest_configure(config: pytest.Config) -> None:
    """Offer the fixtures."""
    # A shell has the jobs in its background ignore it, and these whatever they start.
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    config.addinivalue_line("markers", "systems(*names): the database systems to run it on")
    for name, module in loaded().items():
        config.pluginmanager.register(module, name)


@pytest.fixture(autouse=True)
def _once_wrapped(request: pytest.FixtureRequest) -> Iterator[None]:
    """Have pytest-twisted wrap a test of hypothesis anew for each set of its parameters."""
    handle = getattr(getattr(request, "function", None), "hypothesis", None)
    inner = getattr(handle, "inner_test", None)
    yield
    if inner is not None:
        handle.inner_test = inner  # type: ignore[union-attr]


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Run what has the fixture ``system`` on each, or on those that it is marked with."""
    if "system" in metafunc.fixturenames:
        marker = metafunc.definition.get_closest_marker("systems")
        metafunc.parametrize("system", marker.args if marker else SYSTEMS, indirect=True)


@pytest.fixture
def system(request: pytest.FixtureRequest) -> Iterator[str]:
    """Have ``in_memory_api`` work on each database system, one after the other."""
    with contextlib.ExitStack() as ending:
        url = "sqlite://"
        if request.param != "sqlite":
            server: Any = request.getfixturevalue(request.param)
            url = ending.enter_context(server.empty())
        ending.callback(DATABASE.reset, DATABASE.set(url))
        yield request.param
        # A test that made an API for itself need not stop it, but a server's connections are told
        # of where they are forgotten, in whatever test that happens.
        for api in DATABASE.made():
            api.stopService()
            if isinstance(api.reactor, Clock):
                # A client that never reads on has no more time than the deadline leaves it.
                api.reactor.pump([12.0, 2.0, 2.0, 2.0])


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
