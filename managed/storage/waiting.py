"""What the poller does: find the questions of waiting jobs, note what came, wake the jobs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy import Connection, Engine, Update, select, update

from managed.domain.errors import InvalidInput, Json
from managed.domain.events import NewEvent
from managed.domain.jobs import Silence
from managed.domain.progress import AnswerOutcome
from managed.domain.questions import Question, question_as_json, question_from_json
from managed.storage import events
from managed.storage.database import reading, writing
from managed.storage.tables import jobs


@dataclass(frozen=True)
class OpenQuestion:
    """A waiting job's question. `number` tells it from later questions of the same job. `question`
    is None when only a later version of ours can ask it; its limits count all the same.
    """

    job_id: str
    server_id: str
    number: int
    question: Question | None
    until: datetime
    asked_at: datetime
    last_answer_at: datetime | None
    silence: Silence
    cancel_requested: bool


class WaitingJobs:
    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def questions(self) -> Sequence[OpenQuestion]:
        query = select(jobs).where(jobs.c.status == "waiting").order_by(jobs.c.asked_at)
        with reading(self._engine) as connection:
            return [
                OpenQuestion(
                    job_id=row.id,
                    server_id=row.server_id,
                    number=row.question_number,
                    question=_known_question(row.question),
                    until=row.question_until,
                    asked_at=row.asked_at,
                    last_answer_at=row.last_answer_at,
                    silence=Silence(timedelta(seconds=row.silent_seconds), row.silent_ask_at),
                    cancel_requested=bool(row.cancel_requested),
                )
                for row in connection.execute(query)
            ]

    def note(
        self, asked: OpenQuestion, question: Question, new: Sequence[NewEvent], now: datetime
    ) -> bool:
        """The server answered that it is still at it: keep where we are and what it said.

        Offset and events move in one transaction, so a line is never lost or logged twice.
        False when the job no longer waits for this question, or another poller moved on.
        """
        with writing(self._engine) as connection:
            changed = connection.execute(
                _still_asked(asked).values(
                    question=question_as_json(question),
                    last_answer_at=now,
                    silent_seconds=0,
                    silent_ask_at=None,
                )
            ).rowcount
            if changed == 1:
                events.append(connection, asked.job_id, new)
            return changed == 1

    def note_silence(self, asked: OpenQuestion, silence: Silence) -> bool:
        """The server did not answer: keep for how long already. False as for `note`."""
        with writing(self._engine) as connection:
            changed = connection.execute(
                _still_asked(asked).values(
                    silent_seconds=silence.lasted.total_seconds(),
                    silent_ask_at=silence.last_ask_at,
                )
            ).rowcount
            return changed == 1

    def wake(self, asked: OpenQuestion, answer: Mapping[str, Json]) -> bool:
        """Hand the answer over; False when the job no longer waits for this question."""
        with writing(self._engine) as connection:
            changed = connection.execute(
                _still_asked(asked).values(status="queued", answer=dict(answer), sent_at=None)
            ).rowcount
            return changed == 1


def wake_to_stop(connection: Connection, job_id: str) -> None:
    """A job that waits, may be interrupted and is to stop goes on at once, to do that."""
    connection.execute(
        update(jobs)
        .where(
            jobs.c.id == job_id,
            jobs.c.status == "waiting",
            jobs.c.interruptible,
            jobs.c.cancel_requested != "",
        )
        .values(
            status="queued",
            sent_at=None,
            next_attempt_at=None,
            answer={"outcome": AnswerOutcome.INTERRUPTED.value},
        )
    )


def _known_question(document: Mapping[str, Json]) -> Question | None:
    try:
        return question_from_json(document)
    except InvalidInput:
        return None


def _still_asked(asked: OpenQuestion) -> Update:
    same_answer = (
        jobs.c.last_answer_at.is_(None)
        if asked.last_answer_at is None
        else jobs.c.last_answer_at == asked.last_answer_at
    )
    return update(jobs).where(
        jobs.c.id == asked.job_id,
        jobs.c.status == "waiting",
        jobs.c.question_number == asked.number,
        same_answer,
    )
