"""PostgreSQL, Redis and an S3 server as a company has them already: at an address, with logins."""

from __future__ import annotations

import secrets
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psycopg
from psycopg import sql

from managed.domain.secrets import Secret
from managed.lab.s3_server import S3ServerSettings, s3_server
from tests.support.postgres import as_postgres, postgres_cluster
from tests.support.redis import redis

_S3_SECONDS = 30.0


@contextmanager
def postgresql_at(address: str) -> Iterator[str]:
    """The URL of an empty database there."""
    password = secrets.token_hex(16)
    with postgres_cluster(f"-c listen_addresses={address}") as cluster:
        rules = cluster.directory / "data" / "pg_hba.conf"
        append = f"echo 'host managed managed all scram-sha-256' >>{rules}"
        subprocess.run(as_postgres("sh", "-c", append), check=True)
        with psycopg.connect(cluster.connection, autocommit=True) as connection:
            role = sql.SQL("ALTER ROLE managed PASSWORD {}").format(sql.Literal(password))
            connection.execute(role)
            connection.execute("SELECT pg_reload_conf()")
        yield f"postgresql+psycopg://managed:{password}@{address}/managed"


@contextmanager
def redis_at(address: str) -> Iterator[str]:
    with redis(address, secrets.token_hex(16)) as server:
        yield server.url


@contextmanager
def s3_at(address: str, directory: Path, access_key: str, secret_key: str) -> Iterator[str]:
    """The endpoint of a server that keeps what it gets in `directory`."""
    settings = S3ServerSettings(
        directory=directory / "objects",
        log_file=directory / "log",
        port=9000,
        access_key=Secret(access_key),
        secret_key=Secret(secret_key),
        address=address,
    )
    server = s3_server(settings)
    server.start()
    try:
        server.wait(_S3_SECONDS)
        yield settings.endpoint
    finally:
        server.stop()
