"""The boundaries of a job's steps, and holding a job still at one without touching the product.

A trigger in the database makes the transaction that would cross the boundary wait for an advisory
lock that we have: to the product the database is slow for a moment, as it may be at any time. So
the boundary is exact: all before it is committed, nothing after it is.
"""

from __future__ import annotations

import time
import zlib
from collections.abc import Callable, Collection
from dataclasses import dataclass
from enum import StrEnum

import psycopg

from managed.domain.jobs import JobKind
from managed.workflows.registry import current_workflow

_SCHEMA = """
CREATE SCHEMA IF NOT EXISTS harness;
CREATE TABLE IF NOT EXISTS harness.holds (server_id text, boundary text, key bigint);

CREATE OR REPLACE FUNCTION harness.stand_still(of_server text, at_boundary text) RETURNS void AS $$
DECLARE held bigint;
BEGIN
    SELECT key INTO held FROM harness.holds
    WHERE server_id = of_server AND boundary = at_boundary;
    IF FOUND THEN PERFORM pg_advisory_xact_lock_shared(held); END IF;
END $$ LANGUAGE plpgsql;

CREATE OR REPLACE FUNCTION harness.of_job() RETURNS trigger AS $$
BEGIN
    IF NEW.started_step <> OLD.started_step THEN
        PERFORM harness.stand_still(NEW.server_id, 'before ' || NEW.started_step);
    END IF;
    RETURN NEW;
END $$ LANGUAGE plpgsql;

CREATE OR REPLACE FUNCTION harness.of_step() RETURNS trigger AS $$
BEGIN
    PERFORM harness.stand_still(
        (SELECT server_id FROM jobs WHERE id = NEW.job_id), 'after ' || NEW.name);
    RETURN NEW;
END $$ LANGUAGE plpgsql;

CREATE OR REPLACE TRIGGER harness_of_job BEFORE UPDATE ON jobs
    FOR EACH ROW EXECUTE FUNCTION harness.of_job();
CREATE OR REPLACE TRIGGER harness_of_step BEFORE INSERT ON job_steps
    FOR EACH ROW EXECUTE FUNCTION harness.of_step();
"""

_STEP_OF_WAITING = "SELECT started_step FROM jobs WHERE id = %s AND status = 'waiting'"
_IS_HELD = "SELECT 1 FROM pg_locks WHERE locktype = 'advisory' AND NOT granted AND objid = %s"
_HAS_ENDED = "SELECT 1 FROM jobs WHERE id = %s AND finished_at IS NOT NULL"
_POLL_SECONDS = 0.02
_OUTAGE_SECONDS = 180.0


class Moment(StrEnum):
    """`before` a step: the one before it is on record, its own beginning is not yet. `while` it
    waits: the job holds nothing. `after` it: its work is done, and nothing of that is on record;
    after the last step, the job's end is not either.
    """

    BEFORE = "before"
    WHILE = "while"
    AFTER = "after"


@dataclass(frozen=True)
class Boundary:
    kind: JobKind
    moment: Moment
    step: str

    def __str__(self) -> str:
        return f"{self.moment} {self.step}"


def boundaries_of(kind: JobKind, waiting: Collection[str]) -> list[Boundary]:
    """Every boundary of the present workflow, in order. `waiting` are the steps that waited in a
    run of it; a step that is added to the workflow is among them by itself.
    """
    found = []
    for step in current_workflow(kind).steps:
        found.append(Boundary(kind, Moment.BEFORE, step.name))
        if step.name in waiting:
            found.append(Boundary(kind, Moment.WHILE, step.name))
        found.append(Boundary(kind, Moment.AFTER, step.name))
    return found


class Holder:
    """Holds the jobs of one server. Not for several threads. An outage of the database is waited
    for; afterwards what was armed is armed again.
    """

    def __init__(self, connection: str, server_id: str) -> None:
        self._address = connection
        self._server_id = server_id
        self._armed: list[Boundary] = []
        self._connection: psycopg.Connection | None = None

    @staticmethod
    def install(connection: str) -> None:
        with psycopg.connect(connection, autocommit=True) as database:
            database.execute(_SCHEMA)

    def arm(self, boundary: Boundary) -> None:
        """From now on the job will stand still there; to be called before it can get so far."""
        self._armed.append(boundary)
        if not self._try(lambda: self._arm(boundary)):
            self._arm_all(time.monotonic() + _OUTAGE_SECONDS)

    def wait(self, boundary: Boundary, job_id: str, timeout: float) -> bool:
        """Wait until the job stands there; False when it has ended before. AssertionError after so
        many seconds.
        """
        deadline = time.monotonic() + timeout
        while time.monotonic() < deadline:
            try:
                if self._stands_at(boundary, job_id):
                    return True
                if self._asked(_HAS_ENDED, job_id):
                    return False
            except psycopg.OperationalError:
                self._arm_all(deadline)
            time.sleep(_POLL_SECONDS)
        raise AssertionError(f"after {timeout:.0f} s not yet {boundary}")

    def release(self, boundary: Boundary) -> None:
        """Let the job cross it, now and always. After an outage nothing is held anyway."""
        self._armed.remove(boundary)
        key = self._key(boundary)
        self._try(lambda: self._asked("DELETE FROM harness.holds WHERE key = %s", key))
        self._try(lambda: self._asked("SELECT pg_advisory_unlock(%s)", key))

    def close(self) -> None:
        """Holds nothing any more."""
        self._armed.clear()
        self._try(
            lambda: self._asked("DELETE FROM harness.holds WHERE server_id = %s", self._server_id)
        )
        self._disconnect()

    def _stands_at(self, boundary: Boundary, job_id: str) -> bool:
        if boundary.moment is Moment.WHILE:
            return self._asked(_STEP_OF_WAITING, job_id) == boundary.step
        return self._asked(_IS_HELD, self._key(boundary)) is not None

    def _arm(self, boundary: Boundary) -> None:
        """The lock comes before the row: who sees the row must find the lock taken."""
        key = self._key(boundary)
        self._asked("SELECT pg_advisory_lock(%s)", key)
        row = (self._server_id, str(boundary), key)
        self._asked("INSERT INTO harness.holds VALUES (%s, %s, %s)", *row)

    def _arm_all(self, deadline: float) -> None:
        """Locks are gone with the connection that had them."""
        while not self._try(lambda: [self._arm(boundary) for boundary in self._armed]):
            if time.monotonic() > deadline:
                raise AssertionError("the database does not come back")
            time.sleep(_POLL_SECONDS)

    def _try(self, ask: Callable[[], object]) -> bool:
        try:
            ask()
        except psycopg.OperationalError:
            self._disconnect()
            return False
        return True

    def _disconnect(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def _key(self, boundary: Boundary) -> int:
        return zlib.crc32(f"{self._server_id} {boundary}".encode()) & 0x7FFFFFFF

    def _asked(self, query: str, *values: object) -> object:
        """The first column of the first row, if any."""
        if self._connection is None:
            self._connection = psycopg.connect(self._address, autocommit=True, connect_timeout=5)
        cursor = self._connection.execute(query, values)
        row = cursor.fetchone() if cursor.description else None
        return row[0] if row else None
