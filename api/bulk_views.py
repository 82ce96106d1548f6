"""Answers to requests for many jobs at once."""

from __future__ import annotations

from api.examples import ENROLLED_ID, JOB_ID, SERVER_ID, Example
from api.views import Document, View, shown_as
from managed.domain.errors import Json, ManagedError
from managed.domain.servers import Server

_SUBMITTED: Example = {
    "server_id": SERVER_ID,
    "server": "shop",
    "job_id": JOB_ID,
    "refusal": None,
}
_REFUSED: Example = {
    "server_id": ENROLLED_ID,
    "server": "old-shop",
    "job_id": None,
    "refusal": {
        "code": "server-busy",
        "title": "Another job is working on this server",
        "detail": "a backup job is working on this server",
    },
}


class BulkItemView(View):
    """What came of one server: its job, or the refusal that a single request would have got, as
    in a problem document. In a dry run both are null where a job would be made.
    """

    model_config = shown_as(_SUBMITTED)
    server_id: str | None
    server: str
    job_id: str | None
    refusal: Document | None

    @classmethod
    def submitted(cls, server: Server, job_id: str | None) -> BulkItemView:
        return cls(server_id=server.server_id, server=server.name, job_id=job_id, refusal=None)

    @classmethod
    def refused(cls, name: str, server_id: str | None, error: ManagedError) -> BulkItemView:
        refusal: dict[str, Json] = error.as_json()
        return cls(server_id=server_id, server=name, job_id=None, refusal=refusal)


class BulkView(View):
    """One item for each server, by name. `next` is the cursor with which to go on, or null."""

    model_config = shown_as(
        {
            "dry_run": False,
            "submitted": 1,
            "refused": 1,
            "items": [_REFUSED, _SUBMITTED],
            "next": None,
        }
    )
    dry_run: bool
    submitted: int
    refused: int
    items: list[BulkItemView]
    next: str | None
