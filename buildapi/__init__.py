"""
The data API and message bus of build masters.

    from buildapi import BuildAPI, Settings

The rest has modules of its own: ``buildapi.errors``, ``buildapi.settings``, ``buildapi.testing``.
"""

from buildapi.data.forcefields import ForceScheduler
from buildapi.mq.event import Event
from buildapi.service import BuildAPI
from buildapi.settings import Settings

__all__ = ["BuildAPI", "Event", "ForceScheduler", "Settings"]
