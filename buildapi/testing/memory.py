"""A whole BuildAPI without threads and sockets, and what happens in it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.task import Clock

from buildapi.data.gate import Gate
from buildapi.mq.event import Event
from buildapi.service import BuildAPI
from buildapi.settings import Settings

# 2026-11-21 12:00:00 UTC
NOON = 1_795_262_400


class Place:
    """Where databases are made: a URL, until it is reset."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._made: list[BuildAPI] = []

    def made(self) -> list[BuildAPI]:
        """Return the services that were made on a server since the last time, to be stopped."""
        found, self._made = self._made, []
        return found

    def take(self, api: BuildAPI) -> None:
        """Take note of a service that was made there."""
        if not api.database.connector.EMBEDDED:
            self._made.append(api)

    def get(self) -> str:
        """Return the URL."""
        return self._url

    def set(self, url: str) -> str:
        """Change it, for everybody; return what ``reset`` wants."""
        before, self._url = self._url, url
        return before

    def reset(self, before: str) -> None:
        """Change it back."""
        self._url = before


DATABASE = Place("sqlite://")
"""The URL of the database that ``in_memory_api`` works on: to see tests pass on another system."""


def in_memory_api(
    settings: Settings | None = None,
    master: str | None = "test:/master",
    clock: Clock | None = None,
    gate: Callable[[bool], Gate] = Gate,
) -> BuildAPI:
    """
    Return a started BuildAPI on a new database in memory, which listens nowhere.

    Everything is done in the caller's thread, on the database of ``DATABASE`` too.  clock: where
    its time comes from; by default one that stands at noon.  gate: as ``BuildAPI`` takes it.
    """
    settings = settings or Settings()
    if clock is None:
        clock = Clock()
        clock.advance(NOON)
    api = BuildAPI(
        replace(
            settings,
            server=replace(settings.server, listen=None),
            database=replace(settings.database, url=DATABASE.get()),
        ),
        master=master,
        reactor=clock,
        gate=gate,
    )
    DATABASE.take(api)
    api.startService()
    result_of(api.ready())
    return api


def result_of(deferred: Deferred[Any]) -> Any:
    """Return what a Deferred has fired with, or raise what it has failed with."""
    fired: list[Any] = []
    deferred.addBoth(fired.append)
    if not fired:
        raise AssertionError("the Deferred has not fired")
    deferred.addErrback(lambda _: None)
    if hasattr(fired[0], "raiseException"):
        fired[0].raiseException()
    return fired[0]


class RecordingSubscriber:
    """Records every event that matches a pattern: ``events``, and their ``topics``."""

    def __init__(self, api: BuildAPI, pattern: str = "#") -> None:
        self.events: list[Event] = []
        self._listener = api.mq.listen([pattern], self.events.append)

    @property
    def topics(self) -> list[str]:
        """Return the topics, in the order in which the events came."""
        return [event.topic for event in self.events]

    def close(self) -> None:
        """Record no more."""
        self._listener.close()
