"""What the holder of a lease does with its job. Every write names the lease's token: when another
worker has taken over, it changes nothing and raises LeaseLost.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from functools import lru_cache
from typing import Any, Final

from sqlalchemy import (
    ColumnElement,
    Connection,
    Engine,
    Row,
    and_,
    bindparam,
    case,
    func,
    insert,
    literal,
    or_,
    select,
    update,
)
from sqlalchemy.sql.dml import ReturningUpdate

from managed.domain.errors import Json, LeaseLost
from managed.domain.events import NewEvent
from managed.domain.jobs import Job, JobStatus, StepResult, StepStatus
from managed.domain.notifications import failed_job
from managed.domain.progress import UNDO_PREFIX
from managed.domain.questions import Question, question_as_json
from managed.storage import events
from managed.storage.beginning import may_begin
from managed.storage.database import writing
from managed.storage.handover import hand_over, lock_server
from managed.storage.incidents import note, why_given_up
from managed.storage.rows import DO, UNDO, job_from_row, steps_of
from managed.storage.tables import job_steps, jobs
from managed.storage.waiting import wake_to_stop

NO_STEP: dict[str, Any] = {
    "started_step": "",
    "step_started_at": None,
    "step_attempt": 1,
    "outage_tries": 0,
    "outage_since": None,
    "worker_deaths": 0,
    "next_attempt_at": None,
    "answer": None,
    "question": None,
    "question_until": None,
    "last_answer_at": None,
    "child": None,
}

_TIME_OF_JOB: Final = select(jobs.c.created_at, jobs.c.deadline).where(
    jobs.c.id == bindparam("of_job")
)

_FREE: dict[str, Any] = {
    "status": "queued",
    "lease_expires_at": None,
    "lease_owner": "",
    "sent_at": None,
}


class LeasedJobs:
    """Implements `managed.ports.JobStore` for the engine."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def claim(
        self, job_id: str, owner: str, now: datetime, lease_for: timedelta
    ) -> tuple[Job, Mapping[str, Json] | None] | None:
        """Take the job if it may be taken: queued and due, or its lease has run out.

        Returns it with the child process that an earlier holder recorded, if any; None when
        there is nothing to take. Compare-and-set: of many claimants one wins. The job's time
        begins with its first claim: waiting for its server costs it nothing. It does not begin when
        its window is over, nor, unless it is urgent, in a pause. A lease that ran out
        in a step tells of a worker that died there.
        """
        with writing(self._engine) as connection:
            asked = connection.execute(_TIME_OF_JOB, {"of_job": job_id}).one_or_none()
            if asked is None:
                return None
            claim = {
                "of_job": job_id,
                "from_now": now,
                "new_owner": owner,
                "new_expiry": now + lease_for,
                "new_deadline": now + (asked.deadline - asked.created_at),
            }
            row = connection.execute(_claiming(), claim).one_or_none()
            if row is None:
                return None
            # Nobody but a holder records steps: there are none before the first one.
            is_first = row.lease_token == 1
            steps = () if is_first else steps_of(connection, job_id)
            return job_from_row(row, steps), row.child

    def renew(self, job: Job, now: datetime, lease_for: timedelta) -> None:
        with writing(self._engine) as connection:
            _update(connection, job, lease_expires_at=now + lease_for)

    def release(self, job: Job, not_before: datetime | None = None) -> None:
        """Give the job back as it is, for any worker; nobody takes it before `not_before`."""
        with writing(self._engine) as connection:
            _update(connection, job, **_FREE, next_attempt_at=not_before)

    def give_back(self, job: Job) -> bool:
        """Release the job if nobody has taken it over. Else take back the death that was counted
        then: a lease runs out in an outage of the database, too.
        """
        later = and_(jobs.c.id == job.job_id, jobs.c.lease_token > _token(job))
        with writing(self._engine) as connection:
            released = connection.execute(
                update(jobs).where(_still_ours(job)).values(**_FREE, next_attempt_at=None)
            ).rowcount
            if not released:
                connection.execute(
                    update(jobs)
                    .where(later, jobs.c.worker_deaths > 0)
                    .values(worker_deaths=jobs.c.worker_deaths - 1)
                )
        return released == 1

    def reread(self, job: Job) -> Job:
        """The job as it is now, if it is still ours."""
        with writing(self._engine) as connection:
            return _reread(connection, job)

    def start_step(self, job: Job, step: str, now: datetime, said: Sequence[NewEvent] = ()) -> Job:
        """Note that the step (or "undo:" step) begins, with its event and what has been said
        before; a step begun before keeps its attempt, and its event is not told again.
        """
        new, values = [*said], dict[str, Any]()
        if job.started_step != step:
            new.append(_beginning_of(step, now))
            values = {**NO_STEP, "started_step": step, "step_started_at": now}
        with writing(self._engine) as connection:
            return job_from_row(_change(connection, job, new, **values), job.steps)

    def record_child(self, job: Job, child: Mapping[str, Json]) -> None:
        """Remember the process group that works for this step, for a successor to end."""
        with writing(self._engine) as connection:
            _update(connection, job, child=dict(child))

    def record_step(
        self,
        job: Job,
        result: StepResult,
        warnings: Sequence[str] = (),
        said: Sequence[NewEvent] = (),
    ) -> Job:
        """Store a step's end, the job's checkpoint, and its event after all that it has said, in
        one transaction: the log tells of a step exactly once. A second record of the same step is
        refused by the database.
        """
        new = [*said, _event_of(result)]
        values = {**NO_STEP, "warnings": [*job.warnings, *warnings]}
        with writing(self._engine) as connection:
            row = _change(connection, job, new, **values)
            _insert_step(connection, job, result)
            return job_from_row(row, (*job.steps, result))

    def retry_step(self, job: Job) -> None:
        """Let go of the job until its `next_attempt_at`; then the same step is tried once more,
        with the counts of tries, answer and run numbers that `job` brings. How far the log of its
        run has been read stays on record with the last question.
        """
        with writing(self._engine) as connection:
            _update(
                connection,
                job,
                step_attempt=job.step_attempt,
                outage_tries=job.outage_tries,
                outage_since=job.outage_since,
                next_attempt_at=job.next_attempt_at,
                answer=dict(job.answer) if job.answer is not None else None,
                run_numbers=dict(job.run_numbers),
                question_until=None,
                last_answer_at=None,
                child=None,
                **_FREE,
            )

    def park(
        self, job: Job, question: Question, until: datetime, *, interruptible: bool, now: datetime
    ) -> None:
        """Put the job to sleep with its question; from here on nobody holds anything for it.

        A wish to cancel that came meanwhile wakes an interruptible job at once. An outage is over:
        the step has come as far as asking.
        """
        with writing(self._engine) as connection:
            _update(
                connection,
                job,
                status="waiting",
                question=question_as_json(question),
                question_number=jobs.c.question_number + 1,
                question_until=min(until, job.deadline) if interruptible else until,
                asked_at=now,
                last_answer_at=None,
                silent_seconds=0,
                silent_ask_at=None,
                interruptible=interruptible,
                answer=None,
                outage_since=None,
                child=None,
                lease_expires_at=None,
                lease_owner="",
            )
            wake_to_stop(connection, job.job_id)

    def begin_undo(
        self,
        job: Job,
        verdict: JobStatus,
        error: Mapping[str, Json],
        cut_off: StepResult | None,
        now: datetime,
    ) -> Job:
        """Set the verdict, with its event; `cut_off` is the step that was begun and will not be
        done.
        """
        with writing(self._engine) as connection:
            begun = NewEvent(now, "undo_begun", {"verdict": verdict.value, **error})
            values = {**NO_STEP, "verdict": verdict.value, "error": dict(error)}
            row = _change(connection, job, [begun], **values)
            if cut_off is None:
                return job_from_row(row, job.steps)
            _insert_step(connection, job, cut_off)
            return job_from_row(row, (*job.steps, cut_off))

    def finish(
        self,
        job: Job,
        status: JobStatus,
        now: datetime,
        last: StepResult | None = None,
        warnings: Sequence[str] = (),
    ) -> str | None:
        """Record the last step, end the job and hand its server to the next one that waits for it,
        in one transaction.

        Returns that next job's id, to be sent after the commit.
        """
        ended = NewEvent(now, "job_ended", {"status": status.value})
        with writing(self._engine) as connection:
            lock_server(connection, job.server_id)
            _change(
                connection,
                job,
                [ended] if last is None else [_event_of(last), ended],
                **NO_STEP,
                warnings=[*job.warnings, *warnings],
                status=status.value,
                finished_at=now,
                lease_expires_at=None,
                lease_owner="",
                holds_server=False,
            )
            if last is not None:
                _insert_step(connection, job, last)
            if status is JobStatus.FAILED:
                note(connection, [failed_job(job, why_given_up(connection, job), now)])
            return hand_over(connection, job.server_id)

    def append_events(self, job: Job, new: Sequence[NewEvent]) -> None:
        with writing(self._engine) as connection:
            _change(connection, job, new)


@lru_cache(maxsize=1)
def _claiming() -> ReturningUpdate[Any]:
    """The statement that claims a job. Its parameters are of_job, from_now, new_owner, new_expiry
    and new_deadline, which counts at the first claim.
    """
    now = bindparam("from_now", type_=jobs.c.started_at.type)
    due = or_(jobs.c.next_attempt_at.is_(None), jobs.c.next_attempt_at <= now)
    free = or_(
        and_(jobs.c.status == "queued", due),
        and_(jobs.c.status == "running", jobs.c.lease_expires_at <= now),
    )
    died = and_(jobs.c.status == "running", jobs.c.started_step != "")
    is_first = jobs.c.started_at.is_(None)
    deadline = bindparam("new_deadline", type_=jobs.c.deadline.type)
    return (
        update(jobs)
        .where(jobs.c.id == bindparam("of_job"), jobs.c.holds_server, free, may_begin(now))
        .values(
            status="running",
            lease_owner=bindparam("new_owner"),
            lease_token=jobs.c.lease_token + 1,
            lease_expires_at=bindparam("new_expiry", type_=jobs.c.lease_expires_at.type),
            worker_deaths=jobs.c.worker_deaths + case((died, 1), else_=0),
            started_at=func.coalesce(jobs.c.started_at, now),
            deadline=case((is_first, deadline), else_=jobs.c.deadline),
        )
        .returning(jobs)
    )


def _update(connection: Connection, job: Job, **values: Any) -> None:
    if connection.execute(update(jobs).where(_still_ours(job)).values(**values)).rowcount != 1:
        raise _taken_over(job)


def _change(connection: Connection, job: Job, new: Sequence[NewEvent], **values: Any) -> Row[Any]:
    """Change the job's row, with these events; the row as it is then."""
    given = {f"new_{name}": value for name, value in values.items()}
    given |= {"of_job": job.job_id, "of_token": _token(job), "more_events": len(new)}
    row = connection.execute(_changing(tuple(values)), given).one_or_none()
    if row is None:
        raise _taken_over(job)
    events.store_numbered(connection, row, new)
    return row


@lru_cache(maxsize=32)
def _changing(columns: tuple[str, ...]) -> ReturningUpdate[Any]:
    """The statement that changes these columns, made once: making it costs as much as running it.
    Its parameters are of_job, of_token, more_events, and new_<column>.
    """
    values: dict[str, ColumnElement[Any]] = {
        name: bindparam(f"new_{name}", type_=jobs.c[name].type) for name in columns
    }
    values["event_seq"] = jobs.c.event_seq + bindparam("more_events")
    ours = _is_leased(bindparam("of_job"), bindparam("of_token"))
    return update(jobs).where(ours).values(values).returning(jobs)


def _still_ours(job: Job) -> ColumnElement[bool]:
    """Each claim has a token of its own, also when the same worker claims again."""
    return _is_leased(literal(job.job_id), literal(_token(job)))


def _is_leased(job_id: ColumnElement[str], token: ColumnElement[int]) -> ColumnElement[bool]:
    return and_(jobs.c.id == job_id, jobs.c.status == "running", jobs.c.lease_token == token)


def _token(job: Job) -> int:
    if job.lease is None:
        raise LeaseLost(f"job {job.job_id} is not leased", job_id=job.job_id)
    return job.lease.token


def _taken_over(job: Job) -> LeaseLost:
    return LeaseLost(f"another worker has taken over job {job.job_id}", job_id=job.job_id)


def _reread(connection: Connection, job: Job) -> Job:
    row = connection.execute(select(jobs).where(_still_ours(job))).one_or_none()
    if row is None:
        raise _taken_over(job)
    return job_from_row(row, steps_of(connection, job.job_id))


def _beginning_of(step: str, now: datetime) -> NewEvent:
    name = "undo_started" if step.startswith(UNDO_PREFIX) else "step_started"
    return NewEvent(now, name, {"step": step.removeprefix(UNDO_PREFIX)})


def _event_of(result: StepResult) -> NewEvent:
    names = {StepStatus.DONE: "step_done", StepStatus.UNDONE: "undo_done"}
    data: dict[str, Json] = {"step": result.name}
    if result.status is StepStatus.DONE:
        data["result"] = dict(result.result)
    name = names.get(result.status, "undo_failed")
    return NewEvent(result.finished_at, name, {**data, **(result.error or {})})


def _insert_step(connection: Connection, job: Job, result: StepResult) -> None:
    connection.execute(
        insert(job_steps),
        {
            "job_id": job.job_id,
            "name": result.name,
            "phase": UNDO if result.status.is_undo else DO,
            "position": len(job.steps),
            "status": result.status.value,
            "attempt": result.attempt,
            "started_at": result.started_at,
            "finished_at": result.finished_at,
            "result": dict(result.result),
            "error": dict(result.error) if result.error else None,
        },
    )
