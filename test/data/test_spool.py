"""Spools: what was read waits for its reader, in memory or in a file, and is gone in the end."""

from __future__ import annotations

import gc
import resource
import signal
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.defer import CancelledError

from buildapi.data.spool import PIECE, Spool
from buildapi.errors import BadQuery, Unavailable


def open_files() -> int:
    """How many files without a name this process has."""
    links = [str(link.readlink()) for link in Path("/proc/self/fd").iterdir() if link.is_symlink()]
    return sum("(deleted)" in link for link in links)


@given(st.lists(st.binary(max_size=30)), st.integers(1, 100))
def test_what_was_put_in_comes_out(parts: list[bytes], in_memory: int) -> None:
    """In memory or in a file, with the separator between what is not empty."""
    with Spool(b", ", in_memory, 10_000) as spool:
        for part in parts:
            spool.append(part)

    whole = b", ".join(part for part in parts if part)
    assert spool.read() == whole
    assert b"".join(spool.pieces()) == whole
    assert spool.size == len(whole)
    assert spool.in_file == (len(whole) > in_memory)
    spool.close()


def test_it_comes_out_in_pieces() -> None:
    """However large the parts were."""
    with Spool(b"", 1, 10 * PIECE) as spool:
        spool.append(b"x" * (2 * PIECE + 1))

    assert [len(piece) for piece in spool.pieces()] == [PIECE, PIECE, 1]
    spool.close()


def test_only_what_is_too_much_for_the_memory_has_a_file() -> None:
    """And that is gone when it is closed."""
    before = open_files()
    spool = Spool(b"", 10, 100)
    with spool:
        spool.append(b"x" * 10)
        assert open_files() == before
        spool.append(b"x")
        assert open_files() == before + 1

    spool.close()
    spool.close()

    assert open_files() == before


def test_a_reading_that_is_made_again_begins_anew() -> None:
    """What the first one read is forgotten."""
    spool = Spool(b",", 2, 100)
    for text in (b"first", b"again"):
        with spool:
            spool.append(text)

    assert spool.read() == b"again"
    spool.close()


def test_too_much_is_refused_with_what_to_do() -> None:
    """What just fits is taken."""
    with Spool(b",", 1, 5) as spool:
        spool.append(b"ab")
        spool.append(b"cd")
        with pytest.raises(BadQuery, match=r"more than 5 bytes; .* limit and offset"):
            spool.append(b"e")
    spool.close()


def test_who_fills_it_for_nobody_is_stopped() -> None:
    """The file is closed by who fills it: nobody takes it away while he writes."""
    before = open_files()
    spool = Spool(b"", 1, 100)
    with spool:
        spool.append(b"xx")
        with ThreadPoolExecutor() as pool:
            pool.submit(spool.close).result()
        assert open_files() == before + 1
        with pytest.raises(CancelledError):
            spool.append(b"x")

    assert open_files() == before
    with pytest.raises(CancelledError), spool:
        pass


@contextmanager
def a_full_disk() -> Iterator[None]:
    """No file may have more than a hundred bytes."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, handler)


def test_a_full_disk_is_told_in_a_sentence() -> None:
    """And leaves nothing open."""
    before = open_files()
    with a_full_disk(), Spool(b"", 1, 10_000) as spool:
        spool.append(b"x" * 50)
        with pytest.raises(Unavailable, match=r"no room for the answer .* limit and offset"):
            spool.append(b"x" * 100)
        spool.close()

    gc.collect()
    assert open_files() == before
