"""
A Buildbot master that serves a database, as ``twistd --python`` runs it.

It has the force schedulers of ``forms.toml``, and builders for them, but no worker ever connects.
Runs in Buildbot's own environment; everything that differs between runs comes from the environment.
"""

import os

from buildbot.config.builder import BuilderConfig
from buildbot.config.master import MasterConfig
from buildbot.interfaces import IConfigLoader
from buildbot.master import BuildMaster
from buildbot.process.factory import BuildFactory
from buildbot.schedulers import forcesched as form
from buildbot.worker import Worker
from twisted.application.service import Application
from zope.interface import implementer

BUILDERS = ["runtests", "ünï/cøde"]


def schedulers() -> list[form.ForceScheduler]:
    """Return what ``forms.toml`` declares, in Buildbot's words."""
    fields = [
        form.StringParameter("word", label="A word", default="", required=True, regex="^[a-zé]+$"),
        form.IntParameter("count", label="How many", default=3),
        form.BooleanParameter("clean", label="Clean?", default=True),
        form.ChoiceStringParameter("size", choices=["S", "M", "L"], default="M"),
        form.ChoiceStringParameter("tests", choices=["a", "b"], multiple=True, default=["a"]),
        form.TextParameter("notes", label="Notes", default="none", cols=30, rows=4),
        form.NestedParameter(
            name="more",
            label="More",
            fields=[
                form.StringParameter("inner", label="Inner", default="x", maxsize=5),
                form.FixedParameter("constant", default="c"),
            ],
        ),
    ]
    places = [
        form.CodebaseParameter(
            "app", branch=form.ChoiceStringParameter("branch", choices=["main", "é"])
        ),
        form.CodebaseParameter("lib"),
    ]
    return [
        form.ForceScheduler("form", BUILDERS, label="A form", properties=fields),
        form.ForceScheduler("places", BUILDERS[:1], codebases=places),
    ]


@implementer(IConfigLoader)
class Loader:
    """The smallest configuration that serves a database and its force schedulers."""

    def loadConfig(self) -> MasterConfig:
        """Make the configuration from the environment."""
        factory = BuildFactory()
        return MasterConfig.loadFromDict(
            {
                "db": {"db_url": os.environ["COMPARE_DB_URL"]},
                "www": {
                    "port": f"tcp:{os.environ['COMPARE_PORT']}:interface=127.0.0.1",
                    "allowed_origins": ["http://ci.example.org:*", "*.wild.example.org"],
                },
                "protocols": {"pb": {"port": "tcp:0:interface=127.0.0.1"}},
                "workers": [Worker("w-2", "never comes")],
                "builders": [
                    BuilderConfig(name=name, workernames=["w-2"], factory=factory)
                    for name in BUILDERS
                ],
                "schedulers": schedulers(),
                "multiMaster": True,
                "buildbotNetUsageData": None,
            },
            __file__,
        )


application = Application("buildbot")
BuildMaster(os.environ["COMPARE_BASEDIR"], config_loader=Loader()).setServiceParent(application)
