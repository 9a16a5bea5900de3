"""Pieces of values, as each way of reading them has them."""

from __future__ import annotations

import pytest

from buildapi.db.blobs import blob_piece, substring
from buildapi.db.connect import Reader
from buildapi.db.tables import build_data
from buildapi.service import BuildAPI
from buildapi.testing import a_build, in_memory_api, result_of

VALUE = bytes(range(256)) * 100


@pytest.fixture
def api() -> BuildAPI:
    """A service in memory that has a value."""
    api = in_memory_api()
    buildid = result_of(a_build(api))
    result_of(api.data.updates.setBuildData(buildid, "report", VALUE, "a step"))
    return api


@pytest.mark.parametrize("in_sql", [False, True], ids=["opened", "in SQL"])
@pytest.mark.parametrize(
    ("start", "size"), [(0, 10), (250, 1000), (25_590, 10), (25_590, 99), (25_600, 1), (0, 99_999)]
)
def test_a_piece_is_what_stands_there(
    api: BuildAPI, start: int, size: int, *, in_sql: bool
) -> None:
    """From any place on, and no more than there is."""

    def read(reader: Reader) -> bytes:
        if in_sql:
            return substring(reader, build_data.c.value, 1, start, size)
        return blob_piece(reader, build_data.c.value, 1, start, size)

    assert result_of(api.data.database.read(read)) == VALUE[start : start + size]
