"""
Buildapi with a master that obeys every control call by doing nothing.

``python -m comparison.obedient DATABASE_URL PORT MASTER FORM...``: with the forms in this order.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from twisted.application.service import MultiService
from twisted.internet.defer import Deferred
from twisted.internet.task import react

from buildapi.service import BuildAPI
from buildapi.settings import load

FORMS = Path(__file__).with_name("forms.toml")


async def run(reactor: Any, url: str, port: str, master: str, *forms: str) -> None:
    """Run until SIGTERM."""
    given = {
        "database.url": url,
        "server.listen": f"tcp:{port}:interface=127.0.0.1",
        "server.master": master,
    }
    settings = load(FORMS, {}, given)
    whole = MultiService()
    api = BuildAPI(settings)
    api.setServiceParent(whole)
    reactor.addSystemEventTrigger("before", "shutdown", whole.stopService)
    whole.startService()
    await api.ready()
    api.control.offer(sorted(settings.forcescheduler, key=lambda form: forms.index(form.name)))
    api.control.obey(lambda _: None)
    await Deferred()


if __name__ == "__main__":
    react(run, sys.argv[1:])
