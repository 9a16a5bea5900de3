"""``twist buildapi``: the server of ``buildapi serve`` under Twisted's own runner."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import ClassVar

from twisted.application.service import IService
from twisted.logger import Logger
from twisted.python import usage
from twisted.python.failure import Failure

from buildapi.cli import greeting
from buildapi.errors import BadSettings
from buildapi.service import BuildAPI
from buildapi.settings import declarations, load

_log = Logger()
_OFFERED = {
    one.option.removeprefix("--"): one for one in declarations().values() if one.option is not None
}
_FLAGS = {name: one for name, one in _OFFERED.items() if isinstance(one.default, bool)}


class Options(usage.Options):
    """The options of ``buildapi serve``."""

    optParameters: ClassVar = [
        ["config", None, None, "TOML file with settings."],
        *([name, None, None, one.doc] for name, one in _OFFERED.items() if name not in _FLAGS),
    ]
    optFlags: ClassVar = [[name, None, one.doc] for name, one in _FLAGS.items()]

    def postOptions(self) -> None:
        """Load the settings, or say in one sentence why not."""
        config = Path(self["config"]) if self["config"] else None
        options = {
            one.dotted: (bool(self[name]) or None) if name in _FLAGS else self[name]
            for name, one in _OFFERED.items()
        }
        try:
            self.settings = load(config, os.environ, options)
        except BadSettings as error:
            raise usage.UsageError(error.sentence) from None


def makeService(options: Options) -> IService:
    """Return the service; if it can't start, the process ends."""
    api = BuildAPI(options.settings)
    api.ready().addCallbacks(_greet, _give_up)
    return api


def _greet(api: BuildAPI) -> None:
    _log.info("{greeting}", greeting=greeting(api))


def _give_up(failure: Failure) -> None:
    _log.critical("{sentence}", sentence=failure.getErrorMessage())
    # The way of ``twist`` to end with another status than 0.
    signal.raise_signal(signal.SIGTERM)
