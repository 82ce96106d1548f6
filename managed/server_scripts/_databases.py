"""Consistent dumps of the databases that run on a server, made before its files are backed up.

A database that runs and can't be dumped fails the backup: a copy of its files, made while it
writes them, is no backup.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from managed.server_scripts._run import ScriptFailed, program_environment, run_program, say

DUMP_DIRECTORY = Path("/var/backups/managed/databases")
TAIL_SIZE = 4096
POSTGRESQL_END = b"-- PostgreSQL database cluster dump complete"
MYSQL_END = b"-- Dump completed"
MYSQL_CREDENTIALS = "/etc/mysql/debian.cnf"
MYSQL_OPTIONS = (
    "--single-transaction",
    "--all-databases",
    "--routines",
    "--events",
    "--triggers",
)


def dump_databases() -> tuple[list[dict[str, Any]], list[str]]:
    """Dump all that runs; what was dumped (kind, name, path, bytes) and warnings come back."""
    DUMP_DIRECTORY.mkdir(parents=True, exist_ok=True, mode=0o700)
    for directory in (DUMP_DIRECTORY.parent, DUMP_DIRECTORY):
        directory.chmod(0o700)
    dumped = dump_postgresql() + dump_mysql()
    kept = {Path(dump["path"]).name for dump in dumped}
    for leftover in DUMP_DIRECTORY.iterdir():
        if leftover.name not in kept:
            leftover.unlink()
    return dumped, container_warnings()


def parsed_clusters(text: str) -> list[dict[str, str]]:
    """The lines of `pg_lsclusters -h`."""
    clusters = []
    for line in text.splitlines():
        version, name, port, status, owner = line.split()[:5]
        clusters.append(
            {"version": version, "name": name, "port": port, "status": status, "owner": owner}
        )
    return clusters


def dump_postgresql() -> list[dict[str, Any]]:
    if not own_processes(("postgres",)):
        return []
    try:
        clusters = parsed_clusters(run_program(("pg_lsclusters", "-h")))
    except ScriptFailed as error:
        raise ScriptFailed(
            f"PostgreSQL runs, but its clusters can't be listed: {error.message}"
        ) from error
    running = [cluster for cluster in clusters if cluster["status"].startswith("online")]
    if not running:
        raise ScriptFailed("PostgreSQL runs, but pg_lsclusters knows no running cluster")
    return [dump_cluster(cluster) for cluster in running]


def dump_cluster(cluster: dict[str, str]) -> dict[str, Any]:
    version, name = cluster["version"], cluster["name"]
    program = f"/usr/lib/postgresql/{version}/bin/pg_dumpall"
    command = ("runuser", "-u", cluster["owner"], "--", program, "--port", cluster["port"])
    path = DUMP_DIRECTORY / f"postgresql-{version}-{name}.sql"
    return dump(command, path, POSTGRESQL_END, "postgresql", f"{version}/{name}")


def dump_mysql() -> list[dict[str, Any]]:
    running = own_processes(("mariadbd", "mysqld"))
    if not running:
        return []
    kind = "mariadb" if "mariadbd" in running else "mysql"
    program = next((p for p in ("mariadb-dump", "mysqldump") if _is_installed(p)), "")
    if not program:
        raise ScriptFailed(f"{kind} runs, but neither mariadb-dump nor mysqldump is installed")
    path = DUMP_DIRECTORY / f"{kind}.sql"
    try:
        return [dump((program, *MYSQL_OPTIONS), path, MYSQL_END, kind, "all")]
    except ScriptFailed:
        if not os.path.exists(MYSQL_CREDENTIALS):
            raise
        say("dumping again with the distribution's maintenance account")
        account = f"--defaults-file={MYSQL_CREDENTIALS}"
        return [dump((program, account, *MYSQL_OPTIONS), path, MYSQL_END, kind, "all")]


def dump(command: Sequence[str], path: Path, end: bytes, kind: str, name: str) -> dict[str, Any]:
    """Write a dump beside the old one and replace that only by one that is complete."""
    say(f"dumping {kind} {name}")
    temporary = path.with_name(f".{path.name}.new")
    temporary.unlink(missing_ok=True)
    descriptor = os.open(temporary, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "r+b") as file:
        ended = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            stdout=file,
            stderr=subprocess.PIPE,
            cwd="/",
            env=program_environment(),
            check=False,
        )
        size = file.seek(0, os.SEEK_END)
        file.seek(max(0, size - TAIL_SIZE))
        is_complete = end in file.read()
        os.fsync(file.fileno())
    if ended.returncode != 0 or not is_complete:
        temporary.unlink()
        why = ended.stderr.decode("utf-8", "replace").strip()[-500:] or "it is not complete"
        raise ScriptFailed(f"the {kind} database {name} can't be dumped: {why}")
    temporary.replace(path)
    return {"kind": kind, "name": name, "path": str(path), "bytes": size}


def _is_installed(program: str) -> bool:
    path = program_environment()["PATH"]
    return any(os.access(os.path.join(place, program), os.X_OK) for place in path.split(":"))


def own_processes(names: Sequence[str]) -> set[str]:
    """Which of these programs run on the server itself, not in one of its containers."""
    return {name for name, inside in _database_processes(names) if inside}


def container_warnings() -> list[str]:
    found = {name for name, inside in _database_processes(DATABASES) if not inside}
    return [
        f"{name} runs in a container: its files are backed up as they are, without a dump"
        for name in sorted(found - own_processes(DATABASES))
    ]


DATABASES = ("postgres", "mariadbd", "mysqld")


def _database_processes(names: Sequence[str]) -> list[tuple[str, bool]]:
    """Name, and whether it lives in our own process namespace."""
    ours = os.readlink("/proc/self/ns/pid")
    found = []
    for directory in Path("/proc").glob("[0-9]*"):
        try:
            name = (directory / "comm").read_text(encoding="utf-8", errors="replace").strip()
            if name in names:
                found.append((name, os.readlink(directory / "ns/pid") == ours))
        except OSError:
            continue
    return found
