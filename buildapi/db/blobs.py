"""Pieces of large values, read without the rest of them."""

from __future__ import annotations

from functools import cache

import sqlalchemy as sa

from buildapi.db.connect import Reader


def blob_piece(
    reader: Reader, column: sa.Column[bytes], ident: int, start: int, size: int
) -> bytes:
    """
    Read at most ``size`` bytes, from ``start`` on, of a value in the row with this ``id``.

    The row must be there, and the value at least ``start`` bytes long.
    """
    if reader.dialect.name == "sqlite":
        # Its substr() takes the whole value into memory, for every piece.
        with reader.connection.blobopen(
            column.table.name, column.name, ident, readonly=True
        ) as blob:
            blob.seek(start)
            found: bytes = blob.read(size)
            return found
    return substring(reader, column, ident, start, size)


def substring(reader: Reader, column: sa.Column[bytes], ident: int, start: int, size: int) -> bytes:
    """Read the same in SQL: what a database server does well enough."""
    ((piece,),) = reader.rows(
        _substring_of(column), {"id": ident, "start": start + 1, "size": size}
    )
    return bytes(piece)


@cache
def _substring_of(column: sa.Column[bytes]) -> sa.Select[tuple[bytes]]:
    piece = sa.func.substr(column, sa.bindparam("start"), sa.bindparam("size"))
    return sa.select(piece).where(column.table.c.id == sa.bindparam("id"))
