"""A fleet on record in PostgreSQL, as years of nights leave it. Rows are made by the database
itself, several times as fast as sending them; indices that would slow that down are made after it.
"""

from __future__ import annotations

from dataclasses import dataclass

from sqlalchemy import Connection, Engine, text

from managed.storage.database import take_time, writing

_SERVERS_PER_CUSTOMER = 5
_SNAPSHOTS_PER_SERVER = 5

_CUSTOMERS = """
INSERT INTO customers (id, name, email, created_at)
SELECT 'customer-' || n, (ARRAY['Anna','Bea','Carl','Dora','Emil'])[1 + n % 5] || ' '
    || substr(md5(n::text), 1, 6) || ' Ltd', n || '@example.org', now() - interval '3 years'
FROM generate_series(0, :customers - 1) AS n
"""
_SERVERS = """
INSERT INTO servers (id, name, origin, status, address, ssh_port, ssh_user, host_key,
    operating_system, customer_id, created_at)
SELECT format('00000000-0000-4000-8000-%s', lpad(to_hex(n), 12, '0')),
    (ARRAY['shop','web','mail','db','app'])[1 + n % 5] || '-' || substr(md5('s' || n), 1, 8),
    'enrolled', 'active', format('10.%s.%s.%s', n >> 16 & 255, n >> 8 & 255, n & 255), 22, 'root',
    'ssh-ed25519 ' || md5(n::text), 'debian-12', 'customer-' || n / :per_customer,
    now() - interval '2 years'
FROM generate_series(0, :servers - 1) AS n
"""
# One failed, cancelled or open job in a hundred; each server's jobs lie apart, as nights make them.
_JOBS = """
INSERT INTO jobs (id, server_id, kind, workflow_version, status, parameters, requested_by, run_key,
    holds_server, created_at, started_at, finished_at, deadline, run_numbers, warnings, question)
SELECT format('10000000-0000-4000-8000-%s', lpad(to_hex(n), 12, '0')),
    format('00000000-0000-4000-8000-%s', lpad(to_hex(n % :servers), 12, '0')),
    (ARRAY['patch','backup'])[1 + n / :servers % 2], 1,
    CASE WHEN n % 100 = 0 THEN 'failed' WHEN n % 100 = 1 THEN 'cancelled'
        WHEN is_last AND n % 100 = 2 THEN 'waiting' ELSE 'succeeded' END,
    '{"only_security": true}', 'clock', 'clock:window:' || n / :servers,
    is_last AND n % 100 = 2, at, at + interval '1 minute',
    CASE WHEN is_last AND n % 100 = 2 THEN NULL ELSE at + interval '5 minutes' END,
    at + interval '2 hours', '{}', '[]', '{"kind": "time-passed"}'
FROM (SELECT n, n >= :jobs - :servers AS is_last, now() - (:jobs - n) * :apart AS at
    FROM generate_series(0, :jobs - 1) AS n) AS made
"""
_SNAPSHOTS = """
INSERT INTO snapshots (id, server_id, job_id, "time", files, size, manifest_key, manifest_sha256,
    layout_key, layout_sha256, verified_at, verification)
SELECT md5('a' || n) || md5('b' || n),
    format('00000000-0000-4000-8000-%s', lpad(to_hex(n % :servers), 12, '0')),
    format('10000000-0000-4000-8000-%s', lpad(to_hex(n), 12, '0')),
    now() - n / :servers * interval '1 day', 120000, 4000000000,
    'manifests/' || n, md5('m' || n), 'layouts/' || n, md5('l' || n), now(), '{"sound": true}'
FROM generate_series(0, :snapshots - 1) AS n
"""
_INDICES = """
SELECT index.relname AS name, pg_get_indexdef(index.oid) AS definition,
    fixed.conname AS constraint_name, pg_get_constraintdef(fixed.oid) AS constraint_definition
FROM pg_index JOIN pg_class AS index ON index.oid = indexrelid
LEFT JOIN pg_constraint AS fixed ON fixed.conindid = indexrelid AND fixed.contype = 'u'
WHERE indrelid = 'jobs'::regclass AND NOT indisprimary
"""


@dataclass(frozen=True)
class Fleet:
    """So many servers and jobs; the jobs lie evenly over two years."""

    servers: int
    jobs: int

    def load(self, engine: Engine) -> None:
        """Into a migrated, empty database whose user is its superuser."""
        with writing(engine) as connection:
            take_time(connection)
            connection.execute(text("SET LOCAL session_replication_role = replica"))
            connection.execute(text("SET LOCAL maintenance_work_mem = '512MB'"))
            restore = _drop_indices(connection)
            customers = -(-self.servers // _SERVERS_PER_CUSTOMER)
            connection.execute(text(_CUSTOMERS), {"customers": customers})
            given = {"servers": self.servers, "per_customer": _SERVERS_PER_CUSTOMER}
            connection.execute(text(_SERVERS), given)
            apart = f"INTERVAL '{2 * 365 * 86400 / self.jobs:.6f} seconds'"
            jobs = text(_JOBS.replace(":apart", apart))
            connection.execute(jobs, {"servers": self.servers, "jobs": self.jobs})
            snapshots = min(self.servers * _SNAPSHOTS_PER_SERVER, self.jobs)
            given = {"servers": self.servers, "snapshots": snapshots}
            connection.execute(text(_SNAPSHOTS), given)
            for statement in restore:
                connection.execute(text(statement))
        _gather_statistics(engine)


def _drop_indices(connection: Connection) -> list[str]:
    """Those of the largest table but its key; how to make them again."""
    again = []
    for row in connection.execute(text(_INDICES)).all():
        if row.constraint_name:
            connection.execute(text(f'ALTER TABLE jobs DROP CONSTRAINT "{row.constraint_name}"'))
            again.append(
                f'ALTER TABLE jobs ADD CONSTRAINT "{row.constraint_name}"'
                f" {row.constraint_definition}"
            )
        else:
            connection.execute(text(f'DROP INDEX "{row.name}"'))
            again.append(row.definition)
    return again


def _gather_statistics(engine: Engine) -> None:
    """As autovacuum would have by now."""
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.execute(text("SET statement_timeout = 0"))
        connection.execute(text("VACUUM ANALYZE"))
