"""Bring a whole server back from a snapshot, onto its own empty or broken disk (bare metal).

Files come back inside a rescue session. Before the first boot every file is compared with the
manifest that was taken with the backup, except what the restore itself rewrites. After it the
databases are loaded from their dumps: their files were copied while they changed.
"""

from __future__ import annotations

import json
from datetime import datetime, timedelta

from managed.domain.disk_layout_documents import parsed_layout
from managed.domain.disk_layouts import check_restorable
from managed.domain.errors import EvidenceMissing, Json, NoBackup, NotSupported
from managed.domain.health import health_problems, health_report
from managed.domain.jobs import JobKind
from managed.domain.rescue import rescue_limitation
from managed.domain.runs import RunRequest
from managed.domain.servers import PowerState, ServerStatus
from managed.domain.snapshots import SnapshotRecord, account_of, snapshot_to_restore
from managed.workflows.parts.detached import ServerScript, detached, start_over_ssh, texts
from managed.workflows.parts.gateway_socket import repository_url
from managed.workflows.parts.health import (
    health_when_up,
    require_health,
    require_no_regression,
)
from managed.workflows.parts.kept_evidence import kept_content, manifest_entries
from managed.workflows.parts.repository_access import key_hint, repository_secrets
from managed.workflows.parts.rescue_boot import (
    boot_normally,
    boot_rescue,
    end_rescue,
    end_rescue_of_this_job,
    require_rescue,
    start_again,
)
from managed.workflows.parts.run_records import forget_runs
from managed.workflows.steps import Done, Outcome, Step, StepContext, Wait, Workflow

_RESTORE_SECONDS = 3600
_LOAD_SECONDS = 4 * 3600
_MANIFEST_IN_RESCUE = "/run/managed/manifest.jsonl.gz"


def choose(context: StepContext) -> Outcome:
    """Which verified snapshot, can its disk be laid out again, and can its manifest be read?
    Nothing is touched yet.
    """
    server = context.server
    limitation = rescue_limitation(server)
    if limitation is not None:
        raise NotSupported(f"{server.name} cannot be restored bare-metal: {limitation}")
    record = _chosen(context)
    check_restorable(parsed_layout(_layout(context, record)))
    entries = sum(1 for _ in manifest_entries(kept_content(context, record.manifest)))
    if entries != record.files:
        raise EvidenceMissing(f"the manifest has {entries} of the {record.files} files backed up")
    power = context.world.hypervisor(server).power_state(server.server_id)
    quarantined = context.world.repositories.quarantine(context.world.repository(server.server_id))
    return Done(
        {
            "snapshot_id": record.snapshot_id,
            "time": record.time.isoformat(),
            "files": record.files,
            "bytes": record.size,
            "quarantined": list(quarantined),
            "ran": power is PowerState.RUNNING,
        }
    )


def go_back(context: StepContext) -> None:
    """Undo: a disk that was not touched boots again if it did before; one that was is broken.
    What has been restored and seen to be well stays.
    """
    job, status = context.job, context.server.status
    begun = job.done_step("restore") or job.has_failed("restore")
    if begun and status is ServerStatus.ACTIVE:
        return
    if begun and status is ServerStatus.BROKEN:
        end_rescue_of_this_job(context, ServerStatus.BROKEN)
        return
    end_rescue_of_this_job(context)
    if context.result_of("choose").get("ran"):
        start_again(context)


def restore(context: StepContext) -> Outcome:
    """Partitions, filesystems, files, the comparison with the manifest, boot loader."""
    record = _record(context)
    account = account_of(record.server_id)
    script = ServerScript(
        name="restore_system",
        given={
            "disk_serial": context.server.disk_serial,
            "layout": _layout(context, record),
            "repository": repository_url(account),
            "snapshot": record.snapshot_id,
            "manifest": _MANIFEST_IN_RESCUE,
        },
        limit=context.scaled(_RESTORE_SECONDS),
        environment=key_hint(context),
        secrets=repository_secrets(context, account),
        needs_gateway=True,
    )
    found = detached(context, "restore", script, _start_with_manifest)
    if isinstance(found, Wait):
        return found
    if found.get("checked") != record.files:
        raise EvidenceMissing(
            f"{found.get('checked')} of {record.files} files were compared with the manifest"
        )
    return Done(found)


def leave_rescue(context: StepContext) -> Outcome:
    end_rescue(context, ServerStatus.BROKEN)
    return Done()


def load_databases(context: StepContext) -> Outcome:
    """Databases with a dump are made anew from it. One that can't be is a warning where that was
    to be known, else a failure, and runs on the files that were restored.
    """
    script = ServerScript(
        name="load_databases",
        given={"load": context.job.job_id},
        limit=context.scaled(_LOAD_SECONDS),
    )
    found = detached(context, "load_databases", script)
    if isinstance(found, Wait):
        return found
    return Done(found, warnings=texts(found.get("warnings")))


def check(context: StepContext) -> Outcome:
    """It boots and is no worse than when it was backed up (or well, where nobody looked then):
    only now the server counts as back.
    """
    known = _record(context).health
    before = None if known is None else health_report(known)
    health = health_when_up(context, before)
    if isinstance(health, Wait):
        return health
    report = health_report(health)
    if before is None:
        require_health(report)
    else:
        require_no_regression(before, report)
    context.world.servers.set_status(context.job.server_id, ServerStatus.ACTIVE, context.now)
    warnings = [f"as it was when backed up: {problem}" for problem in health_problems(report)]
    return Done({"health": health}, warnings=warnings)


def _start_with_manifest(context: StepContext, request: RunRequest) -> None:
    """Before the first partition is written it is on record that this disk holds no server."""
    record = _record(context)
    manifest = kept_content(context, record.manifest)
    require_rescue(context)
    context.world.shell.run(context.endpoint, ("mkdir", "-p", "-m", "0700", "/run/managed"))
    context.world.shell.write_file(context.endpoint, _MANIFEST_IN_RESCUE, manifest, 0o600)
    context.world.servers.set_status(record.server_id, ServerStatus.BROKEN, context.now)
    start_over_ssh(context, request)


def _chosen(context: StepContext) -> SnapshotRecord:
    """The named snapshot, or the newest verified one as of the given time."""
    wanted = context.job.parameters
    records = context.world.snapshots.of_server(context.job.server_id)
    if wanted.get("snapshot_id"):
        records = [r for r in records if r.snapshot_id == wanted["snapshot_id"]]
    as_of = wanted.get("as_of")
    record = snapshot_to_restore(records, datetime.fromisoformat(str(as_of)) if as_of else None)
    if record is None:
        raise NoBackup(
            "there is no verified backup to restore from",
            hint="List the server's snapshots; only verified ones are restored.",
            server_id=context.job.server_id,
        )
    return record


def _record(context: StepContext) -> SnapshotRecord:
    """The snapshot that `choose` has chosen."""
    return context.world.snapshots.get(str(context.result_of("choose")["snapshot_id"]))


def _layout(context: StepContext, record: SnapshotRecord) -> dict[str, Json]:
    try:
        document = json.loads(kept_content(context, record.layout))
    except ValueError as error:
        raise EvidenceMissing("the recorded disk layout cannot be read") from error
    if not isinstance(document, dict) or not isinstance(document.get("layout"), dict):
        raise EvidenceMissing("the recorded disk layout cannot be read")
    layout: dict[str, Json] = document["layout"]
    return layout


WORKFLOW = Workflow(
    kind=JobKind.RESTORE,
    version=1,
    time_limit=timedelta(hours=24),
    steps=(
        Step("choose", choose),
        Step("boot_rescue", boot_rescue, undo=go_back),
        Step("restore", restore),
        Step("leave_rescue", leave_rescue),
        Step("boot", boot_normally),
        Step("load_databases", load_databases, interruptible=False),
        Step("check", check),
        Step("forget_runs", forget_runs("load_databases")),
    ),
)
