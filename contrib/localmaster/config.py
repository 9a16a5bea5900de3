"""
What this master builds, from a TOML file.

    [[builder]]
    name = "docs"
    description = "The manual"
    tags = ["docs"]
    workers = 2                                  # builds at the same time; 1 if not given
    env = {LANG = "C.UTF-8"}

      [[builder.step]]
      name = "html"
      command = "make html"                      # a text goes to the shell, a list is run as it is
      env = {STRICT = "1"}
      warnings = "warning:"                      # lines that match make the result WARNINGS
      logs = {report = "build/report.txt"}       # a file's new lines, as a log of their own
      urls = {manual = "https://docs.example.org/"}
      always = true                              # run it even after a step that failed

    [[forcescheduler]]                           # as in buildapi's own settings file
    name = "force"
    builder_names = ["docs"]

    [[gitpoller]]
    name = "commits"
    repository = "/srv/git/project"              # relative to this file; default: its folder
    branch = "main"                              # default: what is checked out there
    builder_names = ["docs"]
    interval_s = 5
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated, Any, ClassVar

from pydantic import (
    AfterValidator,
    BeforeValidator,
    ConfigDict,
    Field,
    TypeAdapter,
    ValidationError,
)

from buildapi import ForceScheduler
from buildapi.errors import BadSettings

# A builder's name becomes part of its workers' names, which are identifiers of 50 characters.
Name = Annotated[str, Field(pattern=r"^[a-zA-Z_-][a-zA-Z0-9._-]*$", max_length=40)]


def _all_different(named: tuple[Any, ...]) -> tuple[Any, ...]:
    names = [one.name for one in named]
    for name in names:
        if names.count(name) > 1:
            raise ValueError(f"two are called {name!r}")
    return named


def _arguments(command: object) -> tuple[str, ...]:
    if isinstance(command, str) and command:
        return ("/bin/sh", "-c", command)
    if isinstance(command, list) and command and all(isinstance(one, str) for one in command):
        return tuple(command)
    raise ValueError("it should be a text for the shell, or a list of texts to run as it is")


class _Strict:
    """Of the tables below: a key that is not declared is an error, not a silent nothing."""

    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(extra="forbid")


@dataclass(frozen=True, kw_only=True)
class Step(_Strict):
    """One command of a build."""

    name: Annotated[str, Field(min_length=1, max_length=50)]
    command: Annotated[tuple[str, ...], BeforeValidator(_arguments)]
    env: Mapping[str, str] = field(default_factory=dict)
    warnings: re.Pattern[str] | None = None
    logs: Mapping[str, str] = field(default_factory=dict)
    urls: Mapping[str, str] = field(default_factory=dict)
    always: bool = False


@dataclass(frozen=True, kw_only=True)
class Builder(_Strict):
    """A kind of build: its steps, and how many builds may run at once."""

    name: Name
    description: str = ""
    tags: tuple[str, ...] = ()
    workers: Annotated[int, Field(ge=1)] = 1
    env: Mapping[str, str] = field(default_factory=dict)
    steps: Annotated[tuple[Step, ...], Field(alias="step", min_length=1)]

    @property
    def worker_names(self) -> list[str]:
        """A name for each worker."""
        return [f"{self.name}-{number}" for number in range(1, self.workers + 1)]


@dataclass(frozen=True, kw_only=True)
class GitPoller(_Strict):
    """A local git repository whose new commits are built."""

    name: Name
    builder_names: tuple[str, ...]
    repository: Path = Path()
    branch: str = "HEAD"
    interval_s: Annotated[float, Field(gt=0)] = 10.0


@dataclass(frozen=True, kw_only=True)
class Config(_Strict):
    """Everything this master builds, and when."""

    builders: Annotated[
        tuple[Builder, ...], Field(alias="builder", min_length=1), AfterValidator(_all_different)
    ]
    forceschedulers: Annotated[
        tuple[ForceScheduler, ...], Field(alias="forcescheduler"), AfterValidator(_all_different)
    ] = ()
    gitpollers: Annotated[
        tuple[GitPoller, ...], Field(alias="gitpoller"), AfterValidator(_all_different)
    ] = ()

    def __post_init__(self) -> None:
        """Refuse a scheduler of builders that aren't there."""
        known = {builder.name for builder in self.builders}
        schedulers: list[ForceScheduler | GitPoller] = [*self.forceschedulers, *self.gitpollers]
        for scheduler in schedulers:
            for name in scheduler.builder_names:
                if name not in known:
                    raise ValueError(f"{scheduler.name!r} wants {name!r}, which is no builder")


def load(path: Path) -> Config:
    """
    Read a configuration.

    Raises BadSettings: what is wrong in the file, where it stands there, in one sentence.
    """
    try:
        table = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise BadSettings(f"cannot read {path}: {error.strerror}") from None
    except ValueError as error:
        raise BadSettings(f"{path} is not a TOML file: {error}") from None
    try:
        config = TypeAdapter(Config).validate_python(table)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        where = " ".join(_places(table, first["loc"]))
        what = first["msg"].removeprefix("Value error, ")
        raise BadSettings(f"{path}: {where}: {what}" if where else f"{path}: {what}") from None
    below = path.resolve().parent
    pollers = (replace(one, repository=below / one.repository) for one in config.gitpollers)
    return replace(config, gitpollers=tuple(pollers))


def _places(table: Any, location: Iterable[int | str]) -> Iterable[str]:
    """Say where a value stands as a person would: builder 'docs' step 'html' env."""
    for key in location:
        table = _inside(table, key)
        if isinstance(key, str):
            yield key
        elif isinstance(table, dict):
            yield repr(table.get("name", f"number {key + 1}"))


def _inside(table: Any, key: int | str) -> Any:
    try:
        return table[key]
    except (LookupError, TypeError):  # something that is missing, or a word of pydantic's own
        return None
