"""Downloads of build data: in pieces, and never of two values."""

from __future__ import annotations

from http.client import IncompleteRead
from random import Random

import pytest

from buildapi.db.tables import build_data
from buildapi.service import BuildAPI
from buildapi.settings import Database, Settings
from buildapi.testing import WebClient, Wire, a_build, answered, in_memory_api, result_of
from buildapi.www.rawvalue import MOST_PIECES, PIECE_BYTES

PATH = "/api/v2/builds/1/data/image/value"
GET = f"GET {PATH} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".encode()
LONG = Random(1).randbytes(5 * PIECE_BYTES + 1)
SOURCE = "a step"


def a_value(api: BuildAPI, value: bytes = LONG) -> None:
    """Let build 1 leave a value."""
    buildid = result_of(a_build(api))
    result_of(api.data.updates.setBuildData(buildid, "image", value, SOURCE))


def begun(api: BuildAPI) -> Wire:
    """Begin a download, of which only the first pieces are read."""
    wire = Wire(api)
    wire.slow = True
    wire.send(GET)
    assert not wire.closed
    return wire


def rest(wire: Wire) -> bytes:
    """Take all that there is to come."""
    received = b""
    while not wire.closed:
        received += wire.sip()
    return received + wire.sip()


# MariaDB takes no statement of more than 16 MB, unless it is told to.
@pytest.mark.systems("sqlite", "postgresql")
@pytest.mark.parametrize(
    "value",
    [
        b"",
        b"x",
        LONG[:PIECE_BYTES],
        LONG,
        Random(1).randbytes(MOST_PIECES * PIECE_BYTES + 1),
    ],
    ids=lambda value: f"{len(value)} bytes",
)
def test_a_value_comes_whole(api: BuildAPI, web: WebClient, value: bytes) -> None:
    """With its length, and as it is, whatever codings are accepted."""
    a_value(api, value)

    answer = web.get(PATH, {"Accept-Encoding": "gzip, br"})

    assert answer.body == value
    assert answer.headers["content-length"] == str(len(value))
    assert answer.headers["content-encoding"] is None


def test_the_length_is_that_of_the_bytes(api: BuildAPI, web: WebClient) -> None:
    """Another program may have written down another one."""
    a_value(api)
    result_of(api.data.transaction(lambda tx: tx.change(build_data, 1, length=7)))

    answer = web.get(PATH)

    assert answer.headers["content-length"] == str(len(LONG))
    assert answer.body == LONG


def test_head_has_no_length(api: BuildAPI, web: WebClient) -> None:
    """As the contract has it for every download."""
    a_value(api)

    assert web.request("HEAD", PATH).headers["content-length"] is None


def test_a_slow_reader_makes_nothing_pile_up(api: BuildAPI) -> None:
    """A piece is sent when the last one was taken."""
    a_value(api)
    wire = begun(api)

    most, received = wire.waiting, b""
    while not wire.closed:
        received += wire.sip()
        most = max(most, wire.waiting)

    assert answered(received + wire.sip()).body == LONG
    assert most < 2 * PIECE_BYTES


@pytest.mark.parametrize("foreign_writer", [False, True])
@pytest.mark.parametrize(
    ("value", "source"),
    [(LONG[::-1], "a later step"), (LONG[:-1], SOURCE), (b"", SOURCE)],
    ids=["by another", "shorter", "empty"],
)
def test_two_values_are_not_mixed(value: bytes, source: str, *, foreign_writer: bool) -> None:
    """The connection is cut when the value is replaced while it is sent."""
    api = in_memory_api(Settings(database=Database(foreign_writer=foreign_writer)))
    a_value(api)
    wire = begun(api)

    result_of(api.data.updates.setBuildData(1, "image", value, source))

    received = rest(wire)
    assert wire.cut
    with pytest.raises(IncompleteRead):
        answered(received)


def test_an_equal_length_is_no_disguise(api: BuildAPI) -> None:
    """The event log tells of a value that only has other bytes."""
    a_value(api)
    wire = begun(api)

    result_of(api.data.updates.setBuildData(1, "image", LONG[::-1], SOURCE))

    rest(wire)
    assert wire.cut


def test_a_value_that_is_deleted_breaks_the_connection(api: BuildAPI) -> None:
    """Half of it must not look like all of it."""
    a_value(api)
    wire = begun(api)

    result_of(api.data.transaction(lambda tx: tx.run(build_data.delete())))

    rest(wire)
    assert wire.cut


def test_other_values_may_change(api: BuildAPI) -> None:
    """Also those of the same build."""
    a_value(api)
    wire = begun(api)

    result_of(api.data.updates.setBuildData(1, "report", b"other", SOURCE))

    assert answered(rest(wire)).body == LONG
