"""A program that writes the same database at the same moment, as a Buildbot master may."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import pytest_twisted
import sqlalchemy as sa

from buildapi.db.groupcommit import RUNS_PER_CLASH, Body
from buildapi.db.tables import masters, workers
from buildapi.db.transaction import Tx
from buildapi.errors import Conflict

if TYPE_CHECKING:
    from test.db.conftest import Opener

pytestmark = pytest.mark.systems("postgresql", "mariadb")
COUNT = sa.select(sa.func.count()).select_from(workers)


class Foreigner:
    """Adds workers with the number that comes next, in a session of its own."""

    def __init__(self, url: str) -> None:
        self._engine = sa.create_engine(url, poolclass=sa.NullPool)

    def add(self) -> None:
        """Add one."""
        with self._engine.begin() as connection:
            number = connection.execute(COUNT).scalar_one()
            connection.execute(sa.insert(workers).values(name=f"w{number}", info="{}"))


def takes_a_number(foreigner: Foreigner, clashes: int) -> tuple[list[int], Body[int]]:
    """Return a body that is so often too late, and the numbers that it took."""
    taken: list[int] = []

    def body(tx: Tx) -> int:
        ((number,),) = tx.rows(COUNT, {})
        taken.append(number)
        if len(taken) <= clashes:
            foreigner.add()
        tx.insert(workers, name=f"w{number}", info="{}")
        return int(number)

    return taken, body


@pytest.mark.parametrize("neighbours", [0, 2])
@pytest_twisted.ensureDeferred
async def test_a_number_that_another_program_took_is_followed_by_the_next(
    opening: Opener, url: str, neighbours: int
) -> None:
    """The body is run again, and sees what the other did; nobody hears of it."""
    database = await opening(foreign_writer=True)
    taken, body = takes_a_number(Foreigner(url), clashes=2)
    release, held = database.held()
    adding = [database.add(f"m{number}") for number in range(neighbours)]
    numbered = database.write(body)
    release.set()
    await held
    for one in adding:
        await one

    number = await numbered
    assert number == taken[-1]
    found = database.seen.rows("SELECT name FROM workers ORDER BY id")
    assert sorted(found) == [f"w{n}" for n in range(number + 1)]
    assert len(database.seen.names()) == neighbours
    assert database.seen.is_sound()


@pytest_twisted.ensureDeferred
async def test_what_clashes_with_itself_is_not_run_for_ever(opening: Opener) -> None:
    """After a few runs it is called what it is; without a foreign writer, at once."""
    for foreign, runs in ((True, RUNS_PER_CLASH + 1), (False, 1)):
        database = await opening(foreign_writer=foreign)
        ran: list[None] = []

        def body(tx: Tx, ran: list[None] = ran) -> None:
            ran.append(None)
            tx.insert(workers, name="same", info="{}")
            tx.insert(workers, name="same", info="{}")

        with pytest.raises(Conflict, match=r"(?i)duplicate"):
            await database.write(body)
        assert len(ran) == runs
        await database.close()


@pytest_twisted.ensureDeferred
async def test_what_another_program_wrote_is_read_at_once(opening: Opener, url: str) -> None:
    """By reads and by writes."""
    database = await opening(foreign_writer=True)
    await database.add("a")
    foreigner = Foreigner(url)
    for number in range(3):
        foreigner.add()

        assert await database.read(lambda reader: reader.first(COUNT, {})) == (number + 1,)
        assert await database.write(lambda tx: tx.first(COUNT, {})) == (number + 1,)


@pytest_twisted.ensureDeferred
async def test_a_row_that_another_program_locks_is_waited_for(opening: Opener, url: str) -> None:
    """Its transactions are short; what takes longer than the setting is Unavailable, and whole."""
    database = await opening(foreign_writer=True, busy_timeout_s=1.0)
    ident = await database.add("a")
    engine = sa.create_engine(url, poolclass=sa.NullPool)
    with engine.begin() as other:
        other.execute(sa.update(masters).values(active=1))
        change = database.write(lambda tx: tx.change(masters, ident, last_active=7))
        other.execute(sa.update(masters).values(active=2))
    await change

    assert database.seen.rows("SELECT active, last_active FROM masters") == [(2, 7)]
