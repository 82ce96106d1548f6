"""Back a server up and prove it: repository, restic on the server, manifest kept, verification
from the provider's side. Without the verification there is no good backup.
"""

from __future__ import annotations

import hashlib
from datetime import datetime, timedelta

from managed.domain.errors import CommandFailed, EvidenceMissing, Json, RepositoryDamaged
from managed.domain.jobs import JobKind
from managed.domain.secrets import Secret, SecretPurpose, new_password
from managed.domain.snapshots import (
    SnapshotRecord,
    account_of,
    backup_claim,
    layout_key,
    manifest_key,
)
from managed.domain.verification import content_differences, files_to_read, snapshot_differences
from managed.workflows.parts.detached import RUNS_DIRECTORY, ServerScript, detached, texts
from managed.workflows.parts.gateway_socket import repository_url
from managed.workflows.parts.health import health_when_up
from managed.workflows.parts.kept_evidence import LARGEST_LAYOUT, LARGEST_MANIFEST, kept_manifest
from managed.workflows.parts.prepare import RESTIC_ON_SERVERS, prepare
from managed.workflows.parts.run_records import forget_runs
from managed.workflows.steps import Done, Outcome, Step, StepContext, Wait, Workflow

_BACKUP_SECONDS = 3600
_PARTS = 30
_FILES_READ = 8
_SHOWN = 20


def open_repository(context: StepContext) -> Outcome:
    """The server's own repository and its account at the gateway; made at the first backup."""
    world, server_id = context.world, context.job.server_id
    world.vault.keep_once(server_id, SecretPurpose.REPOSITORY_PASSWORD, new_password())
    account_password = world.vault.keep_once(
        server_id, SecretPurpose.GATEWAY_PASSWORD, new_password()
    )
    if not world.servers.repository_key(server_id):
        key_id = world.repositories.create(world.repository(server_id))
        world.servers.set_repository_key(server_id, key_id)
    world.repositories.quarantine(world.repository(server_id))
    world.gateway.admit(account_of(server_id), account_password)
    return Done({"account": account_of(server_id)})


def check_before(context: StepContext) -> Outcome:
    """How the server is: a restore of this backup is not to be better. A server that cannot be
    looked at is backed up all the same.
    """
    try:
        health = health_when_up(context)
    except (CommandFailed, EvidenceMissing) as error:
        return Done({"health": None}, warnings=[f"its health is not known: {error.message}"])
    return health if isinstance(health, Wait) else Done({"health": health})


def take(context: StepContext) -> Outcome:
    """Dump the databases, hash every file, run restic, hash again what moved meanwhile."""
    server = context.server
    account = account_of(server.server_id)
    script = ServerScript(
        name="take_backup",
        given={
            "repository": repository_url(account),
            "restic": RESTIC_ON_SERVERS,
            "hostname": server.name,
            "tags": [f"job:{context.job.job_id}"],
            "excludes": [],
        },
        limit=context.scaled(_BACKUP_SECONDS),
        environment=key_hint(context),
        secrets=repository_secrets(context, account),
        needs_gateway=True,
    )
    found = detached(context, "take", script)
    if isinstance(found, Wait):
        return found
    run_id = context.run_id("take")
    return Done({**found, "run_id": run_id}, warnings=texts(found.get("warnings")))


def keep_manifest(context: StepContext) -> Outcome:
    """Fetch manifest and disk layout out of the customer's reach, and note the snapshot."""
    world, server_id = context.world, context.job.server_id
    account, taken = account_of(server_id), context.result_of("take")
    claim = backup_claim(taken)
    snapshot_id, run_id = claim.snapshot_id, str(taken["run_id"])
    keys = {
        "manifest.jsonl.gz": manifest_key(account, snapshot_id),
        "layout.json": layout_key(account, snapshot_id),
    }
    limits = {"manifest.jsonl.gz": LARGEST_MANIFEST, "layout.json": LARGEST_LAYOUT}
    for name, key in keys.items():
        path = f"{RUNS_DIRECTORY}/{run_id}/{name}"
        content = world.shell.read_file(context.endpoint, path, limit=limits[name])
        world.objects.put(key, content)
    health = context.result_of("check_before").get("health")
    world.snapshots.add(
        SnapshotRecord(
            snapshot_id=snapshot_id,
            server_id=server_id,
            job_id=context.job.job_id,
            time=_began(context),
            files=claim.files,
            size=claim.size,
            manifest_key=keys["manifest.jsonl.gz"],
            layout_key=keys["layout.json"],
            health=health if isinstance(health, dict) else None,
        )
    )
    return Done({"snapshot_id": snapshot_id, **keys})


def verify(context: StepContext) -> Outcome:
    """From the bucket, without the server: is the repository sound, and does the snapshot hold
    what the manifest says?
    """
    world, server_id = context.world, context.job.server_id
    snapshot_id = str(context.result_of("keep_manifest")["snapshot_id"])
    repository = world.repository(server_id)
    quarantined = world.repositories.quarantine(repository)
    part = world.servers.part_to_check(server_id, _PARTS)
    check = world.repositories.check(repository, part, _PARTS, context.emit, context.register_child)
    if not check.is_sound:
        raise RepositoryDamaged(
            f"restic check found errors: {'; '.join(check.errors[:_SHOWN])}",
            hint="Take a new backup into a new repository; keep this one for what it still holds.",
        )
    world.servers.part_checked(server_id, part, _PARTS)
    manifest = list(kept_manifest(context, manifest_key(account_of(server_id), snapshot_id)))
    files = world.repositories.files(repository, snapshot_id)
    read = files_to_read(manifest, snapshot_id, _FILES_READ)
    digests = {
        entry.path: hashlib.sha256(
            world.repositories.file_content(repository, snapshot_id, entry.path)
        ).hexdigest()
        for entry in read
    }
    problems = snapshot_differences(manifest, files) + content_differences(read, digests)
    if problems:
        raise EvidenceMissing(
            f"the snapshot is not what the manifest says: {'; '.join(problems[:_SHOWN])}",
            snapshot_id=snapshot_id,
            problems=len(problems),
        )
    evidence: dict[str, Json] = {
        "check": check.as_json(),
        "paths_compared": len(manifest),
        "contents_compared": [entry.path for entry in read],
        "quarantined": list(quarantined),
    }
    world.snapshots.mark_verified(snapshot_id, evidence, context.now)
    warnings = [*check.warnings, *(f"quarantined {name}" for name in quarantined[:_SHOWN])]
    return Done({"snapshot_id": snapshot_id, **evidence}, warnings=warnings)


def repository_secrets(context: StepContext, account: str) -> dict[str, Secret]:
    """What restic on a server or in its rescue session gets, by stdin, for one run."""
    world, server_id = context.world, context.job.server_id
    return {
        "RESTIC_PASSWORD": world.repository(server_id).password,
        "RESTIC_REST_USERNAME": Secret(account),
        "RESTIC_REST_PASSWORD": world.vault.secret(server_id, SecretPurpose.GATEWAY_PASSWORD),
    }


def key_hint(context: StepContext) -> dict[str, str]:
    """Which key restic is to try: it would give up among others that a hostile root has planted."""
    return {"RESTIC_KEY_HINT": context.world.servers.repository_key(context.job.server_id)}


def stop_run(context: StepContext) -> None:
    """Undo: end a run that still works; snapshots that it has made stay unverified."""
    context.world.runs.stop(context.endpoint, context.run_id("take"))


def _began(context: StepContext) -> datetime:
    """When the backup began by our clock: the customer's could say anything."""
    record = context.job.done_step("take")
    return record.started_at if record else context.now


WORKFLOW = Workflow(
    kind=JobKind.BACKUP,
    version=1,
    time_limit=timedelta(hours=12),
    steps=(
        Step("open_repository", open_repository),
        Step("prepare", prepare),
        Step("check_before", check_before),
        Step("take", take, undo=stop_run),
        Step("keep_manifest", keep_manifest),
        Step("verify", verify),
        Step("forget_runs", forget_runs("take")),
    ),
)
