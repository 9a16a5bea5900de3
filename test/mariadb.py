"""The MariaDB of tests."""

from __future__ import annotations

import contextlib
import os
import socket
from collections.abc import Iterator
from typing import Any

import pymysql
import pytest

from test.kept import found
from test.servers import USER, Run, Server, name_of, one_session


class MariaDB(Server):
    """MariaDB, from the PATH or from where Debian has it."""

    title = "MariaDB"
    account = "mysql"
    driver = "mariadb+pymysql"
    tables = "SHOW TABLES"
    stop_signal = "SIGTERM"
    end_signal = "SIGKILL"

    def drop(self, url: str) -> None:  # noqa: D102
        self.dismiss(url)
        self.run(f"DROP DATABASE {name_of(url)}")

    def run(self, sql: str) -> list[tuple[Any, ...]]:  # noqa: D102
        with self._admin.cursor() as cursor:
            cursor.execute(sql)
            return list(cursor.fetchall())

    def dismiss(self, url: str) -> None:  # noqa: D102
        sessions = f"SELECT id FROM information_schema.processlist WHERE db = '{name_of(url)}'"
        for (ident,) in self.run(sessions):
            with contextlib.suppress(pymysql.OperationalError):
                self.run(f"KILL {ident}")

    @contextlib.contextmanager
    def session(self, url: str) -> Iterator[Run]:  # noqa: D102
        self._admin.select_db(name_of(url))
        yield self.run
        self._admin.select_db("mysql")

    def recount(self, run: Run) -> None:  # noqa: D102
        used = (
            "SELECT table_name FROM information_schema.tables"
            " WHERE table_schema = DATABASE() AND auto_increment > 1"
        )
        for (table,) in run(used):
            run(f"ALTER TABLE {table} AUTO_INCREMENT = 1")

    @staticmethod
    def _commands() -> dict[str, str]:
        path = os.pathsep.join([os.environ.get("PATH", ""), "/usr/sbin"])
        return found("MariaDB", path, "mariadbd", "mariadb-install-db")

    def _install(self, commands: dict[str, str]) -> None:
        self._mariadbd = commands["mariadbd"]
        self._prepare(
            *(commands["mariadb-install-db"], "--no-defaults", f"--datadir={self.directory}/data"),
            *("--skip-test-db", "--auth-root-authentication-method=normal"),
            *("--innodb-flush-method=nosync", "--innodb-log-file-size=16M"),
        )
        self.start()
        self.run(f"CREATE USER {USER}@'%' IDENTIFIED BY '{self._password}'")
        self.run(f"GRANT ALL ON `test\\_%`.* TO {USER}@'%'")
        # The installation leaves root without a password, from the network too.
        self.run("DELETE FROM mysql.global_priv WHERE User = 'root' AND Host <> 'localhost'")
        self.run("FLUSH PRIVILEGES")

    def _server(self) -> list[str]:
        settings = {
            "datadir": self.directory / "data",
            "socket": self.directory / "socket",
            "pid-file": self.directory / "pid",
            "bind-address": "127.0.0.1",
            "port": self.port,
            "skip-name-resolve": 1,
            "skip-log-bin": 1,
            "character-set-server": "utf8mb4",
            "innodb-flush-method": "nosync",
            # To the system at each commit, so that a killed server loses nothing.
            "innodb-flush-log-at-trx-commit": 2,
            "innodb-log-file-size": "16M",
            "innodb-buffer-pool-size": "64M",
            "innodb-file-per-table": 0,
        }
        return [self._mariadbd, "--no-defaults", *(f"--{k}={v}" for k, v in settings.items())]

    def _create(self, name: str, collation: str | None) -> None:
        collate = f" COLLATE {collation}" if collation else ""
        self.run(f"CREATE DATABASE {name} CHARACTER SET utf8mb4{collate}")

    def _connected(self) -> None:
        def knock() -> None:
            socket.create_connection(("127.0.0.1", self.port)).close()

        # A driver's connection that fails is not always closed.
        self._kept.patiently(knock, OSError)
        place = str(self.directory / "socket")
        self._admin = pymysql.connect(unix_socket=place, user="root", autocommit=True)
        # What a test left open must not stop the tests after it.
        self.run("SET lock_wait_timeout = 20")
        self.run("SET foreign_key_checks = 0")

    def _forget(self) -> None:
        with contextlib.suppress(AttributeError, pymysql.Error):
            self._admin.close()


@pytest.fixture(scope="session")
def mariadb() -> Iterator[MariaDB]:
    """The session's MariaDB."""
    yield from one_session(MariaDB)
