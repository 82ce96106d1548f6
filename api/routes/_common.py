"""What routes share: which problems they document, and how pages are cut."""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from typing import Annotated, Any, TypeVar

from fastapi import Path, Query
from pydantic import StringConstraints

from api.auth import Caller
from api.dependencies import Services
from api.examples import JOB_ID, SERVER_ID
from api.schemas import Problem
from managed.domain.errors import NotFound
from managed.domain.jobs import Job
from managed.domain.servers import Server

Item = TypeVar("Item")

Limit = Annotated[int, Query(ge=1, le=200, description="How many at most.")]
Reference = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9-]{1,63}$")]
ServerReference = Annotated[
    Reference, Path(description="The server's id or its name.", examples=[SERVER_ID, "shop"])
]
JobReference = Annotated[uuid.UUID, Path(description="The job's id.", examples=[JOB_ID])]

_MEANINGS = {
    400: "The body cannot be read.",
    401: "The bearer token is missing, wrong or has ended.",
    403: "The caller's role or the token's scopes do not permit this.",
    404: "There is no such thing.",
    409: "The present state does not allow this; `code` and `data` say why.",
    413: "The body is larger than 1 MiB.",
    422: "The request makes no sense as written; `data.errors` names the fields.",
    503: "Something that this needs does not answer; `Retry-After` says when to ask again.",
}


def problems(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """The `responses` of a route that may answer with these problems; one that takes a body (413)
    may find that it cannot be read (400).
    """
    unreadable = {400} if 413 in statuses else set()
    return {
        status: {"model": Problem, "description": _MEANINGS[status]}
        for status in sorted({*statuses, *unreadable, 401, 403, 422, 503})
    }


def server_of(services: Services, caller: Caller, reference: str) -> Server:
    """The server of this id or name; NotFound, also for one that is not the caller's to see."""
    server = services.inventory.named(reference)
    if server is None or not caller.principal.sees(server.customer_id):
        raise NotFound(
            f"there is no server {reference!r}",
            hint="GET /v1/servers lists those under management.",
            server=reference,
        )
    return server


def job_of(services: Services, caller: Caller, job_id: uuid.UUID) -> Job:
    """The job with its steps; NotFound, also for one that is not the caller's to see."""
    job = services.queue.job(str(job_id))
    if not caller.principal.sees(services.inventory.owner_of(job.server_id)):
        raise NotFound(f"there is no job {job_id}", job_id=str(job_id))
    return job


def cut(items: Sequence[Item], limit: int) -> tuple[Sequence[Item], Item | None]:
    """The page, and its last item when there is a page after it. Ask for `limit` + 1 items."""
    page = items[:limit]
    return page, page[-1] if len(items) > limit else None
