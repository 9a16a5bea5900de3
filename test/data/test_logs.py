"""Logs: appended text is what is read, in order, by lines, whatever happens to its chunks."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
import pytest_twisted
import sqlalchemy as sa
from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.internet.defer import Deferred, gatherResults

from buildapi.data.logchunks import RawLog, part, raw_log
from buildapi.data.logupdates import MOST_INLINE
from buildapi.db import tables as t
from buildapi.db.connect import Reader
from buildapi.db.transaction import Tx
from buildapi.errors import Conflict, NoSuchResource
from buildapi.mq.event import Event
from buildapi.service import BuildAPI
from buildapi.settings import Database, Server, Settings
from buildapi.testing import RecordingSubscriber, in_memory_api, result_of


def a_log(api: BuildAPI, name: str = "stdio", type: str = "s") -> int:  # noqa: A002
    """Make a build with a step with a log, in a database without any."""
    updates = api.data.updates
    builderid = result_of(updates.findBuilderId("b"))
    workerid = result_of(updates.findWorkerId("w"))
    _, brids = result_of(updates.addBuildset(builderids=[builderid]))
    buildid, _ = result_of(updates.newBuild(builderid, brids[builderid], workerid))
    stepid, _, _ = result_of(updates.addStep(buildid, "compile"))
    logid: int = result_of(updates.addLog(stepid, name, type))
    return logid


def contents(api: BuildAPI, logid: int, **window: Any) -> Any:
    """Read lines of a log: where they begin, and the text."""
    found = result_of(api.data.get(("logs", logid, "contents"), **window))
    assert found["logid"] == logid
    return found["firstline"], found["content"]


def chunks(api: BuildAPI, logid: int) -> list[Any]:
    """Return what is stored of a log: first and last line, method, number of bytes."""
    columns = t.logchunks.c
    statement = (
        sa.select(
            columns.first_line,
            columns.last_line,
            columns.compressed,
            sa.func.length(columns.content),
        )
        .where(columns.logid == logid)
        .order_by(columns.first_line)
    )
    found: list[Any] = result_of(api.data.database.read(lambda r: r.rows(statement, {})))
    return found


# Names


def test_slugs_are_identifiers_unique_in_their_step(api: BuildAPI, stepid: int) -> None:
    """The first clash gets _2."""
    names = ("stdio", "stdio", "report.html", "123", "ärger", "report html", "x" * 60, "x" * 70)
    made = [result_of(api.data.updates.addLog(stepid, name, "t")) for name in names]
    logs = [result_of(api.data.get(("logs", logid))) for logid in made]

    assert [log["slug"] for log in logs] == [
        *("stdio", "stdio_2", "report_html", "_23", "_rger", "report_html_2"),
        *("x" * 50, "x" * 48 + "_2"),
    ]
    assert [log["name"] for log in logs] == list(names)
    for log in logs:
        path = ("builds", 1, "steps", "compile", "logs", log["slug"])
        assert result_of(api.data.get(path)) == log


# Lines


def test_a_new_log_is_empty(api: BuildAPI, logid: int) -> None:
    """Its contents are there all the same."""
    assert contents(api, logid) == (0, "")
    assert contents(api, logid, limit=0) == (0, "")
    assert contents(api, logid, limit=5, offset=3) == (3, "")
    with pytest.raises(NoSuchResource, match="the log has 0 lines"):
        contents(api, logid, offset=1)


@pytest.mark.parametrize(
    ("offset", "limit", "expected"),
    [
        (None, None, (0, "oa\n\noc\n")),
        (1, None, (1, "\noc\n")),
        (2, None, (2, "oc\n")),
        (0, 2, (0, "oa\n\n")),
        (1, 1, (1, "\n")),
        (1, 99, (1, "\noc\n")),
        (3, 1, (3, "")),
        (99, 1, (99, "")),
        (1, 0, (1, "")),
        (2**70, 2**70, (2**63 - 1, "")),
    ],
)
def test_a_window_is_of_whole_lines(
    api: BuildAPI, logid: int, offset: int | None, limit: int | None, expected: tuple[int, str]
) -> None:
    """With a limit, one past the end is empty."""
    for text in ("oa\n", "\noc\n"):
        result_of(api.data.updates.appendLog(logid, text))

    assert contents(api, logid, offset=offset, limit=limit) == expected


def test_a_window_past_the_end_without_a_limit_is_missing(api: BuildAPI, logid: int) -> None:
    """So that a client which lost count notices."""
    result_of(api.data.updates.appendLog(logid, "oa\nob\n"))

    with pytest.raises(NoSuchResource, match="there is none from 2 on"):
        contents(api, logid, offset=2)


@pytest.mark.parametrize("window", [{}, {"limit": 1}])
def test_the_contents_of_a_missing_log_are_missing(api: BuildAPI, window: Any) -> None:
    """With a limit too; a bare /logchunks names no log."""
    with pytest.raises(NoSuchResource):
        contents(api, 99, **window)
    with pytest.raises(NoSuchResource, match="name a log"):
        result_of(api.data.get("logchunks"))


_lines = st.text(st.sampled_from("aé☃\x0b\x0c\x85\u2028\r\t\0 "), max_size=5)
_texts = st.lists(st.lists(_lines, min_size=1, max_size=6), max_size=12)


@settings(max_examples=60)
@given(_texts, st.sampled_from(["raw", "gz", "bz2", "lz4", "zstd", "br"]), st.randoms())
def test_what_is_read_is_what_was_appended(
    texts: list[list[str]], method: str, random: random.Random
) -> None:
    """Any window, before and after the chunks were merged, with every compression."""
    api = in_memory_api()
    api.data.updates.log_compression = method
    logid = a_log(api)
    lines: list[str] = []
    for text in texts:
        # Some long enough to be compressed, or cut in the pool.
        longer = [line * random.choice([1, 1, 300, MOST_INLINE]) for line in text]
        said = result_of(api.data.updates.appendLog(logid, "".join(f"{x}\n" for x in longer)))
        assert said == (len(lines), len(lines) + len(longer) - 1)
        lines += longer
    for compress in (False, True):
        if compress:
            result_of(api.data.updates.compressLog(logid))
        first, last = sorted(random.choices(range(len(lines) + 1), k=2))
        window = contents(api, logid, offset=first, limit=last - first)

        assert contents(api, logid) == (0, "".join(f"{line}\n" for line in lines))
        assert window == (first, "".join(f"{line}\n" for line in lines[first:last]))
        assert result_of(api.data.get(("logs", logid)))["num_lines"] == len(lines)


def test_lines_are_also_appended_within_a_transaction(api: BuildAPI, stepid: int) -> None:
    """A whole log at once: made, filled, finished; or not at all."""
    updates = api.data.updates

    def write(tx: Any) -> Any:
        logid = updates.addLog.within(tx, stepid, "summary", "t")
        updates.appendLog.within(tx, logid, "one\n")
        updates.appendLog.within(tx, logid, "two\nthree\n")
        updates.finishLog.within(tx, logid)
        return logid

    logid = result_of(api.data.transaction(write))
    log = result_of(api.data.get(("logs", logid)))

    assert contents(api, logid) == (0, "one\ntwo\nthree\n")
    assert (log["num_lines"], log["complete"]) == (3, True)


def test_a_complete_log_takes_no_more(api: BuildAPI, logid: int) -> None:
    """Neither short texts nor long ones."""
    result_of(api.data.updates.finishLog(logid))

    for text in ("o\n", "o\n" * MOST_INLINE):
        with pytest.raises(Conflict, match="complete"):
            result_of(api.data.updates.appendLog(logid, text))
    assert contents(api, logid) == (0, "")


def test_no_character_is_a_reason_to_lose_a_line(api: BuildAPI, logid: int) -> None:
    """Output is decoded with surrogateescape here and there; a NUL is a byte like any other."""
    append = api.data.updates.appendLog
    result_of(append(logid, "o\udcff\0\n"))
    result_of(api.data.transaction(lambda tx: append.within(tx, logid, "o\udcff\0\n")))

    assert contents(api, logid) == (0, "o?\0\no?\0\n")


def test_what_failed_is_not_counted(api: BuildAPI, logid: int) -> None:
    """What the writer remembers of a log is forgotten with the transaction."""
    updates = api.data.updates
    result_of(updates.appendLog(logid, "one\n"))

    def fail(tx: Any) -> None:
        updates.appendLog.within(tx, logid, "never\n")
        raise Conflict("later")

    with pytest.raises(Conflict):
        result_of(api.data.transaction(fail))
    assert result_of(updates.appendLog(logid, "two\n")) == (1, 1)
    assert contents(api, logid) == (0, "one\ntwo\n")


# Compression


def test_neighbouring_chunks_are_merged(api: BuildAPI, logid: int) -> None:
    """What is saved is told; what is read stays."""
    updates = api.data.updates
    for number in range(50):
        result_of(updates.appendLog(logid, f"oline {number}\n"))
    before, text = chunks(api, logid), contents(api, logid)
    saved = result_of(updates.compressLog(logid))
    ((first, last, method, size),) = chunks(api, logid)

    assert (first, last, method) == (0, 49, 1)
    assert saved == sum(row[3] for row in before) - size > 0
    assert contents(api, logid) == text
    assert result_of(updates.compressLog(logid)) == 0


def test_chunks_that_somebody_else_replaced_stay(api: BuildAPI, logid: int) -> None:
    """Two at once must not store lines twice."""
    updates = api.data.updates
    for number in range(3):
        result_of(updates.appendLog(logid, f"oline {number}\n"))
    writing, calls = api.data.database.write, []

    def meddling(body: Any) -> Any:
        calls.append(body)
        if len(calls) == 1:
            result_of(updates.compressLog(logid))
        return writing(body)

    api.data.database.write = meddling  # type: ignore[method-assign]
    with pytest.raises(Conflict, match="by somebody else"):
        result_of(updates.compressLog(logid))

    assert len(calls) == 2
    assert contents(api, logid) == (0, "oline 0\noline 1\noline 2\n")
    assert [row[:2] for row in chunks(api, logid)] == [(0, 2)]


# Raw


class MergedMeanwhile(Reader):
    """A reader between whose first two statements a log is compressed."""

    def __init__(self, reader: Reader, api: BuildAPI, logid: int) -> None:
        super().__init__(reader.connection, reader.connector)
        self._merge: Callable[[], object] = lambda: result_of(api.data.updates.compressLog(logid))

    def rows(self, statement: sa.ClauseElement, params: dict[str, Any]) -> Any:
        """Run a SELECT, then what happens meanwhile."""
        found = super().rows(statement, params)
        merge, self._merge = self._merge, lambda: None
        merge()
        return found


def test_lines_come_once_though_chunks_are_merged_meanwhile(api: BuildAPI, logid: int) -> None:
    """The merged chunk begins with lines that were read before."""
    for number in range(60):
        result_of(api.data.updates.appendLog(logid, f"o{number}\n"))
    result_of(api.data.updates.finishLog(logid))

    found = result_of(
        api.data.database.read(lambda r: part(MergedMeanwhile(r, api, logid), logid, 0, 60))
    )

    assert found.text.decode() == "".join(f"o{number}\n" for number in range(60))
    assert (found.next, found.missing) == (60, 0)


def raw(api: BuildAPI, logid: int) -> tuple[Any, bytes]:
    """Return what a raw download of a log is made of, and its text."""
    found = result_of(
        api.data.database.read(lambda r: raw_log(r, "logs/n:logid/raw", {"logid": logid}, None))
    )
    lines = result_of(api.data.database.read(lambda r: part(r, logid, 0, found.num_lines, 2**20)))
    return found, found.shown(lines.text)


def test_a_raw_log_of_a_command_loses_its_stream_characters(api: BuildAPI, logid: int) -> None:
    """And tells where it comes from."""
    result_of(api.data.updates.appendLog(logid, "hmake\noone\n\ne\n"))
    found, text = raw(api, logid)

    assert text == b"make\none\n\n\n"
    assert found.heading == b"Builder: runtests\nBuild number: 1\nWorker name: worker-1\n"
    assert found.filename == "runtests_build_1_step_compile_log_stdio"
    assert found.content_type == b"text/plain; charset=utf-8"


@pytest.mark.parametrize(("type_", "content_type"), [("t", b"text/plain"), ("h", b"text/html")])
def test_a_raw_text_is_as_it_is(
    api: BuildAPI, stepid: int, type_: str, content_type: bytes
) -> None:
    """It has no stream characters, and no heading."""
    logid = result_of(api.data.updates.addLog(stepid, "report", type_))
    result_of(api.data.updates.appendLog(logid, "one\n"))
    found, text = raw(api, logid)

    assert (text, found.heading) == (b"one\n", b"")
    assert found.content_type.startswith(content_type)


def test_where_a_log_is_read_costs_nothing() -> None:
    """To read its last lines is as little work as to read its first, however many chunks it has."""
    api = in_memory_api()
    logid = a_log(api)

    def store(tx: Tx) -> None:
        for line in range(5_000):
            tx.insert_later(t.logchunks, (logid, line, line, b"o", 0))

    result_of(api.data.transaction(store))

    def steps(reader: Reader, first: int) -> int:
        taken: list[None] = []
        reader.connection.set_progress_handler(lambda: taken.append(None), 10)
        assert part(reader, logid, first, first + 4).next == first + 4
        reader.connection.set_progress_handler(None, 0)
        return len(taken)

    beginning, end = (
        result_of(api.data.database.read(lambda r: steps(r, first)))  # noqa: B023  read at once
        for first in (0, 4_990)
    )
    assert end < beginning + 10


@given(st.lists(st.binary(max_size=5).map(lambda line: line.replace(b"\n", b""))))
def test_every_line_loses_its_first_character(lines: list[bytes]) -> None:
    """Whatever that is; an empty line has none to lose."""
    log = RawLog(1, len(lines), "s", "", b"")

    shown = log.shown(b"".join(line + b"\n" for line in lines))

    assert shown == b"".join(line[1:] + b"\n" for line in lines)


# With real threads and a real file


@pytest_twisted.async_yield_fixture()
async def on_disk(tmp_path: Path) -> AsyncIterator[BuildAPI]:
    """An API whose database is a file: its reads and writes happen in threads."""
    settings = Settings(
        server=Server(listen=None), database=Database(url=f"sqlite:///{tmp_path / 'state.sqlite'}")
    )
    async with BuildAPI(settings, master="test:/master") as api:
        yield api


async def a_log_on_disk(api: BuildAPI) -> int:
    """Make a build with a step with a log."""
    updates = api.data.updates
    builderid, workerid = await updates.findBuilderId("b"), await updates.findWorkerId("w")
    _, brids = await updates.addBuildset(builderids=[builderid])
    buildid, _ = await updates.newBuild(builderid, brids[builderid], workerid)
    stepid, _, _ = await updates.addStep(buildid, "compile")
    return await updates.addLog(stepid, "stdio", "s")


@pytest_twisted.ensureDeferred
async def test_texts_of_all_lengths_are_stored_in_the_order_of_the_calls(
    on_disk: BuildAPI,
) -> None:
    """A long one is cut in the pool, which takes its time: the short one after it waits."""
    updates = on_disk.data.updates
    logids = [await a_log_on_disk(on_disk) for _ in range(2)]
    chance = random.Random(7)
    appending: list[Deferred[Any]] = []
    expected: dict[int, list[str]] = {logid: [] for logid in logids}
    for number in range(150):
        logid = chance.choice(logids)
        text = "".join(
            f"o{number} {'x' * chance.choice([0, 10, 3000])}\n"
            for _ in range(chance.choice([1, 1, 2, 50]))
        )
        expected[logid].append(text)
        appending.append(updates.appendLog(logid, text))
    appending += [updates.finishLog(logid) for logid in logids]
    await gatherResults(appending)

    for logid in logids:
        log = await on_disk.data.get(("logs", logid))
        found = await on_disk.data.get(("logs", logid, "contents"))
        assert found["content"] == "".join(expected[logid])
        assert log["num_lines"] == found["content"].count("\n")
        assert log["complete"] is True
    assert updates._turns == {}


@pytest_twisted.ensureDeferred
async def test_a_failed_append_holds_nobody_up(on_disk: BuildAPI) -> None:
    """What comes after it is stored; the failure is its caller's alone."""
    updates = on_disk.data.updates
    logid = await a_log_on_disk(on_disk)
    long = "o" + "x" * MOST_INLINE + "\n"
    failing = [updates.appendLog(99, long), updates.appendLog(99, "oshort\n")]
    storing = [updates.appendLog(logid, text) for text in (long, "oshort\n", long)]

    for one in failing:
        with pytest.raises(NoSuchResource):
            await one
    assert await gatherResults(storing) == [(0, 0), (1, 1), (2, 2)]
    assert updates._turns == {}


@pytest_twisted.ensureDeferred
async def test_the_log_of_events_is_in_the_order_of_the_lines(on_disk: BuildAPI) -> None:
    """Each append's event has the number of lines after it; the last one is complete."""
    updates = on_disk.data.updates
    logid = await a_log_on_disk(on_disk)
    recorded = RecordingSubscriber(on_disk, "build.*.step.*.log.#")
    sizes = [1, 5000, 1, 1, 5000, 1]
    done: list[Deferred[Any]] = [updates.appendLog(logid, "o\n" * size) for size in sizes]
    await gatherResults([*done, updates.finishLog(logid)])

    counted = [_num_lines(event) for event in recorded.events]
    assert counted == [*(sum(sizes[: n + 1]) for n in range(len(sizes))), sum(sizes)]
    assert recorded.topics[-1].endswith(f"log.{logid}.complete")


def _num_lines(event: Event) -> int:
    lines: int = event.message["num_lines"]
    return lines
