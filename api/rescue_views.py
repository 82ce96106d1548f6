"""Answers about rescue sessions, open ones and ended ones."""

from __future__ import annotations

from datetime import datetime

from api.examples import RESCUE_SESSION, SERVER_ID
from api.schemas import RescueSessionView
from api.views import shown_as
from managed.domain.rescue import RescueSession


class RescueSessionRecordView(RescueSessionView):
    """A rescue session of a server; `ended_at` is null while it is open."""

    model_config = shown_as({**RESCUE_SESSION, "server_id": SERVER_ID, "ended_at": None})
    server_id: str
    ended_at: datetime | None

    @classmethod
    def on_record(cls, session: RescueSession) -> RescueSessionRecordView:
        return cls(
            **RescueSessionView.of(session).model_dump(),
            server_id=session.server_id,
            ended_at=session.ended_at,
        )
