"""
Update methods: each is one transaction with its events.

``@update`` hides the transaction from callers: they get a Deferred that fires once the change is
durably committed. Arguments are checked against their annotations, and made into what is stored,
before anything is queued: what a caller changes afterwards changes nothing. The body is ordinary
blocking code with no effects but through ``tx``, so it can be run again.

Several updates become one transaction by ``within``:

    def claim(tx):
        if updates.claimBuildRequests.within(tx, [brid]):
            return updates.newBuild.within(tx, builderid, brid, workerid)
    await api.data.transaction(claim)
"""

from __future__ import annotations

import inspect
import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import is_dataclass
from datetime import datetime
from functools import lru_cache
from typing import (
    Annotated,
    Any,
    Concatenate,
    Generic,
    NamedTuple,
    ParamSpec,
    TypeGuard,
    TypeVar,
    get_type_hints,
)

import orjson
import sqlalchemy as sa
from pydantic import (
    AfterValidator,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationError,
    validate_call,
)
from twisted.internet.defer import Deferred, fail

from buildapi.data.schema import Resource
from buildapi.data.storedjson import valid_json
from buildapi.data.values import is_text
from buildapi.db.connect import Reader
from buildapi.db.engine import Database
from buildapi.db.hashes import name_hash
from buildapi.db.transaction import Tx
from buildapi.errors import BadArgument, Conflict, NoSuchResource

P = ParamSpec("P")
T = TypeVar("T")


class Stored(NamedTuple):
    """A property as it is stored: the JSON text of its value, and its source."""

    text: str
    source: str

    @property
    def pair(self) -> str:
        """Return both as one JSON text: ``[value, source]``."""
        return f"[{self.text}, {json.dumps(self.source)}]"

    @property
    def shown(self) -> list[Any]:
        """Return both as an answer or an event shows them; for orjson."""
        return [orjson.Fragment(valid_json(self.text)), self.source]


def json_text(value: Any) -> str:
    """Return a value as the database keeps it; ValueError if JSON has no such value."""
    try:
        return json.dumps(value)
    except (TypeError, ValueError, RecursionError) as error:
        raise ValueError(f"it must be JSON: {error}") from None


def stored_properties(given: Any) -> dict[str, Stored]:
    """
    Return the properties of a mapping ``{name: (value, source)}``, or of an object with ``asDict``
    that gives one, as they are stored.
    """
    found = given.asDict() if hasattr(given, "asDict") else given
    if not isinstance(found, Mapping) or not all(map(_is_pair, found.values())):
        raise ValueError("a mapping of names to (value, source) is wanted")
    for name, (_, source) in found.items():
        if not name or not _fits(name) or not _fits(source):
            raise ValueError(f"{name!r:.60}: its name and its source must be texts that fit in 256")
    return {name: Stored(json_text(value), source) for name, (value, source) in found.items()}


def _is_pair(value: Any) -> bool:
    return isinstance(value, (tuple, list)) and len(value) == len(Stored._fields)


def _fits(value: Any) -> bool:
    return isinstance(value, str) and len(value) <= 256 and is_text(value)  # noqa: PLR2004  the columns' width


def _epoch(moment: Any) -> Any:
    return int(moment.timestamp()) if isinstance(moment, datetime) else moment


# What ids and result codes can be: the columns are 32 bits wide on database servers.
Id = Annotated[int, Field(ge=0, lt=2**31)]


def is_id(value: Any) -> TypeGuard[int]:
    """Say the same of a value that is checked by hand."""
    return type(value) is int and 0 <= value < 2**31


Seconds = Annotated[int, Field(ge=-(2**31), lt=2**31)]
Moment = Annotated[datetime | Seconds, BeforeValidator(_epoch)]
ResultCode = Annotated[int, Field(ge=0, le=6)]
Name = Annotated[str, Field(min_length=1)]
ShortName = Annotated[str, Field(min_length=1, max_length=50)]
Text255 = Annotated[str, Field(max_length=255)]
Text256 = Annotated[str, Field(max_length=256)]
Text512 = Annotated[str, Field(max_length=512)]
PropertyName = Annotated[str, Field(min_length=1, max_length=256)]
Flag = Annotated[bool, BeforeValidator(lambda value: bool(value) if value in (0, 1) else value)]
# Whatever is given, the body gets what is stored of it: a text, a dictionary of ``Stored``.
JsonText = Annotated[Any, BeforeValidator(json_text)]
JsonObject = Annotated[dict[str, Any], AfterValidator(json_text)]
Sourced = Annotated[Any, BeforeValidator(stored_properties)]


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
        self._function: Callable[..., T] = update.function
        self._owner = owner
        self.__doc__ = update.__doc__

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> Deferred[T]:
        """Queue the update; fire with its result once it is durably committed."""
        try:
            arguments = self._checked(*args, **kwargs)
        except Exception:  # noqa: BLE001  whatever a caller's own objects raise, it is on the Deferred
            return fail()
        return self._queued(arguments)

    def _queued(self, arguments: dict[str, Any]) -> Deferred[T]:
        owner, function = self._owner, self._function
        queued: Deferred[T] = owner.database.write(lambda tx: function(owner, tx, **arguments))
        return queued

    def within(self, tx: Tx, *args: P.args, **kwargs: P.kwargs) -> T:
        """Do the update as part of ``tx``; raises what else the Deferred would fail with."""
        return self._function(self._owner, tx, **self._checked(*args, **kwargs))

    def _checked(self, *args: P.args, **kwargs: P.kwargs) -> dict[str, Any]:
        arguments = self._update.checked(*args, **kwargs)
        if not self._owner.database.connector.STORES_NUL:
            self._update.check_nul(arguments)
        return arguments


class Update(Generic[P, T]):
    """The declaration of an update method; found on an object it is a ``BoundUpdate``."""

    bound: type[BoundUpdate[Any, Any]] = BoundUpdate

    def __init__(self, function: Callable[Concatenate[Any, Tx, P], T]) -> None:
        self.function = function
        self.__doc__ = function.__doc__
        self.name = function.__name__
        self.signature = _public(function)
        self._check: Callable[..., dict[str, Any]] | None = None
        self._prepare: Callable[[dict[str, Any]], None] | None = None

    def __get__(self, instance: Any, owner: type[Any]) -> BoundUpdate[P, T]:
        """Bind to the API's updates."""
        return self.bound(self, instance)

    def prepared(self, prepare: Callable[[dict[str, Any]], None]) -> Update[P, T]:
        """
        Let ``prepare`` change the arguments, by name, before the update is queued: there the
        caller's own code may run. It raises ValueError for what cannot be.
        """
        self._prepare = prepare
        return self

    def checked(self, *args: Any, **kwargs: Any) -> dict[str, Any]:
        """Return the arguments by name, as their annotations want them, or raise BadArgument."""
        if self._check is None:
            self._check = _checker(self.function, self.signature)
        try:
            arguments = self._check(*args, **kwargs)
            if self._prepare is not None:
                self._prepare(arguments)
            for name, value in arguments.items():
                if not all(map(is_text, _texts(value))):
                    raise ValueError(f"{name}: UTF-8 has no lone surrogates; use errors='replace'")  # noqa: TRY301
        except ValidationError as error:
            raise BadArgument(f"{self.name}: {self._first(error)}") from None
        except ValueError as error:
            raise BadArgument(f"{self.name}: {error}") from None
        return arguments

    def check_nul(self, arguments: dict[str, Any]) -> None:
        """Raise BadArgument if a text has the character NUL."""
        for name, value in arguments.items():
            if any("\0" in text for text in _texts(value)):
                sentence = "this database cannot store the character NUL"
                raise BadArgument(f"{self.name}: {name}: {sentence}")

    def _first(self, error: ValidationError) -> str:
        """Return the first thing that is wrong: the parameter, the place in it, the reason."""
        first = error.errors(include_url=False, include_input=False, include_context=False)[0]
        place, *inside = first["loc"]
        if isinstance(place, int) and place < len(self.signature.parameters):
            place = list(self.signature.parameters)[place]
        # Names of types stand in it too, where several are allowed; only the index helps.
        where = ".".join(map(str, (place, *(p for p in inside if isinstance(p, int)))))
        return f"{where}: {first['msg'].removeprefix('Value error, ')}"


def update(function: Callable[Concatenate[Any, Tx, P], T]) -> Update[P, T]:
    """Make a function of ``(self, tx, …)`` an update method."""
    return Update(function)


def _public(function: Callable[..., Any]) -> inspect.Signature:
    signature = inspect.signature(function)
    return signature.replace(parameters=list(signature.parameters.values())[2:])


def _checker(
    function: Callable[..., Any], signature: inspect.Signature
) -> Callable[..., dict[str, Any]]:
    names = list(signature.parameters)

    def given(*args: Any, **kwargs: Any) -> dict[str, Any]:
        return {**dict(zip(names, args, strict=False)), **kwargs}

    hints = get_type_hints(function, include_extras=True)
    parameters = [p.replace(annotation=hints[name]) for name, p in signature.parameters.items()]
    given.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    given.__annotations__ = {name: hints[name] for name in names}
    config = ConfigDict(strict=True, arbitrary_types_allowed=True)
    checker: Callable[..., dict[str, Any]] = validate_call(config=config)(given)
    return checker


def _texts(value: Any) -> Iterator[str]:
    """Yield every text in what an update gets."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for pair in value.items():
            yield from _texts(pair)
    elif isinstance(value, (list, tuple)):
        for one in value:
            yield from _texts(one)
    elif is_dataclass(value):
        yield from _texts(vars(value))


@lru_cache(maxsize=64)
def _row_of(resource: Any) -> sa.Select[Any]:
    (key,) = resource.table.primary_key.columns
    return sa.select(resource.table).where(key == sa.bindparam("ident"))


def must_exist(
    reader: Reader, resource: type[Resource], ident: int, parameter: str | None = None
) -> tuple[Any, ...]:
    """
    Return the row of the object's table; NoSuchResource, which names the parameter, if there is
    none.
    """
    row = reader.first(_row_of(resource), {"ident": ident})  # type: ignore[arg-type]  # classes hash
    if row is None:
        name = parameter or resource.ident
        raise NoSuchResource(f"{name}: there is no {resource.singular} {ident}")
    return row


def found_or_made(tx: Tx, resource: type[Resource], name: str, **values: Any) -> int:
    """Return the id of the row with this name; make it, and say so, if there is none."""
    table = resource.table
    hashed = {"name_hash": name_hash(name)} if "name_hash" in table.c else {}
    row = tx.first(_id_of(resource), hashed or {"name": name})  # type: ignore[arg-type]  # classes hash
    if row is not None:
        return int(row[0])
    ident = tx.insert(table, name=name, **values, **hashed)
    tx.emit(resource, ident, "new")
    return ident


@lru_cache(maxsize=64)
def _id_of(resource: Any) -> sa.Select[Any]:
    table = resource.table
    column = "name_hash" if "name_hash" in table.c else "name"
    return sa.select(table.c.id).where(table.c[column] == sa.bindparam(column))
