"""
A Buildbot master as ``twistd --python`` runs it: the REST API, and the orders of ``appender``.

Runs in Buildbot's own environment. Everything that differs between runs comes from the environment.
"""

import os

from buildbot.config.master import MasterConfig
from buildbot.interfaces import IConfigLoader
from buildbot.master import BuildMaster
from buildbot.util.service import BuildbotService
from twisted.application.service import Application
from twisted.internet import reactor
from twisted.internet.endpoints import serverFromString
from zope.interface import implementer

from benchmarks.appender import OrderFactory

LOOPBACK = "tcp:{}:interface=127.0.0.1"


class OrderService(BuildbotService):
    """Takes orders while the master runs."""

    name = "bench-orders"

    async def reconfigService(self, port: str) -> None:
        """Listen, once the master is up."""
        endpoint = serverFromString(reactor, LOOPBACK.format(port))
        await endpoint.listen(OrderFactory(self.master.data.updates))


@implementer(IConfigLoader)
class Loader:
    """The smallest configuration that serves a database."""

    def loadConfig(self) -> MasterConfig:
        """Make the configuration from the environment."""
        return MasterConfig.loadFromDict(
            {
                "db": {"db_url": os.environ["BENCH_DB_URL"]},
                "www": {"port": LOOPBACK.format(os.environ["BENCH_PORT"])},
                "services": [OrderService(port=os.environ["BENCH_ORDERS_PORT"])],
                "protocols": {},
                "multiMaster": True,
                "buildbotNetUsageData": None,
            },
            __file__,
        )


application = Application("buildbot")
BuildMaster(os.environ["BENCH_BASEDIR"], config_loader=Loader()).setServiceParent(application)
