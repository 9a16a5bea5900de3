"""The files that a process may open, and what is said when they are too few."""

from __future__ import annotations

import resource
from collections.abc import Iterator
from pathlib import Path

import pytest
import pytest_twisted
from twisted.logger import LogEvent, LogLevel, formatEvent

from buildapi.service import BuildAPI
from buildapi.settings import Database, Limits, Server, Settings
from buildapi.www import openfiles

FEW = 300


@pytest.fixture(autouse=True)
def _restored() -> Iterator[None]:
    """Give this process its limit back."""
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, before)


def allow(files: int) -> None:
    """Let this process open so many files."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (files, most))


def test_too_few_files_are_told_of() -> None:
    """The sentence has both numbers, and the name of the setting."""
    allow(FEW)
    sentence = openfiles.shortage(Limits(connections=1_000))

    assert sentence is not None
    assert f"{FEW} files" in sentence
    assert "1000 connections of limits.connections" in sentence


def test_enough_files_are_no_matter() -> None:
    """There is room for the connections and for what else is open."""
    allow(FEW)

    assert openfiles.shortage(Limits(connections=FEW - openfiles.OTHERS)) is None
    assert openfiles.shortage(Limits(connections=FEW - openfiles.OTHERS + 1)) is not None


def test_a_server_takes_what_it_may() -> None:
    """The soft limit is only there for programs that can't handle many files."""
    allow(FEW)
    openfiles.raise_limit()

    now, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    assert now == most


@pytest_twisted.ensureDeferred
async def test_who_listens_with_too_few_files_warns(tmp_path: Path, logged: list[LogEvent]) -> None:
    """In the log, at the start; it serves all the same."""
    settings = Settings(
        server=Server(listen="tcp:0:interface=127.0.0.1"),
        database=Database(url=f"sqlite:///{tmp_path}/state.sqlite"),
        limits=Limits(connections=10**9),
    )
    async with BuildAPI(settings) as api:
        assert api.port is not None

    warnings = [formatEvent(event) for event in logged if event["log_level"] is LogLevel.warn]
    assert [text for text in warnings if "too few for the 1000000000 connections" in text]
