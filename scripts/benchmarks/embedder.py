"""
A master in one file: it embeds buildapi with its web, and appends to logs when told to.

``python -m benchmarks.embedder DATABASE_URL PORT ORDERS_PORT``
"""

from __future__ import annotations

import sys
from typing import Any

from twisted.application.service import MultiService
from twisted.internet.defer import Deferred
from twisted.internet.endpoints import serverFromString
from twisted.internet.task import react

from benchmarks.appender import OrderFactory
from buildapi.service import BuildAPI
from buildapi.settings import Database, Server, Settings

LOOPBACK = "tcp:{}:interface=127.0.0.1"


async def run(reactor: Any, url: str, port: str, orders_port: str) -> None:
    """Run until SIGTERM."""
    master = MultiService()
    settings = Settings(server=Server(listen=LOOPBACK.format(port)), database=Database(url=url))
    api = BuildAPI(settings, master="embedder.example.org:/srv/ci")
    api.setServiceParent(master)
    reactor.addSystemEventTrigger("before", "shutdown", master.stopService)
    master.startService()
    await api.ready()
    orders = serverFromString(reactor, LOOPBACK.format(orders_port))
    await orders.listen(OrderFactory(api.data.updates))
    await Deferred()


if __name__ == "__main__":
    react(run, sys.argv[1:4])
