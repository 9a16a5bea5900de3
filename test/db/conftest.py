"""What the tests of the database share: a database with everything on, and a look from outside."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from threading import Event as Flag
from typing import Any, cast

import pytest
import pytest_twisted
import sqlalchemy as sa
from twisted.internet import reactor
from twisted.internet.defer import Deferred

from buildapi.db.connect import Reader
from buildapi.db.engine import Database
from buildapi.db.eventlog import Draft
from buildapi.db.groupcommit import Committed
from buildapi.db.tables import masters
from buildapi.db.transaction import Announce, Tx
from buildapi.settings import Database as Settings
from buildapi.settings import Events
from buildapi.testing.memory import DATABASE

# The data layer makes events; these tests say theirs themselves.
NO_ANNOUNCE = cast("Announce", None)


def a_master(name: str) -> Callable[[Tx], int]:
    """Return a body that adds a row with this name, and says so; it returns the row's id."""

    def body(tx: Tx) -> int:
        ident = tx.insert(masters, name=name, name_hash=name, active=0, last_active=0)
        tx.say(Draft(f"master.{ident}.new", (f"masters/{ident}/new",), b'{"masterid":%d}' % ident))
        return ident

    return body


class Look:
    """A database, seen by somebody else."""

    def __init__(self, url: str) -> None:
        self.url = url

    def rows(self, query: str) -> list[Any]:
        """Return the rows of a query; of a single column, its values."""
        engine = sa.create_engine(self.url, poolclass=sa.NullPool)
        with engine.connect() as connection:
            found = connection.exec_driver_sql(query).all()
        return [row[0] if len(row) == 1 else tuple(row) for row in found]

    def names(self) -> list[str]:
        """Return the names of all rows that ``a_master`` added, in order."""
        return self.rows("SELECT name FROM masters ORDER BY id")

    def seqs(self) -> list[int]:
        """Return the positions of all events."""
        return self.rows("SELECT seq FROM buildapi_events ORDER BY seq")

    def is_sound(self) -> bool:
        """Say whether SQLite finds nothing wrong, and the counter agrees with the events."""
        if self.url.startswith("sqlite"):
            assert self.rows("PRAGMA integrity_check") == ["ok"]
        newest = self.rows("SELECT seq FROM buildapi_log")
        return self.seqs() == list(range(1, newest[0] + 1))


class Opened(Database):
    """A database that records what it delivers, and how others see it."""

    def __init__(self, url: str, events: Events, **settings: Any) -> None:
        self.committed: list[Committed] = []
        super().__init__(
            Settings(url=url, **settings),
            reactor,
            self.committed.append,
            NO_ANNOUNCE,
            "a test",
            events,
        )
        self.seen = Look(url)

    @property
    def delivered(self) -> list[int]:
        """The positions of all events, in the order in which they were delivered."""
        return [event.seq for one in self.committed for event in one.events]

    def add(self, name: str) -> Deferred[int]:
        """Add a row and its event."""
        return self.write(a_master(name))

    def held(self) -> tuple[Flag, Deferred[Any]]:
        """
        Occupy the writer until the flag is set.

        Whatever is written meanwhile becomes one batch.
        """
        flag, begun = Flag(), Flag()

        def wait(tx: Tx) -> None:  # noqa: ARG001
            begun.set()
            assert flag.wait(20)

        done = self.write(wait)
        assert begun.wait(20)
        return flag, done

    def occupied(self) -> tuple[Flag, Deferred[Any]]:
        """Occupy one reading thread until the flag is set."""
        flag, begun = Flag(), Flag()

        def wait(reader: Reader) -> None:  # noqa: ARG001
            begun.set()
            assert flag.wait(20)

        done = self.read(wait)
        assert begun.wait(20)
        return flag, done


Opener = Callable[..., Awaitable[Opened]]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Where the test's database is."""
    return tmp_path / "state.sqlite"


@pytest.fixture
def url(system: str, path: Path) -> str:
    """Where the test's database is, on each system; on servers it has its tables already."""
    return f"sqlite:///{path}" if system == "sqlite" else DATABASE.get()


@pytest_twisted.async_yield_fixture
async def opening(url: str) -> AsyncIterator[Opener]:
    """Return what opens a database with given settings; all are closed after the test."""
    opened: list[Opened] = []

    async def open_one(events: Events | None = None, **settings: Any) -> Opened:
        database = Opened(events=events or Events(), **{"url": url, **settings})
        await database.open()
        opened.append(database)
        return database

    yield open_one
    for database in opened:
        await database.close()
