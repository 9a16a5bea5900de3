"""
The ``buildapi`` command.

    buildapi serve --db sqlite:////srv/ci/state.sqlite      serve a database until Ctrl-C
    buildapi config                                         every setting, and where it comes from
    buildapi db add-indexes --db sqlite:////srv/…           make an existing database quick
    buildapi db copy --from URL --to URL                    move to another database system
    buildapi db backup FILE                                 copy a database that is being served
    buildapi db new-log                                     after a backup was restored
    buildapi docs DIRECTORY                                 descriptions of the API, as files

What keeps a command from its work is one sentence on the standard error, and exit status 1.
"""

from __future__ import annotations

import functools
import gc
import json
import os
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

import click
import sqlalchemy as sa
from pydantic import TypeAdapter
from twisted.internet.address import IPv4Address, IPv6Address
from twisted.internet.defer import Deferred
from twisted.internet.task import react
from twisted.logger import (
    FilteringLogObserver,
    LogLevel,
    LogLevelFilterPredicate,
    globalLogBeginner,
    textFileLogObserver,
)

from buildapi.data.forcefields import ForceScheduler
from buildapi.db import backups, copying, upkeep
from buildapi.docs.files import FILES
from buildapi.errors import BuildAPIError
from buildapi.service import BuildAPI
from buildapi.settings import SECTIONS, Declaration, Settings, declarations, load
from buildapi.www.openfiles import raise_limit

Function = Callable[..., Any]


@click.group()
@click.version_option(package_name="buildapi", message="buildapi %(version)s")
def main() -> None:
    """Serve the data API and message bus of a build master."""


def with_settings(*names: str) -> Callable[[Function], Function]:
    """
    Give a command ``--config`` and the options of the settings named, by default all there are.

    The command is called with the Settings, then with the arguments of its own.
    """
    offered = [
        one
        for one in declarations().values()
        if one.option and one.dotted in (names or declarations())
    ]

    def decorate(command: Function) -> Function:
        @functools.wraps(command)
        def with_loaded(config: Path | None, **given: Any) -> Any:
            options = {one.dotted: given.pop(one.dotted.replace(".", "_")) for one in offered}
            try:
                return command(load(config, os.environ, options), **given)
            except BuildAPIError as error:
                raise click.ClickException(error.sentence) from None

        wrapped: Function = with_loaded
        for one in reversed(offered):
            wrapped = _option(one)(wrapped)
        return _CONFIG(wrapped)

    return decorate


_CONFIG = click.option(
    "--config",
    type=click.Path(path_type=Path),
    envvar="BUILDAPI_CONFIG",
    show_envvar=True,
    help="TOML file with settings.",
)


def _option(declared: Declaration) -> Callable[[Function], Function]:
    return click.option(
        declared.option or "",
        declared.dotted.replace(".", "_"),
        default=None,
        is_flag=isinstance(declared.default, bool),
        help=declared.doc,
    )


@main.command()
@with_settings()
@click.option("--verbose", is_flag=True, help="Log what happens, not only what goes wrong.")
def serve(settings: Settings, verbose: bool) -> None:
    """Serve a database until Ctrl-C."""
    observer = FilteringLogObserver(
        textFileLogObserver(sys.stderr),
        [LogLevelFilterPredicate(LogLevel.info if verbose else LogLevel.warn)],
    )
    globalLogBeginner.beginLoggingTo([observer], redirectStandardIO=False)
    raise_limit()
    react(_serve, [settings])


async def _serve(reactor: Any, settings: Settings) -> None:
    try:
        api = BuildAPI(settings, reactor=reactor)
        # The reactor waits for it, whether a signal or an error ends the process.
        reactor.addSystemEventTrigger("before", "shutdown", api.stopService)
        api.startService()
        await api.ready()
    except BuildAPIError as error:
        click.ClickException(error.sentence).show()
        raise SystemExit(1) from None
    # All that was imported stays: looking for garbage in it again and again makes requests wait,
    # for 30 to 100 ms each time.
    gc.collect()
    gc.freeze()
    click.echo(f"{greeting(api)} (Ctrl-C stops it)")
    await Deferred()


def greeting(api: BuildAPI) -> str:
    """Say what a server that is ready serves, and where."""
    return f"buildapi serves {_public(api.settings.database.url)} on {_address(api)}"


def _address(api: BuildAPI) -> str:
    if api.port is None:
        return "no address"
    host = api.port.getHost()
    if not isinstance(host, IPv4Address | IPv6Address):
        return str(host)
    # Who listens everywhere listens here, too.
    name = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host.host, host.host)  # noqa: S104
    return f"http://{f'[{name}]' if ':' in name else name}:{host.port}/api/v2"


@main.command()
@with_settings()
def config(settings: Settings) -> None:
    """Print every setting as a TOML file, and where each comes from."""
    click.echo("\n".join(_as_toml(settings)))


@main.group()
def db() -> None:
    """Look after a database."""


@db.command()
@with_settings("database.url")
def add_indexes(settings: Settings) -> None:
    """Add the indexes to a Buildbot database that buildapi's own have: long lists get quick."""
    added = upkeep.add_indexes(settings.database)
    click.echo(f"added {', '.join(added)}" if added else "every index is there already")


@db.command()
@click.option("--from", "source", required=True, envvar="BUILDAPI_COPY_FROM", show_envvar=True)
@click.option("--to", "target", required=True, envvar="BUILDAPI_COPY_TO", show_envvar=True)
def copy(source: str, target: str) -> None:
    """Copy a Buildbot database (--from URL) into an empty one of any system (--to URL)."""
    try:
        tables = copying.copy(source, target, click.echo)
    except BuildAPIError as error:
        raise click.ClickException(error.sentence) from None
    click.echo(f"copied {sum(one.rows for one in tables)} rows to {_public(target)}")


@db.command()
@with_settings("database.url")
@click.argument("file", type=click.Path(path_type=Path, dir_okay=False))
def backup(settings: Settings, file: Path) -> None:
    """
    Copy a SQLite database into FILE, which must not exist; a server may be writing it.

    The copy is checked.  Database servers have programs of their own: the error names them.
    """
    told = -1

    def progress(part: float) -> None:
        nonlocal told
        if int(part * 10) > told:
            told = int(part * 10)
            click.echo(f"{told * 10} %", err=True)

    done = backups.backup(settings.database, file, progress)
    log = "" if done.seq is None else f", events up to {done.seq}"
    click.echo(f"{file}: {done.size} bytes{log}, checked")


@db.command()
@with_settings("database.url")
def new_log(settings: Settings) -> None:
    """
    Begin the event log of a restored backup anew, before it is served again.

    Positions of the old log are refused from then on, because what they stand for is gone.  Builds
    and logs stay as they are.
    """
    begun = upkeep.new_log(settings.database)
    click.echo(f"the event log is {begun.uuid} now, and begins after {begun.seq}")


@main.command()
@click.argument("directory", type=click.Path(path_type=Path, file_okay=False))
def docs(directory: Path) -> None:
    """Write the descriptions of the API, OpenAPI, RAML and reference pages, into a directory."""
    directory.mkdir(parents=True, exist_ok=True)
    for name, text in FILES.items():
        (directory / name).write_text(text(), encoding="utf-8")
        click.echo(directory / name)


def _as_toml(settings: Settings) -> Iterator[str]:
    for section, kind in SECTIONS.items():
        yield f"[{section}]"
        for name in (f.name for f in fields(kind)):
            value = getattr(getattr(settings, section), name)
            shown = _public(value) if name == "url" else value
            origin = settings.origins.get(f"{section}.{name}", "default")
            yield f"{name} = {_toml(shown)}  # {origin}"
        yield ""
    for scheduler in settings.forcescheduler:
        yield "[[forcescheduler]]"
        table = TypeAdapter(ForceScheduler).dump_python(scheduler, exclude_none=True)
        yield from (f"{name} = {_toml(value)}" for name, value in table.items())
        yield ""


def _public(url: str) -> str:
    """Return a database's URL with its passwords as asterisks."""
    parsed = sa.make_url(url)
    secrets = {name: "***" for name in parsed.query if "pass" in name}
    return parsed.update_query_dict(secrets).render_as_string()


def _toml(value: Any) -> str:
    if isinstance(value, Mapping):
        return f"{{{', '.join(f'{k} = {_toml(v)}' for k, v in value.items())}}}"
    if isinstance(value, (list, tuple)):
        return f"[{', '.join(map(_toml, value))}]"
    # Booleans, numbers and text are the same in JSON, save for one control character.
    return json.dumps("" if value is None else value, ensure_ascii=False).replace("\x7f", "\\u007f")
