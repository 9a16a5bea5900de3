"""Whether a database answers; the log of the process is told when that changes."""

from __future__ import annotations

from threading import Lock

from twisted.logger import Logger


class Contact:
    """
    The contact with one database; for all threads.

    Many requests fail while a server is away: the log has one line when it went and one when it
    came back.  name: what the database is called there.
    """

    _log = Logger()

    def __init__(self, name: str) -> None:
        self._name = name
        self._lost = False
        self._lock = Lock()

    def lost(self, why: str) -> None:
        """Take note that the database did not answer.  why: what its driver says."""
        if self._changed(lost=True):
            self._log.warn("{name} does not answer: {why}", name=self._name, why=why)

    def found(self) -> None:
        """Take note that it did."""
        # Asked without the lock after every read: it changes next to never.
        if self._lost and self._changed(lost=False):
            self._log.info("{name} answers again", name=self._name)

    def _changed(self, *, lost: bool) -> bool:
        with self._lock:
            before, self._lost = self._lost, lost
        return before != lost
