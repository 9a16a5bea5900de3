"""The PostgreSQL of tests."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import psycopg
import pytest

from test.kept import found
from test.servers import USER, Run, Server, name_of, one_session


class PostgreSQL(Server):
    """PostgreSQL, from the PATH or from Debian's folder of the newest version."""

    title = "PostgreSQL"
    account = "postgres"
    driver = "postgresql+psycopg"
    tables = "SELECT tablename FROM pg_tables WHERE schemaname = 'public' ORDER BY 1"
    stop_signal = "SIGINT"
    end_signal = "SIGQUIT"

    def drop(self, url: str) -> None:  # noqa: D102
        self.run(f"DROP DATABASE {name_of(url)} WITH (FORCE)")

    def run(self, sql: str) -> list[tuple[Any, ...]]:  # noqa: D102
        return _rows(self._admin, sql)

    def dismiss(self, url: str) -> None:  # noqa: D102
        self.run(
            "SELECT pg_terminate_backend(pid, 20000) FROM pg_stat_activity"
            f" WHERE datname = '{name_of(url)}'"
        )

    @contextlib.contextmanager
    def session(self, url: str) -> Iterator[Run]:  # noqa: D102
        with self._connect(name_of(url)) as connection:
            connection.execute("SET session_replication_role = replica")
            yield partial(_rows, connection)

    def recount(self, run: Run) -> None:  # noqa: D102
        used = "SELECT sequencename FROM pg_sequences WHERE last_value IS NOT NULL"
        for (name,) in run(used):
            run(f"ALTER SEQUENCE {name} RESTART")

    @staticmethod
    def _commands() -> dict[str, str]:
        def version(folder: Path) -> list[int]:
            return [int(part) for part in folder.parent.name.split(".") if part.isdigit()]

        debian = sorted(Path("/usr/lib/postgresql").glob("*/bin"), key=version, reverse=True)
        path = os.pathsep.join([os.environ.get("PATH", ""), *map(str, debian)])
        return found("PostgreSQL", path, "postgres", "initdb")

    def _install(self, commands: dict[str, str]) -> None:
        self._postgres = commands["postgres"]
        self._prepare(
            *(commands["initdb"], "--pgdata=data", "--username=postgres", "--no-sync"),
            *("--encoding=UTF8", "--locale=C.UTF-8", "--auth-local=trust", "--auth-host=md5"),
        )
        self.start()
        self.run(f"CREATE ROLE {USER} LOGIN PASSWORD '{self._password}'")

    def _server(self) -> list[str]:
        settings = {
            "listen_addresses": "127.0.0.1",
            "port": self.port,
            "unix_socket_directories": self.directory,
            # Quick to check; the tests connect often.
            "password_encryption": "md5",
            "fsync": "off",
            "full_page_writes": "off",
            "synchronous_commit": "on",
            "wal_level": "minimal",
            "max_wal_senders": 0,
            "shared_buffers": "32MB",
            "autovacuum": "off",
            "checkpoint_timeout": "1h",
        }
        return [self._postgres, "-D", "data", *(f"-c{k}={v}" for k, v in settings.items())]

    def _create(self, name: str, collation: str | None) -> None:
        libc = {"C", "POSIX", "C.UTF-8", None}
        locale = "" if collation in libc else f" LOCALE_PROVIDER icu ICU_LOCALE '{collation}'"
        if collation is not None:
            libc_name = collation if collation in libc else "C.UTF-8"
            locale += f" LOCALE '{libc_name}' TEMPLATE template0"
        self.run(f"CREATE DATABASE {name} OWNER {USER}{locale}")

    def _connected(self) -> None:
        self._admin = self._kept.patiently(
            lambda: self._connect("postgres"), psycopg.OperationalError
        )

    def _connect(self, database: str) -> psycopg.Connection[tuple[Any, ...]]:
        return psycopg.connect(
            host=str(self.directory),
            port=self.port,
            dbname=database,
            user="postgres",
            autocommit=True,
        )

    def _forget(self) -> None:
        with contextlib.suppress(AttributeError):
            self._admin.close()


def _rows(connection: psycopg.Connection[tuple[Any, ...]], sql: str) -> list[tuple[Any, ...]]:
    cursor = connection.execute(sql)
    return cursor.fetchall() if cursor.description else []


@pytest.fixture(scope="session")
def postgresql() -> Iterator[PostgreSQL]:
    """The session's PostgreSQL."""
    yield from one_session(PostgreSQL)
