"""A MariaDB or MySQL server made anew from its dump, accounts and grants among it."""

from __future__ import annotations

import os
import pwd
import signal
from collections.abc import Iterator
from fnmatch import fnmatch
from pathlib import Path
from typing import IO

from managed.server_scripts._database_directories import DataDirectory
from managed.server_scripts._database_dumps import DumpRecord
from managed.server_scripts._database_servers import PrivateServer, as_user, chunks, succeeds
from managed.server_scripts._databases import is_installed
from managed.server_scripts._run import ScriptFailed, run_program

MARIADB_INSTALLER = "mariadb-install-db"
# Marks of the distribution, the server's identity for replication, its own certificates.
MYSQL_KEPT = ("debian-*.flag", "*_upgrade_info", "auto.cnf", "*.pem")
MYSQL_SOCKET = "managed-load.sock"
LARGEST_PACKET = "--max-allowed-packet=1G"
SYSTEM_SCHEMATA = ("information_schema", "performance_schema", "mysql", "sys")


class MysqlServer:
    """The server that a dump belongs to."""

    def __init__(self, record: DumpRecord, logs: Path) -> None:
        self.record = record
        self.program = str(record.settings["program"])
        self.logs = logs

    def require_installed(self) -> None:
        if not os.access(self.program, os.X_OK):
            raise ScriptFailed(f"{self.program} is not installed", "evidence-missing")

    def limitation(self, old: Path) -> str | None:
        """Why this server can't be made anew from its dump alone, or None."""
        if self.record.outside:
            return f"it has files outside its data directory: {self.record.outside[0]}"
        return None

    def create(self, place: DataDirectory) -> None:
        owner = pwd.getpwuid(place.aside.stat().st_uid).pw_name
        with_installer = is_installed(MARIADB_INSTALLER)
        run_program(mysql_install_command(self.program, place.path, owner, with_installer))
        place.take_over(mysql_kept(os.listdir(place.aside)))

    def server(self, place: DataDirectory) -> PrivateServer:
        owner = place.path.stat()
        command = mysqld_command(self.program, place.path)
        return PrivateServer(
            (*as_user(owner.st_uid, owner.st_gid, "KILL"), *command),
            self.logs / f"{self.record.kind}.log",
            lambda: succeeds((*self.client(place), "--execute=SELECT 1")),
            stop=signal.SIGTERM,
            abort=signal.SIGKILL,
        )

    def client(self, place: DataDirectory) -> tuple[str, ...]:
        program = "mariadb" if is_installed("mariadb") else "mysql"
        return (
            *(program, "--no-defaults", "--user=root", f"--socket={place.path / MYSQL_SOCKET}"),
            *("--default-character-set=utf8mb4", LARGEST_PACKET),
        )

    def statements(self, dump: IO[bytes]) -> Iterator[bytes]:
        return chunks(dump)

    def count(self, place: DataDirectory) -> int:
        others = ", ".join(f"'{name}'" for name in SYSTEM_SCHEMATA)
        table = "information_schema.schemata"
        query = f"SELECT count(*) FROM {table} WHERE schema_name NOT IN ({others})"  # noqa: S608
        return int(run_program((*self.client(place), "-NB", f"--execute={query}")))

    def finish(self, place: DataDirectory) -> None:
        """Nothing of ours is left in the directory when the server has ended."""


def mysql_install_command(
    program: str, directory: Path, owner: str, is_mariadb: bool
) -> tuple[str, ...]:
    """Files of a new server, on which root of the system is its root."""
    if is_mariadb:
        return (
            *(MARIADB_INSTALLER, f"--user={owner}", f"--datadir={directory}"),
            *("--skip-test-db", "--auth-root-authentication-method=socket"),
            *("--auth-root-socket-user=root", "--rpm", "--cross-bootstrap"),
        )
    return (program, f"--user={owner}", f"--datadir={directory}", "--initialize-insecure")


def mysqld_command(program: str, directory: Path) -> tuple[str, ...]:
    """The server with its own configuration, but for us alone: no network, no replication, no
    binary log, no events, no cluster.
    """
    return (
        program,
        f"--datadir={directory}",
        f"--socket={directory / MYSQL_SOCKET}",
        f"--pid-file={directory / 'managed-load.pid'}",
        *("--skip-networking", "--skip-log-bin", "--skip-slave-start", "--event-scheduler=OFF"),
        *("--loose-wsrep-on=OFF", "--loose-mysqlx=OFF", LARGEST_PACKET),
        # What a crash loses is loaded again; a clean end writes everything down.
        "--innodb-flush-log-at-trx-commit=0",
    )


def mysql_kept(old: list[str]) -> list[str]:
    """What goes over from the old files."""
    return sorted(name for name in old if any(fnmatch(name, kept) for kept in MYSQL_KEPT))
