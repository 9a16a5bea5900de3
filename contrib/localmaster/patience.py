"""Patience with a database that is busy, full or lost for a while."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TypeVar

from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import deferLater
from twisted.logger import Logger

from buildapi.errors import Stopping, Unavailable

T = TypeVar("T")

FIRST_DELAY_S, LONGEST_DELAY_S = 0.1, 5.0

_log = Logger()


async def insist(clock: IReactorTime, attempt: Callable[[], Awaitable[T]]) -> T:
    """
    Return what ``attempt`` gives, trying again for as long as the database is unavailable.

    That is safe: an update that fails with Unavailable has written nothing.  The end of the service
    ends the patience too, with Stopping.
    """
    delay = FIRST_DELAY_S
    while True:
        try:
            return await attempt()
        except Stopping:
            raise
        except Unavailable as error:
            _log.warn("{sentence}; trying again", sentence=error.sentence)
        await deferLater(clock, delay)
        delay = min(2 * delay, LONGEST_DELAY_S)
