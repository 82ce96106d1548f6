"""A real PostgreSQL of the tests' own: a throw-away cluster on a Unix socket, stopped by pid."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from sqlalchemy import Engine, delete, text

from managed.storage.database import writing
from managed.storage.tables import metadata

_PARTITIONS = """
SELECT inhrelid::regclass::text FROM pg_inherits
WHERE inhparent = 'events'::regclass AND inhrelid <> 'events_default'::regclass
"""
_BINARIES = sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)


def as_postgres(*command: str) -> list[str]:
    """PostgreSQL refuses to run as root."""
    if os.geteuid() != 0:
        return list(command)
    return ["setpriv", "--reuid=postgres", "--regid=postgres", "--clear-groups", *command]


@dataclass(frozen=True)
class PostgresCluster:
    """A cluster of our own below `directory`, reached through a socket in it; with `port` on
    loopback, too, where nobody is asked for a password. It survives its starter: whoever starts it
    stops it.
    """

    directory: Path
    options: str
    port: int | None = None

    @property
    def url(self) -> str:
        """By the socket."""
        port = f"&port={self.port}" if self.port else ""
        return f"postgresql+psycopg://managed@/managed?host={self.directory}{port}"

    @property
    def loopback_url(self) -> str:
        """For those who don't see the socket."""
        return f"postgresql+psycopg://managed@127.0.0.1:{self.port}/managed"

    @property
    def connection(self) -> str:
        """For psycopg itself."""
        return f"host={self.directory} user=managed dbname=managed"

    def create(self) -> None:
        """Make it, start it, and make the empty database."""
        if os.geteuid() == 0:
            shutil.chown(self.directory, "postgres", "postgres")
        _run(self._binary("initdb"), "-D", self._data, "-A", "trust", "-U", "managed", "-N")
        self.start()
        port = ("-p", str(self.port)) if self.port else ()
        _run(self._binary("createdb"), "-h", str(self.directory), *port, "-U", "managed", "managed")

    def start(self) -> None:
        listen = f"listen_addresses=127.0.0.1 -p {self.port}" if self.port else "listen_addresses="
        options = f"-k {self.directory} -c {listen} {self.options}"
        _run(*self._control, "-w", "-l", str(self.directory / "log"), "-o", options, "start")

    def stop(self) -> None:
        """As a crash does it: no checkpoint, every connection breaks. Stopped is fine."""
        if (self.directory / "data" / "postmaster.pid").exists():
            _run(*self._control, "-m", "immediate", "stop")

    @property
    def _data(self) -> str:
        return str(self.directory / "data")

    @property
    def _control(self) -> tuple[str, ...]:
        return (self._binary("pg_ctl"), "-D", self._data)

    @staticmethod
    def _binary(name: str) -> str:
        return str(_BINARIES[0] / name)


@contextmanager
def postgres_cluster(options: str, port: int | None = None) -> Iterator[PostgresCluster]:
    """A running cluster; it is stopped and removed at the end."""
    directory = Path(tempfile.mkdtemp(prefix="managed-pg-"))
    cluster = PostgresCluster(directory, options, port)
    try:
        cluster.create()
        yield cluster
    finally:
        cluster.stop()
        shutil.rmtree(directory, ignore_errors=True)


@contextmanager
def postgres() -> Iterator[str]:
    """Yields an SQLAlchemy URL of an empty database, for tests that ask nothing of its disk."""
    with postgres_cluster("-c fsync=off -c max_connections=60") as cluster:
        yield cluster.url


def empty(database: Engine) -> None:
    """Leave the schema alone, as a new migration makes it; several times as fast as a migration."""
    with writing(database) as connection:
        for partition in connection.scalars(text(_PARTITIONS)).all():
            connection.execute(text(f"DROP TABLE {partition}"))
        # Without the triggers that keep the audit log as it is.
        connection.execute(text("SET LOCAL session_replication_role = replica"))
        for table in reversed(metadata.sorted_tables):
            connection.execute(delete(table))


def _run(*command: str) -> None:
    subprocess.run(as_postgres(*command), check=True, capture_output=True, timeout=60, cwd="/")
