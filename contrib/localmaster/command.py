"""The command: options, a terminal to tell what happens, a clean end."""

from __future__ import annotations

import argparse
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn, cast

from twisted.internet.address import IPv4Address
from twisted.internet.defer import Deferred
from twisted.internet.task import react
from twisted.logger import (
    FilteringLogObserver,
    LogLevel,
    LogLevelFilterPredicate,
    globalLogBeginner,
    textFileLogObserver,
)

from buildapi.errors import BuildAPIError

from .config import Config, load
from .console import Narrator, invitation
from .master import LocalMaster
from .process import Reactor


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Run a master until Ctrl-C; what keeps it from starting is one sentence, and exit status 1."""
    options = parser().parse_args(arguments)
    log_warnings()
    react(run, (options,))


def parser() -> argparse.ArgumentParser:
    """Return the options of the command."""
    found = argparse.ArgumentParser(prog="localmaster", description=__doc__)
    found.add_argument("config", type=Path, help="TOML file: what to build, and when")
    found.add_argument(
        "--directory",
        type=Path,
        default=Path("localmaster"),
        help="where the database and the builds are kept (default: %(default)s)",
    )
    found.add_argument(
        "--port",
        type=int,
        default=8010,
        help="port on 127.0.0.1; 0 takes a free one (default: %(default)s)",
    )
    return found


def log_warnings() -> None:
    """Log what is wrong to the standard error; what is right is told line by line."""
    warnings = LogLevelFilterPredicate(LogLevel.warn)
    observer = FilteringLogObserver(textFileLogObserver(sys.stderr), [warnings])
    globalLogBeginner.beginLoggingTo([observer], redirectStandardIO=False)


async def run(reactor: Reactor, options: argparse.Namespace) -> None:
    """Start the master, tell what happens, and stop it cleanly when the process is to end."""
    try:
        config = load(options.config)
        options.directory.mkdir(parents=True, exist_ok=True)
        directory = options.directory.resolve()
        master = LocalMaster(reactor, config, directory, f"tcp:{options.port}:interface=127.0.0.1")
        reactor.addSystemEventTrigger("before", "shutdown", stop, master)
        master.startService()
        await master.ready()
    except (BuildAPIError, OSError) as error:
        sys.exit(f"localmaster: {error}")
    Narrator({b.builderid: b.builder.name for b in master.benches}, tell).listen(master.api.mq)
    tell(_welcome(master, config))
    await Deferred()  # until a signal ends the reactor


def stop(master: LocalMaster) -> Deferred[None]:
    """Stop the master; the reactor waits for it."""
    for impatient in (signal.SIGINT, signal.SIGTERM):  # it won't take long
        signal.signal(impatient, signal.SIG_IGN)
    if master.benches:  # else it never began
        tell("stopping: running builds end as RETRY, and are built again at the next start")
    return master.stopService()


def tell(line: str) -> None:
    """Print a line at once."""
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


def _welcome(master: LocalMaster, config: Config) -> str:
    assert master.api.port is not None  # noqa: S101 -- it is ready
    address = cast("IPv4Address", master.api.port.getHost())
    forced = next((scheduler.name for scheduler in config.forceschedulers), None)
    return invitation(f"http://127.0.0.1:{address.port}/", master.benches[0].builderid, forced)
