"""Which database systems there are, and what a URL names."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module

import sqlalchemy as sa

from buildapi.db.connect import Connector, sentence
from buildapi.db.sqlite import SQLite
from buildapi.errors import CannotOpen

# Servers by the beginning of the URL: the module and the class of the connector, and the extra of
# this package that brings its driver.
_SERVERS = {
    "postgresql": ("postgresql", "PostgreSQL", "postgresql"),
    "mariadb": ("mariadb", "MariaDB", "mariadb"),
    # What Buildbot's configurations call it.
    "mysql": ("mariadb", "MariaDB", "mariadb"),
}


def connector(url: str, *, read_only: bool, busy_timeout_s: float) -> Connector:
    """Return what opens connections to ``url``; CannotOpen if it names no supported database."""
    try:
        parsed = sa.make_url(url)
    except (sa.exc.ArgumentError, ValueError):
        raise CannotOpen(
            "this is no database URL; one is sqlite:////srv/ci/state.sqlite or "
            "postgresql://user@host/database"
        ) from None
    return _class(parsed.get_backend_name())(
        parsed, read_only=read_only, busy_timeout_s=busy_timeout_s
    )


def _class(backend: str) -> Callable[..., Connector]:
    if backend == "sqlite":
        return SQLite
    if backend not in _SERVERS:
        raise CannotOpen(
            f"{backend} databases are not supported; sqlite, postgresql and mariadb are"
        )
    module, name, extra = _SERVERS[backend]
    try:
        found: Callable[..., Connector] = getattr(import_module(f"buildapi.db.{module}"), name)
    except ImportError as error:
        # psycopg is there without the library that it needs, or a package is missing.
        raise CannotOpen(
            f"{name} needs a Python package, which one gets by pip install 'buildapi[{extra}]':"
            f" {sentence(error)}"
        ) from None
    return found
