"""What a restore of files is asked for, and the part of the manifest that answers it."""

from __future__ import annotations

import gzip
import io
from dataclasses import dataclass
from datetime import datetime

from managed.domain.errors import Json, NoBackup
from managed.domain.file_restores import (
    PartSurvey,
    RestoreTarget,
    checked_paths,
    snapshot_for_files,
)
from managed.domain.manifests import manifest_lines
from managed.domain.snapshots import SnapshotRecord
from managed.workflows.parts.kept_evidence import kept_content, manifest_entries
from managed.workflows.steps import StepContext

_MANIFESTS = "/var/lib/managed/restores"


@dataclass(frozen=True)
class WantedPart:
    """What is to be restored, with its own manifest."""

    survey: PartSurvey
    manifest: bytes


def source_id_of(context: StepContext) -> str:
    return str(context.job.parameters.get("from_server") or context.job.server_id)


def target_of(context: StepContext) -> RestoreTarget:
    return RestoreTarget(str(context.job.parameters.get("target", RestoreTarget.BESIDE)))


def wanted_paths(context: StepContext) -> tuple[str, ...]:
    paths = context.job.parameters["paths"]
    return checked_paths([str(path) for path in paths] if isinstance(paths, list) else [])


def chosen_snapshot(context: StepContext, source_id: str) -> SnapshotRecord:
    wanted = context.job.parameters
    as_of, named = wanted.get("as_of"), wanted.get("snapshot_id")
    record = snapshot_for_files(
        context.world.snapshots.of_server(source_id),
        str(named) if named else None,
        datetime.fromisoformat(str(as_of)) if as_of else None,
    )
    if record is None:
        raise NoBackup(
            "there is no verified backup to restore from",
            hint="List the server's snapshots; only verified ones are restored.",
            server_id=source_id,
        )
    return record


def recorded_snapshot(context: StepContext) -> SnapshotRecord:
    """The snapshot that `choose` has chosen."""
    return context.world.snapshots.get(str(context.result_of("choose")["snapshot_id"]))


def wanted_part(context: StepContext, record: SnapshotRecord) -> WantedPart:
    survey = PartSurvey(wanted_paths(context))
    entries = manifest_entries(kept_content(context, record.manifest))
    written = io.BytesIO()
    with gzip.GzipFile(fileobj=written, mode="wb", mtime=0) as file:
        for line in manifest_lines(survey.part(entries)):
            file.write(line.encode("ascii"))
    return WantedPart(survey, written.getvalue())


def script_input(context: StepContext) -> dict[str, Json]:
    chosen = context.result_of("choose")
    return {
        "paths": list(wanted_paths(context)),
        "manifest": manifest_file(context),
        "place": chosen["place"],
        "in_place": target_of(context) is RestoreTarget.IN_PLACE,
        "size": chosen["bytes"],
        "entries": chosen["entries"],
    }


def write_manifest(context: StepContext, manifest: bytes) -> None:
    context.world.shell.run(context.endpoint, ("mkdir", "-p", "-m", "0700", _MANIFESTS))
    context.world.shell.write_file(context.endpoint, manifest_file(context), manifest, 0o600)


def manifest_file(context: StepContext) -> str:
    return f"{_MANIFESTS}/{context.job.job_id}.jsonl.gz"
