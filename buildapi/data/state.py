"""A key-value state for pollers and schedulers: tables ``objects`` and ``object_state``."""

from __future__ import annotations

import json
from typing import Annotated, Any

import sqlalchemy as sa
from pydantic import Field
from twisted.internet.defer import Deferred, fail

from buildapi.data.updates import JsonText, Updates, update
from buildapi.data.values import is_text
from buildapi.db.connect import Reader
from buildapi.db.tables import object_state, objects
from buildapi.db.transaction import Tx
from buildapi.errors import BadArgument, NoSuchResource

_MISSING: Any = object()

ObjectName = Annotated[str, Field(min_length=1, max_length=128)]
KeyName = Annotated[str, Field(min_length=1, max_length=255)]

_OBJECT = sa.select(objects.c.id).where(
    objects.c.name == sa.bindparam("name"), objects.c.class_name == sa.bindparam("class_name")
)
_VALUE = (
    sa.select(object_state.c.value_json)
    .join(objects, objects.c.id == object_state.c.objectid)
    .where(
        objects.c.name == sa.bindparam("name"),
        objects.c.class_name == sa.bindparam("class_name"),
        object_state.c.name == sa.bindparam("key"),
    )
)
_OF_KEY = sa.and_(
    object_state.c.objectid == sa.bindparam("objectid_"),
    object_state.c.name == sa.bindparam("key_"),
)
_FORGET = sa.delete(object_state).where(_OF_KEY)


class State(Updates):
    """
    What an object of the configuration remembers: JSON values by name, per (name, class_name).
    """

    def get(self, name: str, class_name: str, key: str, default: Any = _MISSING) -> Deferred[Any]:
        """Fire with the value; without one, with ``default``, or fail with NoSuchResource."""
        words = {"name": name, "class_name": class_name, "key": key}
        for parameter, word in words.items():
            if not isinstance(word, str) or not is_text(word):
                return fail(BadArgument(f"get: {parameter}: a text is wanted"))
        storable = self.database.connector.STORES_NUL or not any("\0" in w for w in words.values())

        def read(reader: Reader) -> Any:
            row = reader.first(_VALUE, words) if storable else None
            if row is not None:
                return json.loads(row[0])
            if default is _MISSING:
                raise NoSuchResource(f"{class_name} {name} remembers no {key}")
            return default

        return self.database.read(read)

    @update
    def set(
        self, tx: Tx, name: ObjectName, class_name: ObjectName, key: KeyName, value: JsonText
    ) -> None:
        """Remember a JSON value; it is durable when the Deferred fires."""
        row = tx.first(_OBJECT, {"name": name, "class_name": class_name})
        objectid = row[0] if row else tx.insert(objects, name=name, class_name=class_name)
        tx.run(_FORGET, {"objectid_": objectid, "key_": key})
        tx.insert_later(object_state, (objectid, key, value))
