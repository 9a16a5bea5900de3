"""What is in the database at the end, and who of those concerned does not agree with it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from buildapi.db.chunks import Chunk, lines
from buildapi.db.tables import buildapi_events, buildapi_log, logchunks, logs, metadata
from soaking.clients import Client, matches
from soaking.followers import Follower


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

    def values(self, table: str, column: str) -> dict[int, Any]:
        """Return a column's values by the id of their row."""
        columns = metadata.tables[table].c
        with self._engine.connect() as connection:
            rows = connection.execute(sa.select(columns.id, columns[column])).all()
        return {row[0]: row[1] for row in rows}

    def texts(self) -> Iterator[tuple[int, int, bytes]]:
        """Give each log with the number of its lines, and its text."""
        chunk = logchunks.c
        columns = (chunk.first_line, chunk.last_line, chunk.content, chunk.compressed)
        with self._engine.connect() as connection:
            for logid, number in connection.execute(sa.select(logs.c.id, logs.c.num_lines)).all():
                found = sa.select(*columns).where(chunk.logid == logid).order_by(chunk.first_line)
                chunks = [Chunk(*row) for row in connection.execute(found)]
                yield logid, number, lines(chunks, 0, number) if number else b""


def acknowledged(file: Path) -> tuple[dict[tuple[str, str], dict[int, int]], int]:
    """Return what the master was told is stored, by table, column and row, and how often it was."""
    values: dict[tuple[str, str], dict[int, int]] = {}
    told = file.read_text().splitlines()
    for line in told:
        table, ident, column, value = line.split()
        values.setdefault((table, column), {})[int(ident)] = int(value)
    return values, len(told)


def complaints(
    stored: Stored, clients: list[Client], followers: list[Follower], told: Path
) -> Iterator[str]:
    """Give a sentence for everything that is not as it should be."""
    events = stored.events()
    if list(events) != list(range(1, stored.newest() + 1)):
        yield f"the event log has a hole: {len(events)} events, the last is {stored.newest()}"
    for client in clients:
        yield from _of_client(client, events)
    for (table, column), values in acknowledged(told)[0].items():
        yield from _lost(table, column, values, stored.values(table, column))
    texts = {}
    for logid, number, text in stored.texts():
        texts[logid] = text
        if text != b"".join(b"%d\n" % line for line in range(number)):
            yield f"the text of log {logid} is not what was written"
    for follower in followers:
        yield from _of_follower(follower, texts)


def _lost(
    table: str, column: str, acknowledged: dict[int, int], found: dict[int, Any]
) -> Iterator[str]:
    # A log may have got more lines, of which its master never heard.
    more = column == "num_lines"
    for ident, value in acknowledged.items():
        there = found.get(ident)
        if there != value and not (more and there is not None and there > value):
            yield f"{table} {ident}: {column} was acknowledged as {value}, and is {there}"


def _of_follower(follower: Follower, texts: dict[int, bytes]) -> Iterator[str]:
    yield from (f"{follower.name}: {sentence}" for sentence in follower.wrong)
    for logid, text in follower.texts.items():
        stored = texts.get(logid, b"")
        if logid in follower.ended and text != stored:
            yield f"{follower.name} has another text of log {logid} than is stored"
        elif not stored.startswith(text):
            yield f"{follower.name} has a text of log {logid} that is no longer there"
    for logid, number in follower.ended.items():
        if texts.get(logid, b"").count(b"\n") != number:
            yield f"{follower.name} was told that log {logid} ended with {number} lines"
    if not follower.wrong and not follower.done:
        yield f"{follower.name} was never told of its log's end"


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
