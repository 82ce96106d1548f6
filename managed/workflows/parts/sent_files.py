"""Restoring the files of another server's backup: read on the provider's side, and sent."""

from __future__ import annotations

import json
from collections.abc import Iterable

from managed.domain.errors import CommandFailed
from managed.domain.file_restores import outermost
from managed.domain.manifests import EntryKind
from managed.server_scripts import script_source
from managed.workflows.parts.wanted_files import (
    recorded_snapshot,
    script_input,
    source_id_of,
    wanted_part,
    write_manifest,
)
from managed.workflows.steps import Done, Outcome, StepContext

_SEND_SECONDS = 4 * 3600


def send(context: StepContext) -> Outcome:
    """Of another server's backup: the content, read here and sent into the folder of the job."""
    source_id = source_id_of(context)
    if source_id == context.job.server_id:
        return Done({"needed": False})
    record = recorded_snapshot(context)
    part = wanted_part(context, record)
    write_manifest(context, part.manifest)
    _receive(context, "", EntryKind.FILE, ())
    repository = context.world.repository(source_id)
    sent = 0
    for path in outermost(part.survey.kinds):
        kind = part.survey.kinds[path]
        if kind not in (EntryKind.FILE, EntryKind.DIRECTORY):
            continue
        content = context.world.repositories.content(
            repository, record.snapshot_id, path, context.register_child
        )
        with content as chunks:
            _receive(context, path, kind, chunks)
        sent += 1
        percent = 100 * sent // len(part.survey.kinds)
        context.emit("restore_progress", {"path": path, "percent": percent})
    return Done({"sent": sent})


def _receive(context: StepContext, path: str, kind: EntryKind, chunks: Iterable[bytes]) -> None:
    given = {
        **{name: value for name, value in script_input(context).items() if name != "paths"},
        "path": path,
        "is_folder": kind is EntryKind.DIRECTORY,
    }
    command = ("python3", "-I", "-c", script_source("receive_files"), json.dumps(given))
    limit = context.scaled(_SEND_SECONDS).total_seconds()
    ended = context.world.transfers.send(context.endpoint, command, chunks, timeout=limit)
    if ended.exit_status != 0:
        said = ended.stderr.strip()[-500:]
        raise CommandFailed(
            f"{context.server.name} did not take {path or 'what is to be restored'}: {said}",
            exit_status=ended.exit_status,
        )
