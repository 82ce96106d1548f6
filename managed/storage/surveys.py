"""What surveys have found, kept beside the openings that they were made for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, Engine, Row, delete, func, select

from managed.domain.jobs import JobKind
from managed.domain.surveys import Finding, Survey, SurveyOutcome
from managed.domain.windows import Opening
from managed.storage.database import inserting, reading, writing
from managed.storage.tables import surveys
from managed.storage.windows import page_of_openings


class SurveyRecords:
    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def record(self, found: Sequence[Survey]) -> None:
        """All in one transaction. Of two surveys for one opening of a server (there may be a second
        clock) the first stays.
        """
        if not found:
            return
        with writing(self._engine) as connection:
            statement = inserting(connection, surveys).on_conflict_do_nothing()
            connection.execute(statement, [_values(one) for one in found])

    def outcomes(self, kind: JobKind, opening: Opening) -> Mapping[str, SurveyOutcome]:
        """What this opening's surveys have found, by server."""
        query = select(surveys.c.server_id, surveys.c.outcome).where(
            surveys.c.job_kind == kind.value, surveys.c.starts_at == opening.starts_at
        )
        with reading(self._engine) as connection:
            return {row.server_id: SurveyOutcome(row.outcome) for row in connection.execute(query)}

    def find(
        self,
        *,
        since: datetime,
        server_id: str | None = None,
        customer_id: str | None = None,
        outcome: SurveyOutcome | None = None,
        before: tuple[datetime, str, str] | None = None,
        limit: int = 50,
    ) -> Sequence[Survey]:
        """Those of openings that began at `since` or later, newest first; `before` is start, server
        and kind of the last one of the page before.
        """
        query = select(surveys).where(surveys.c.starts_at >= since)
        if outcome is not None:
            query = query.where(surveys.c.outcome == outcome.value)
        query = page_of_openings(query, surveys, server_id, customer_id, before, limit)
        with reading(self._engine) as connection:
            return [_survey(row) for row in connection.execute(query)]

    def last(self, server_id: str, kind: JobKind) -> Survey | None:
        query = (
            select(surveys)
            .where(surveys.c.server_id == server_id, surveys.c.job_kind == kind.value)
            .order_by(surveys.c.starts_at.desc())
            .limit(1)
        )
        with reading(self._engine) as connection:
            row = connection.execute(query).one_or_none()
        return _survey(row) if row else None

    def counts(self, since: datetime) -> Mapping[SurveyOutcome, int]:
        """How many surveys of openings that began at that time or later have found what."""
        with reading(self._engine) as connection:
            return counts_within(connection, since)

    def forget(self, before: datetime) -> None:
        """Those of openings that began before that time."""
        with writing(self._engine) as connection:
            connection.execute(delete(surveys).where(surveys.c.starts_at < before))


def counts_within(connection: Connection, since: datetime) -> Mapping[SurveyOutcome, int]:
    """`SurveyRecords.counts`, within the caller's transaction."""
    query = (
        select(surveys.c.outcome, func.count().label("number"))
        .where(surveys.c.starts_at >= since)
        .group_by(surveys.c.outcome)
    )
    return {SurveyOutcome(row.outcome): row.number for row in connection.execute(query)}


def _values(survey: Survey) -> dict[str, object]:
    return {
        "server_id": survey.server_id,
        "job_kind": survey.job_kind.value,
        "starts_at": survey.opening.starts_at,
        "ends_at": survey.opening.ends_at,
        "asked_at": survey.asked_at,
        "outcome": survey.finding.outcome.value,
        "found": dict(survey.finding.found),
        "detail": survey.finding.detail,
    }


def _survey(row: Row[Any]) -> Survey:
    return Survey(
        server_id=row.server_id,
        job_kind=JobKind(row.job_kind),
        opening=Opening(row.starts_at, row.ends_at),
        asked_at=row.asked_at,
        finding=Finding(SurveyOutcome(row.outcome), row.detail, row.found),
    )
