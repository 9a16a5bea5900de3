"""
Update methods: each is one transaction with its events.

``@update`` hides the transaction from callers: they get a Deferred that fires once the change is
durably committed. Arguments are checked against their annotations before anything is queued. The
body is ordinary blocking code with no effects but through ``tx``, so it can be run again.

Several updates become one transaction by ``within``:

    def claim(tx):
        if updates.claimBuildRequests.within(tx, [brid]):
            return updates.newBuild.within(tx, builderid, brid, workerid)
    await api.data.transaction(claim)
"""

from __future__ import annotations

import inspect
import json
from collections.abc import Callable, Mapping
from typing import Annotated, Any, Concatenate, Generic, ParamSpec, TypeVar, get_type_hints

import sqlalchemy as sa
from pydantic import BeforeValidator, ConfigDict, Field, ValidationError, validate_call
from twisted.internet.defer import Deferred, fail

from buildapi.data.schema import Resource
from buildapi.db.connect import Reader
from buildapi.db.engine import Database
from buildapi.db.hashes import name_hash
from buildapi.db.transaction import Tx
from buildapi.errors import BadArgument, Conflict, NoSuchResource

P = ParamSpec("P")
T = TypeVar("T")

# What ids and result codes can be: the columns are 32 bits wide on database servers.
Id = Annotated[int, Field(ge=0, lt=2**31)]
Seconds = Annotated[int, Field(ge=-(2**31), lt=2**31)]
ResultCode = Annotated[int, Field(ge=-1, le=6)]
Name = Annotated[str, Field(min_length=1)]
ShortName = Annotated[str, Field(min_length=1, max_length=50)]
Flag = Annotated[bool, BeforeValidator(lambda value: bool(value) if value in (0, 1) else value)]


class Updates:
    """
    What all update methods share.

    masterid: the serving master, by whom requests are claimed and builds made.
    """

    def __init__(self, database: Database) -> None:
        self.database = database
        self.masterid: int | None = None
        self.log_compression = "gz"

    @property
    def serving(self) -> int:
        """The id of the serving master; Conflict if this process is none."""
        if self.masterid is None:
            raise Conflict(
                "this process is no master: give it a name with the setting server.master"
            )
        return self.masterid


class BoundUpdate(Generic[P, T]):
    """An update method of an API: call it for a Deferred, or ``within`` a transaction."""

    def __init__(self, update: Update[P, T], owner: Any) -> None:
        self._update = update
        self._owner = owner
        self.__doc__ = update.__doc__

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> Deferred[T]:
        """Queue the update; fire with its result once it is durably committed."""
        try:
            given, named = self._update.checked(*args, **kwargs)
        except BadArgument:
            return fail()
        owner, function = self._owner, self._update.function
        return self._owner.database.write(lambda tx: function(owner, tx, *given, **named))  # type: ignore[no-any-return]

    def within(self, tx: Tx, *args: P.args, **kwargs: P.kwargs) -> T:
        """Do the update as part of ``tx``; raises what else the Deferred would fail with."""
        given, named = self._update.checked(*args, **kwargs)
        return self._update.function(self._owner, tx, *given, **named)


class Update(Generic[P, T]):
    """The declaration of an update method; found on an object it is a ``BoundUpdate``."""

    def __init__(self, function: Callable[Concatenate[Any, Tx, P], T]) -> None:
        self.function = function
        self.__doc__ = function.__doc__
        self.name = function.__name__
        self.signature = _public(function)
        self._check: Callable[..., tuple[Any, Any]] | None = None

    def __get__(self, instance: Any, owner: type[Any]) -> BoundUpdate[P, T]:
        """Bind to the API's updates."""
        return BoundUpdate(self, instance)

    def checked(self, *args: Any, **kwargs: Any) -> tuple[Any, Any]:
        """Return the arguments as their annotations want them, or raise BadArgument."""
        if self._check is None:
            self._check = _checker(self.function, self.signature)
        try:
            return self._check(*args, **kwargs)
        except ValidationError as error:
            first = error.errors(include_url=False, include_input=False, include_context=False)[0]
            place, *inside = first["loc"]
            if isinstance(place, int) and place < len(self.signature.parameters):
                place = list(self.signature.parameters)[place]
            where = ".".join(map(str, (place, *inside)))
            raise BadArgument(f"{self.name}: {where}: {first['msg']}") from None


def update(function: Callable[Concatenate[Any, Tx, P], T]) -> Update[P, T]:
    """Make a function of ``(self, tx, …)`` an update method."""
    return Update(function)


def _public(function: Callable[..., Any]) -> inspect.Signature:
    signature = inspect.signature(function)
    return signature.replace(parameters=list(signature.parameters.values())[2:])


def _checker(
    function: Callable[..., Any], signature: inspect.Signature
) -> Callable[..., tuple[Any, Any]]:
    def given(*args: Any, **kwargs: Any) -> tuple[Any, Any]:
        return args, kwargs

    hints = get_type_hints(function, include_extras=True)
    parameters = [p.replace(annotation=hints[name]) for name, p in signature.parameters.items()]
    given.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    given.__annotations__ = {name: hints[name] for name in signature.parameters}
    config = ConfigDict(strict=True, arbitrary_types_allowed=True)
    checker: Callable[..., tuple[Any, Any]] = validate_call(config=config)(given)
    return checker


def must_exist(reader: Reader, resource: type[Resource], ident: int) -> tuple[Any, ...]:
    """Return the row of the object's table; NoSuchResource if there is none."""
    (key,) = resource.table.primary_key.columns
    row = reader.first(
        sa.select(resource.table).where(key == sa.bindparam("ident")), {"ident": ident}
    )
    if row is None:
        raise NoSuchResource(f"there is no {resource.__name__.lower()} {ident}")
    return row


def found_or_made(tx: Tx, resource: type[Resource], name: str, **values: Any) -> int:
    """Return the id of the row with this name; make it, and say so, if there is none."""
    table = resource.table
    where, params = _named(table, name)
    row = tx.first(sa.select(table.c.id).where(where), params)
    if row is not None:
        return int(row[0])
    ident = tx.insert(table, name=name, **values, **_hash_of(table, name))
    tx.emit(resource, ident, "new")
    return ident


def _named(table: sa.Table, name: str) -> tuple[sa.ColumnElement[bool], dict[str, Any]]:
    if "name_hash" in table.c:
        return table.c.name_hash == sa.bindparam("hash"), {"hash": name_hash(name)}
    return table.c.name == sa.bindparam("name"), {"name": name}


def _hash_of(table: sa.Table, name: str) -> dict[str, str]:
    return {"name_hash": name_hash(name)} if "name_hash" in table.c else {}


def json_text(value: Any) -> str:
    """Return a value as the database keeps it; BadArgument if JSON has no such value."""
    try:
        return json.dumps(value)
    except (TypeError, ValueError) as error:
        raise BadArgument(f"a property must be JSON: {error}") from None


def as_mapping(properties: Any) -> Mapping[str, Any]:
    """Return ``{name: (value, source)}`` from such a mapping, or from an object with ``asDict``."""
    found = properties.asDict() if hasattr(properties, "asDict") else properties
    if not isinstance(found, Mapping):
        raise BadArgument("properties must be a mapping of names to (value, source)")
    for name, pair in found.items():
        if not isinstance(name, str) or not isinstance(pair, (tuple, list)) or len(pair) != 2:  # noqa: PLR2004
            raise BadArgument("properties must be a mapping of names to (value, source)")
    return found
