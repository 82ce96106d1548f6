"""Consistent dumps of the databases that run on a server, made before its files are backed up.

A database that runs and can't be dumped fails the backup: a copy of its files, made while it
writes them, is no backup.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from managed.server_scripts._database_dumps import (
    DUMP_DIRECTORY,
    DumpRecord,
    is_complete_dump,
    record_path,
    write_record,
)
from managed.server_scripts._database_processes import (
    DATABASES,
    DatabaseProcess,
    database_processes,
    own_processes,
    unit_in,
)
from managed.server_scripts._run import ScriptFailed, program_environment, run_program, say

# Drops and creates make the dump say all of the databases template1 and postgres too: their
# settings, their grants and their locale.
POSTGRESQL_OPTIONS = ("--clean", "--if-exists")
POSTGRESQL_SETTINGS = """
SELECT json_build_object(
    'data_directory', current_setting('data_directory'),
    'superuser', (SELECT rolname FROM pg_roles WHERE oid = 10),
    'data_checksums', current_setting('data_checksums') = 'on',
    'wal_segment_size', pg_size_bytes(current_setting('wal_segment_size')),
    'encoding', pg_encoding_to_char(encoding),
    'tablespaces', (SELECT coalesce(json_agg(pg_tablespace_location(oid)), '[]')
        FROM pg_tablespace WHERE spcname NOT IN ('pg_default', 'pg_global')),
    'template', to_jsonb(d))
FROM pg_database d WHERE datname = 'template0'
"""
LOCALE_SETTINGS = (
    *("datcollate", "datctype", "datlocprovider"),
    *("daticulocale", "datlocale", "daticurules"),
)
MYSQL_CREDENTIALS = "/etc/mysql/debian.cnf"
MYSQL_OPTIONS = (
    "--single-transaction",
    "--all-databases",
    "--routines",
    "--events",
    "--triggers",
)
INNODB_FILE = re.compile(r"ibdata\d+|ib_logfile\d+|#ib_redo\d+|undo_?\d+|.*\.ibd")


def dump_databases() -> tuple[list[dict[str, Any]], list[str]]:
    """Dump all that runs; what was dumped (kind, name, path, bytes) and warnings come back."""
    DUMP_DIRECTORY.mkdir(parents=True, exist_ok=True, mode=0o700)
    for directory in (DUMP_DIRECTORY.parent, DUMP_DIRECTORY):
        directory.chmod(0o700)
    dumped = dump_postgresql() + dump_mysql()
    paths = [Path(dump["path"]) for dump in dumped]
    kept = {*paths, *map(record_path, paths)}
    for leftover in DUMP_DIRECTORY.iterdir():
        if leftover not in kept:
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
    as_owner = ("runuser", "-u", cluster["owner"], "--")
    programs = f"/usr/lib/postgresql/{version}/bin"
    path = DUMP_DIRECTORY / f"postgresql-{version}-{name}.sql"
    query = (f"{programs}/psql", "-XAtw", "-d", "template1", "-p", cluster["port"])
    settings = run_program((*as_owner, *query, "-c", POSTGRESQL_SETTINGS))
    record = cluster_record(version, name, json.loads(settings))
    command = (f"{programs}/pg_dumpall", *POSTGRESQL_OPTIONS, "--port", cluster["port"])
    return dump((*as_owner, *command), path, record)


def cluster_record(version: str, name: str, settings: dict[str, Any]) -> DumpRecord:
    template = settings.pop("template")
    locale = {key: template[key] for key in LOCALE_SETTINGS if template.get(key) is not None}
    return DumpRecord(
        kind="postgresql",
        name=f"{version}/{name}",
        unit=f"postgresql@{version}-{name}.service",
        data_directory=os.path.realpath(settings.pop("data_directory")),
        outside=settings.pop("tablespaces"),
        settings={**settings, **locale},
    )


def dump_mysql() -> list[dict[str, Any]]:
    processes = [p for p in database_processes(("mariadbd", "mysqld")) if p.is_own]
    if not processes:
        return []
    process = processes[0]
    kind = "mariadb" if process.name == "mariadbd" else "mysql"
    if len({p.directory for p in processes}) > 1:
        raise ScriptFailed(f"several {kind} servers run here; only one of them would be dumped")
    program = next((p for p in ("mariadb-dump", "mysqldump") if is_installed(p)), "")
    if not program:
        raise ScriptFailed(f"{kind} runs, but neither mariadb-dump nor mysqldump is installed")
    path = DUMP_DIRECTORY / f"{kind}.sql"
    record = mysql_record(kind, process)
    try:
        return [dump((program, *MYSQL_OPTIONS), path, record)]
    except ScriptFailed:
        if not os.path.exists(MYSQL_CREDENTIALS):
            raise
        say("dumping again with the distribution's maintenance account")
        account = f"--defaults-file={MYSQL_CREDENTIALS}"
        return [dump((program, account, *MYSQL_OPTIONS), path, record)]


def mysql_record(kind: str, process: DatabaseProcess) -> DumpRecord:
    """What the running server shows without a login: its program, its unit, its open files."""
    place = Path("/proc") / str(process.pid)
    cgroups = (place / "cgroup").read_text(encoding="utf-8", errors="replace")
    return DumpRecord(
        kind=kind,
        name="all",
        unit=unit_in(cgroups) or f"{kind}.service",
        data_directory=process.directory,
        outside=files_outside(process.directory, open_files(place)),
        settings={"program": os.readlink(place / "exe").replace(" (deleted)", "")},
    )


def open_files(process: Path) -> list[str]:
    found = []
    for descriptor in (process / "fd").iterdir():
        try:
            found.append(os.readlink(descriptor))
        except OSError:
            continue
    return found


def files_outside(directory: str, files: Sequence[str]) -> list[str]:
    """InnoDB's own files among these that are not below the data directory."""
    return sorted(
        path
        for path in files
        if INNODB_FILE.fullmatch(os.path.basename(path)) and not path.startswith(f"{directory}/")
    )


def dump(command: Sequence[str], path: Path, record: DumpRecord) -> dict[str, Any]:
    """Write a dump beside the old one and replace that only by one that is complete."""
    say(f"dumping {record.label}")
    temporary = path.with_name(f".{path.name}.new")
    temporary.unlink(missing_ok=True)
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        ended = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            stdout=file,
            stderr=subprocess.PIPE,
            cwd="/",
            env=program_environment(),
            check=False,
        )
        os.fsync(file.fileno())
    if ended.returncode != 0 or not is_complete_dump(temporary, record.kind):
        temporary.unlink()
        why = ended.stderr.decode("utf-8", "replace").strip()[-500:] or "it is not complete"
        raise ScriptFailed(f"the {record.kind} database {record.name} can't be dumped: {why}")
    write_record(path, record)
    temporary.replace(path)
    size = path.stat().st_size
    return {"kind": record.kind, "name": record.name, "path": str(path), "bytes": size}


def is_installed(program: str) -> bool:
    path = program_environment()["PATH"]
    return any(os.access(os.path.join(place, program), os.X_OK) for place in path.split(":"))


def container_warnings() -> list[str]:
    found = {process.name for process in database_processes() if not process.is_own}
    return [
        f"{name} runs in a container: its files are backed up as they are, without a dump"
        for name in sorted(found - own_processes(DATABASES))
    ]
