"""Back a server up and prove it: repository, restic on the server, manifest kept, verification
from the provider's side. Without the verification there is no good backup.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from datetime import datetime, timedelta
from itertools import islice

from managed.domain.errors import CommandFailed, EvidenceMissing, Json, RepositoryDamaged
from managed.domain.jobs import JobKind
from managed.domain.manifests import ManifestEntry
from managed.domain.secrets import SecretPurpose, new_password
from managed.domain.snapshots import (
    SnapshotRecord,
    account_of,
    backup_claim,
    claim_refusal,
    job_tag,
    kept_layout,
    kept_manifest,
    snapshots_before,
)
from managed.domain.verification import content_differences, files_to_read, snapshot_differences
from managed.workflows.parts.detached import RUNS_DIRECTORY, ServerScript, detached, texts
from managed.workflows.parts.gateway_socket import repository_url
from managed.workflows.parts.health import health_when_up
from managed.workflows.parts.kept_evidence import (
    LARGEST_LAYOUT,
    LARGEST_MANIFEST,
    kept_content,
    manifest_entries,
)
from managed.workflows.parts.prepare import RESTIC_ON_SERVERS, prepare
from managed.workflows.parts.repository_access import key_hint, repository_secrets
from managed.workflows.parts.run_records import forget_runs
from managed.workflows.steps import (
    Done,
    Outcome,
    Step,
    StepContext,
    StepFunction,
    Wait,
    Workflow,
)

_BACKUP_SECONDS = 3600
_PARTS = 30
_FILES_READ = 8
_SHOWN = 20
_MOST_UNKNOWN = 10_000


def open_repository(context: StepContext) -> Outcome:
    """The server's own repository and its account at the gateway; made at the first backup."""
    server_id = context.job.server_id
    context.world.vault.keep_once(server_id, SecretPurpose.REPOSITORY_PASSWORD, new_password())
    account_password = context.world.vault.keep_once(
        server_id, SecretPurpose.GATEWAY_PASSWORD, new_password()
    )
    if not context.world.servers.repository_key(server_id):
        key_id = context.world.repositories.create(
            context.world.repository(server_id), context.register_child
        )
        context.world.servers.set_repository_key(server_id, key_id)
    repository = context.world.repository(server_id)
    context.world.repositories.quarantine(repository)
    found = context.world.repositories.snapshots(repository, context.register_child)
    before = snapshots_before(found, context.world.snapshots.of_server(server_id))
    if len(before) > _MOST_UNKNOWN:
        raise RepositoryDamaged(
            f"the repository holds {len(before)} snapshots that no job has on record",
            hint="Whoever is root there has planted them; remove them with restic's forget.",
        )
    context.world.gateway.admit(account_of(server_id), account_password)
    return Done({"account": account_of(server_id), "snapshots_before": list(before)})


def check_before(context: StepContext) -> Outcome:
    """How the server is: a restore of this backup is not to be better. A server that cannot be
    looked at is backed up all the same.
    """
    try:
        health = health_when_up(context)
    except (CommandFailed, EvidenceMissing) as error:
        return Done({"health": None}, warnings=[f"its health is not known: {error.message}"])
    return health if isinstance(health, Wait) else Done({"health": health})


PathsOf = Callable[[StepContext], Sequence[str]]
"""What alone is to be backed up; nothing: the whole server."""


def taking(paths: PathsOf) -> StepFunction:
    """The step that takes the backup of these paths."""
    return lambda context: _take(context, paths(context))


def keeping_manifest(paths: PathsOf) -> StepFunction:
    """The step that keeps manifest and layout of the backup of these paths."""
    return lambda context: _keep_manifest(context, paths(context))


def _whole_server(_context: StepContext) -> Sequence[str]:
    return ()


def _take(context: StepContext, paths: Sequence[str]) -> Outcome:
    """Dump the databases, hash every file, run restic, hash again what moved meanwhile."""
    server = context.server
    account = account_of(server.server_id)
    script = ServerScript(
        name="take_backup",
        given={
            "repository": repository_url(account),
            "restic": RESTIC_ON_SERVERS,
            "hostname": server.name,
            "tags": [job_tag(context.job.job_id)],
            "excludes": [],
            "paths": list(paths),
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


def find_snapshot(context: StepContext) -> Outcome:
    """This run's snapshot, as the bucket shows it: root on the server may name an older one."""
    server_id, job_id = context.job.server_id, context.job.job_id
    snapshot_id = backup_claim(context.result_of("take")).snapshot_id
    repository = context.world.repository(server_id)
    quarantined = context.world.repositories.quarantine(repository)
    refusal = claim_refusal(
        snapshot_id,
        job_id,
        context.world.repositories.snapshots(repository, context.register_child),
        _snapshots_before(context),
        context.world.snapshots.of_server(server_id),
    )
    if refusal is not None:
        raise EvidenceMissing(
            f"the snapshot that the server names {refusal}", snapshot_id=snapshot_id
        )
    return Done(
        {"snapshot_id": snapshot_id, "quarantined": list(quarantined)},
        warnings=_said_of(quarantined),
    )


def _keep_manifest(context: StepContext, paths: Sequence[str]) -> Outcome:
    """Fetch manifest and disk layout out of the customer's reach, and note the snapshot."""
    server_id = context.job.server_id
    account, claim = account_of(server_id), backup_claim(context.result_of("take"))
    manifest = _from_run(context, "manifest.jsonl.gz", LARGEST_MANIFEST)
    entries = sum(1 for _ in manifest_entries(manifest))
    if entries != claim.files:
        raise EvidenceMissing(f"the manifest has {entries} of the {claim.files} files backed up")
    layout = _from_run(context, "layout.json", LARGEST_LAYOUT)
    looked = context.job.done_step("check_before")
    health = looked.result.get("health") if looked else None
    record = SnapshotRecord(
        snapshot_id=claim.snapshot_id,
        server_id=server_id,
        job_id=context.job.job_id,
        time=_began(context),
        files=claim.files,
        size=claim.size,
        manifest=kept_manifest(account, claim.snapshot_id, manifest),
        layout=kept_layout(account, claim.snapshot_id, layout),
        health=health if isinstance(health, dict) else None,
        paths=tuple(paths),
    )
    context.world.objects.put(record.manifest.key, manifest)
    context.world.objects.put(record.layout.key, layout)
    context.world.snapshots.add(record)
    kept = {"manifest": record.manifest.key, "layout": record.layout.key}
    return Done({"snapshot_id": claim.snapshot_id, **kept})


def verify(context: StepContext) -> Outcome:
    """From the bucket, without the server: is the repository sound, and does the snapshot hold
    what the manifest says?
    """
    server_id = context.job.server_id
    record = context.world.snapshots.get(str(context.result_of("keep_manifest")["snapshot_id"]))
    repository = context.world.repository(server_id)
    quarantined = context.world.repositories.quarantine(repository)
    part = context.world.servers.part_to_check(server_id, _PARTS)
    check = context.world.repositories.check(
        repository, part, _PARTS, context.emit, context.register_child
    )
    if not check.is_sound:
        raise RepositoryDamaged(
            f"restic check found errors: {'; '.join(check.errors[:_SHOWN])}",
            hint="Take a new backup into a new repository; keep this one for what it still holds.",
        )
    context.world.servers.part_checked(server_id, part, _PARTS)
    read = _require_content(context, record)
    evidence: dict[str, Json] = {
        "check": check.as_json(),
        "paths_compared": record.files,
        "contents_compared": [entry.path for entry in read],
        "quarantined": list(quarantined),
    }
    context.world.snapshots.mark_verified(record.snapshot_id, evidence, context.now)
    warnings = [*check.warnings, *_said_of(quarantined)]
    return Done({"snapshot_id": record.snapshot_id, **evidence}, warnings=warnings)


def _require_content(context: StepContext, record: SnapshotRecord) -> list[ManifestEntry]:
    """EvidenceMissing unless the snapshot lists what its manifest says and a few files, which are
    returned, have its content. Nothing is read while the listings differ.
    """
    repositories, register_child = context.world.repositories, context.register_child
    repository, snapshot_id = context.world.repository(record.server_id), record.snapshot_id
    manifest = kept_content(context, record.manifest)
    with repositories.files(repository, snapshot_id, register_child) as files:
        _require_none(snapshot_id, snapshot_differences(manifest_entries(manifest), files))
    read = files_to_read(manifest_entries(manifest), snapshot_id, _FILES_READ)
    digests = {
        entry.path: repositories.file_digest(
            repository, snapshot_id, entry.path, entry.size, register_child
        )
        for entry in read
    }
    _require_none(snapshot_id, content_differences(read, digests))
    return read


def _require_none(snapshot_id: str, problems: Iterable[str]) -> None:
    """No more problems are looked for than are told."""
    shown = list(islice(problems, _SHOWN))
    if shown:
        raise EvidenceMissing(
            f"the snapshot is not what the manifest says: {'; '.join(shown)}",
            snapshot_id=snapshot_id,
        )


def _from_run(context: StepContext, name: str, limit: int) -> bytes:
    """A file that the run has left beside its result."""
    path = f"{RUNS_DIRECTORY}/{context.result_of('take')['run_id']}/{name}"
    return context.world.shell.read_file(context.endpoint, path, limit=limit)


def _said_of(quarantined: Sequence[str]) -> list[str]:
    return [f"quarantined {name}" for name in quarantined[:_SHOWN]]


def stop_run(context: StepContext) -> None:
    """Undo: end a run that still works; snapshots that it has made stay unverified."""
    context.world.runs.stop(context.endpoint, context.run_id("take"))


def _snapshots_before(context: StepContext) -> frozenset[str]:
    """All that `open_repository` found."""
    before = context.result_of("open_repository").get("snapshots_before")
    if not isinstance(before, list):
        raise EvidenceMissing("it is not known which snapshots were there before the backup")
    return frozenset(str(snapshot_id) for snapshot_id in before)


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
        Step("take", taking(_whole_server), undo=stop_run),
        Step("find_snapshot", find_snapshot),
        Step("keep_manifest", keeping_manifest(_whole_server)),
        Step("verify", verify),
        Step("forget_runs", forget_runs("take")),
    ),
)
