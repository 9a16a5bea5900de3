"""What is in the database at the end, and who of those concerned does not agree with it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from buildapi.db.chunks import Chunk, lines
from buildapi.db.tables import buildapi_events, buildapi_log, builds, logchunks, logs
from soaking.clients import Client, matches


class Stored:
    """The event log and the builds of a database."""

    def __init__(self, url: str) -> None:
        self._engine = sa.create_engine(url, poolclass=sa.NullPool)

    def events(self) -> dict[int, Any]:
        """Return every event by seq, in order."""
        columns = buildapi_events.c
        found = sa.select(columns.seq, columns.topic, columns.at, columns.body)
        with self._engine.connect() as connection:
            rows = connection.execute(found.order_by(columns.seq)).all()
        return {seq: [topic, at, json.loads(body)] for seq, topic, at, body in rows}

    def newest(self) -> int:
        """Return the position at which the log says that it ends."""
        with self._engine.connect() as connection:
            return connection.execute(sa.select(buildapi_log.c.seq)).scalar_one()

    def results(self) -> dict[int, int | None]:
        """Return the results of every build that is complete."""
        columns = builds.c
        found = sa.select(columns.id, columns.results).where(columns.complete_at.is_not(None))
        with self._engine.connect() as connection:
            return {row.id: row.results for row in connection.execute(found)}

    def texts(self) -> Iterator[tuple[int, int, bytes]]:
        """Give each log with the number of its lines, and its text."""
        chunk = logchunks.c
        columns = (chunk.first_line, chunk.last_line, chunk.content, chunk.compressed)
        with self._engine.connect() as connection:
            for logid, number in connection.execute(sa.select(logs.c.id, logs.c.num_lines)).all():
                found = sa.select(*columns).where(chunk.logid == logid).order_by(chunk.first_line)
                chunks = [Chunk(*row) for row in connection.execute(found)]
                yield logid, number, lines(chunks, 0, number) if number else b""


def acknowledged(file: Path) -> tuple[dict[int, int], dict[int, int], int]:
    """
    Return the lines of each log and the results of each build that the master was told are
    stored, and how many updates these were.
    """
    appended: dict[int, int] = {}
    finished: dict[int, int] = {}
    told = file.read_text().splitlines()
    for line in told:
        word, ident, number = line.split()
        (appended if word == "lines" else finished)[int(ident)] = int(number)
    return appended, finished, len(told)


def complaints(stored: Stored, clients: list[Client], told: Path) -> Iterator[str]:
    """Give a sentence for everything that is not as it should be."""
    events = stored.events()
    if list(events) != list(range(1, stored.newest() + 1)):
        yield f"the event log has a hole: {len(events)} events, the last is {stored.newest()}"
    for client in clients:
        yield from _of_client(client, events)
    appended, finished, _ = acknowledged(told)
    results = stored.results()
    for buildid, result in finished.items():
        if results.get(buildid) != result:
            yield f"build {buildid} ended with {result}, the database says {results.get(buildid)}"
    for logid, number, text in stored.texts():
        if text != b"".join(b"%d\n" % line for line in range(number)):
            yield f"the text of log {logid} is not what was written"
        if number < appended.pop(logid, 0):
            yield f"log {logid} has {number} lines, and more were acknowledged"
    if appended:
        yield f"logs were acknowledged that are not there: {sorted(appended)}"


def _of_client(client: Client, events: dict[int, Any]) -> Iterator[str]:
    name = f"{client.name} ({client.topic})"
    yield from (f"{name}: {sentence}" for sentence in client.wrong)
    expected = {seq: one for seq, one in events.items() if matches(client.topic, one[0])}
    missed = [seq for seq in expected if seq not in client.history]
    if missed:
        yield f"{name} missed {len(missed)} events, the first is {missed[0]}; it has {client.last}"
    gone = [seq for seq in client.history if seq not in events]
    if gone:
        yield f"{name} has seen {len(gone)} events that are not there, such as {gone[0]}"
    other = [seq for seq, one in client.history.items() if expected.get(seq, one) != one]
    if other:
        yield f"{name} has seen {len(other)} events otherwise than stored, such as {other[0]}"
    if list(client.history) != sorted(client.history):
        yield f"{name} has events out of order"
