"""Looking into backups."""

from __future__ import annotations

import base64
import binascii
from typing import Annotated

from fastapi import APIRouter, Path, Query

from api.auth import CallerDependency, GuardedRoute, permits
from api.dependencies import ServicesDependency
from api.examples import SNAPSHOT_ID
from api.routes._common import Limit, ServerReference, cut, problems, server_of
from api.snapshot_views import SnapshotPathView
from api.views import Page
from managed.domain.access import Permission
from managed.domain.errors import InvalidInput, NotFound
from managed.domain.manifest_listing import children
from managed.workflows.parts.kept_evidence import manifest_entries, read_kept

router = APIRouter(
    prefix="/v1/servers/{server}/snapshots", tags=["snapshots"], route_class=GuardedRoute
)


@router.get(
    "/{snapshot_id}/paths",
    responses=problems(404),
    dependencies=[permits(Permission.SERVERS_READ)],
)
def list_snapshot_paths(
    server: ServerReference,
    snapshot_id: Annotated[
        str, Path(pattern=r"^[0-9a-f]{64}$", description="Its whole id.", examples=[SNAPSHOT_ID])
    ],
    services: ServicesDependency,
    caller: CallerDependency,
    under: Annotated[
        str,
        Query(pattern="^/", max_length=4096, description="The folder that is looked into."),
    ] = "/",
    limit: Limit = 100,
    cursor: Annotated[
        str | None, Query(max_length=8192, description="`next` of the page before.")
    ] = None,
) -> Page[SnapshotPathView]:
    """What lies directly in a folder of a backup, by its manifest, which is checked to be the one
    that the backup has left. A job of the kind `restore-files` brings any of it back.
    """
    server_id = server_of(services, caller, server).server_id
    record = services.catalogue.get(snapshot_id)
    if record.server_id != server_id:
        raise NotFound(f"there is no snapshot {snapshot_id}", snapshot_id=snapshot_id)
    entries = manifest_entries(read_kept(services.objects(), record.manifest))
    folder = under.rstrip("/") or "/"
    found = children(entries, folder, _path_of(cursor) if cursor else None, limit + 1)
    page, last = cut(found, limit)
    return Page[SnapshotPathView](
        items=[SnapshotPathView.of(entry) for entry in page],
        next=_cursor_of(last.path) if last else None,
    )


def _cursor_of(path: str) -> str:
    return base64.urlsafe_b64encode(path.encode("utf-8", "surrogateescape")).decode("ascii")


def _path_of(cursor: str) -> str:
    try:
        return base64.b64decode(cursor, b"-_", validate=True).decode("utf-8", "surrogateescape")
    except (binascii.Error, ValueError) as error:
        raise InvalidInput("the cursor is none of ours", field="cursor") from error
