"""A PostgreSQL cluster made anew from its dump, with the settings that initdb decides for ever.

Debian keeps the configuration outside of the data directory, where it is not touched; what stands
inside (ALTER SYSTEM's file, certificates) is taken over.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import IO, Any

from managed.server_scripts._database_directories import DataDirectory
from managed.server_scripts._database_dumps import DumpRecord
from managed.server_scripts._database_servers import PrivateServer, as_user, chunks, succeeds
from managed.server_scripts._databases import parsed_clusters
from managed.server_scripts._run import ScriptFailed, run_program

POSTGRESQL_CONFIGURATION = (
    *("postgresql.conf", "postgresql.auto.conf"),
    *("pg_hba.conf", "pg_ident.conf"),
)
POSTGRESQL_TRANSIENT = (
    *("postmaster.pid", "postmaster.opts", "current_logfiles", "promote"),
    *("backup_label", "backup_label.old", "tablespace_map", "tablespace_map.old"),
    *("recovery.conf", "recovery.done"),
)
STANDBY_FILES = ("standby.signal", "recovery.signal", "recovery.conf")
HBA_NAME = "managed-load-hba.conf"
# Only whoever may enter the data directory, its owner and root, reaches this socket.
HBA_TEXT = "local all all trust\n"
SOCKET_PORT = "5432"


class PostgresqlCluster:
    """The cluster that a dump belongs to."""

    def __init__(self, record: DumpRecord, logs: Path) -> None:
        self.record = record
        self.version, _, self.cluster = record.name.partition("/")
        self.programs = f"/usr/lib/postgresql/{self.version}/bin"
        self.configuration = f"/etc/postgresql/{self.version}/{self.cluster}/postgresql.conf"
        self.logs = logs

    def require_installed(self) -> None:
        if not os.access(f"{self.programs}/initdb", os.X_OK):
            raise ScriptFailed(f"PostgreSQL {self.version} is not installed", "evidence-missing")
        known = parsed_clusters(run_program(("pg_lsclusters", "-h")))
        if (self.version, self.cluster) not in [(c["version"], c["name"]) for c in known]:
            raise ScriptFailed("pg_lsclusters does not know this cluster", "evidence-missing")

    def limitation(self, old: Path) -> str | None:
        """Why this cluster can't be made anew from its dump alone, or None."""
        if self.record.outside:
            return f"it has tablespaces outside its data directory: {self.record.outside[0]}"
        if (old / "pg_wal").is_symlink():
            return "its write-ahead log is kept outside its data directory"
        if any((old / name).exists() for name in STANDBY_FILES):
            return "it is a standby: its data come from its primary"
        return None

    def create(self, place: DataDirectory) -> None:
        old = place.aside.stat()
        settings = self.record.settings
        group_access = bool(old.st_mode & 0o070)
        command = initdb_command(self.programs, place.path, settings, group_access)
        run_program((*as_user(old.st_uid, old.st_gid, "KILL"), *command))
        for name in POSTGRESQL_CONFIGURATION:
            (place.path / name).unlink()
        place.take_over(postgresql_kept(os.listdir(place.aside), os.listdir(place.path)))
        hba = place.path / HBA_NAME
        hba.write_text(HBA_TEXT)
        os.chown(hba, old.st_uid, old.st_gid)

    def server(self, place: DataDirectory) -> PrivateServer:
        owner = place.path.stat()
        command = postgres_command(self.programs, place.path, self.configuration)
        return PrivateServer(
            (*as_user(owner.st_uid, owner.st_gid, "QUIT"), *command),
            self.logs / "postgresql.log",
            lambda: succeeds((*self.client(place), "-c", "SELECT 1")),
            stop=signal.SIGINT,
            abort=signal.SIGQUIT,
        )

    def client(self, place: DataDirectory) -> tuple[str, ...]:
        return (
            *(f"{self.programs}/psql", "-XAtqw", "-v", "ON_ERROR_STOP=1"),
            *("-h", str(place.path), "-p", SOCKET_PORT),
            *("-U", str(self.record.settings["superuser"]), "-d", "postgres"),
        )

    def statements(self, dump: IO[bytes]) -> Iterator[bytes]:
        return without_superuser(dump, str(self.record.settings["superuser"]))

    def count(self, place: DataDirectory) -> int:
        query = "SELECT count(*) FROM pg_database WHERE NOT datistemplate"
        return int(run_program((*self.client(place), "-c", query)))

    def finish(self, place: DataDirectory) -> None:
        (place.path / HBA_NAME).unlink()
        owner = place.path.stat()
        command = (f"{self.programs}/initdb", "--sync-only", f"--pgdata={place.path}")
        run_program((*as_user(owner.st_uid, owner.st_gid, "KILL"), *command))


def initdb_command(
    programs: str, directory: Path, settings: Mapping[str, Any], group_access: bool
) -> tuple[str, ...]:
    """A cluster like the recorded one; its databases bring their own locales with the dump."""
    words = [f"{programs}/initdb", f"--pgdata={directory}", "--no-sync"]
    words += [f"--username={settings['superuser']}", f"--encoding={settings['encoding']}"]
    words += [f"--lc-collate={settings['datcollate']}", f"--lc-ctype={settings['datctype']}"]
    words += locale_provider_words(settings)
    version = int(programs.split("/")[-2].partition(".")[0])
    if settings["data_checksums"]:
        words.append("--data-checksums")
    elif version >= 18:
        words.append("--no-data-checksums")
    if version >= 11:
        words.append(f"--wal-segsize={settings['wal_segment_size'] >> 20}")
        words += ["--allow-group-access"] if group_access else []
    return tuple(words)


def locale_provider_words(settings: Mapping[str, Any]) -> list[str]:
    locale = settings.get("datlocale") or settings.get("daticulocale")
    rules = settings.get("daticurules")
    if settings.get("datlocprovider") == "i":
        more = [f"--icu-rules={rules}"] if rules else []
        return ["--locale-provider=icu", f"--icu-locale={locale}", *more]
    if settings.get("datlocprovider") == "b":
        return ["--locale-provider=builtin", f"--builtin-locale={locale}"]
    return []


def postgres_command(programs: str, directory: Path, configuration: str) -> tuple[str, ...]:
    """The server with its own configuration, but for us alone, and without what extensions and
    subscriptions would do in the background.
    """
    settings = {
        "config_file": configuration,
        "data_directory": str(directory),
        "hba_file": str(directory / HBA_NAME),
        "external_pid_file": str(directory / "managed-load.pid"),
        "listen_addresses": "",
        "unix_socket_directories": str(directory),
        "port": SOCKET_PORT,
        "ssl": "off",
        "archive_mode": "off",
        "logging_collector": "off",
        "log_destination": "stderr",
        "max_worker_processes": "0",
        # What a crash loses is loaded again; `finish` has everything written down.
        "fsync": "off",
    }
    words = [word for name, value in settings.items() for word in ("-c", f"{name}={value}")]
    return (f"{programs}/postgres", "-D", str(directory), *words)


def postgresql_kept(old: list[str], new: list[str]) -> list[str]:
    """What goes over from the old files: configuration, and what initdb does not make."""
    made = {*new, *POSTGRESQL_TRANSIENT}
    return sorted(name for name in old if name not in made)


def without_superuser(dump: IO[bytes], superuser: str) -> Iterator[bytes]:
    """The dump without dropping and creating the role that is there from the beginning.

    These statements stand among the roles, before the dump connects to its first database; its
    properties are set by ALTER ROLE like everybody's.
    """
    quoted = '"' + superuser.replace('"', '""') + '"'
    left_out = {
        f"{verb} {name};\n".encode()
        for verb in ("DROP ROLE IF EXISTS", "CREATE ROLE")
        for name in (superuser, quoted)
    }
    for line in iter(dump.readline, b""):
        if line not in left_out:
            yield line
        if line.startswith(b"\\connect "):
            break
    yield from chunks(dump)
