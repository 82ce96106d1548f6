"""Bring files and folders back to a server that runs: beside what is there, or in place.

In place comes after a safety snapshot of what is there now, proven like any backup. A server's own
backup is read by restic on it, through the gateway. Another server's is read on the provider's side
and sent: the password of that repository stays here. Both arrive in a folder of the job's own,
where every file is compared with the manifest.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from datetime import timedelta

from managed.domain.errors import CommandFailed, Conflict, EvidenceMissing, Json
from managed.domain.file_restores import (
    RestoreTarget,
    in_place_refusal,
    missing_paths,
    outermost,
    source_refusal,
)
from managed.domain.jobs import JobKind
from managed.domain.manifest_parts import directories_above
from managed.domain.runs import RunRequest
from managed.domain.snapshots import account_of
from managed.workflows import backup
from managed.workflows.parts.detached import ServerScript, detached, start_over_ssh
from managed.workflows.parts.gateway_socket import repository_url
from managed.workflows.parts.kept_evidence import kept_content, manifest_entries
from managed.workflows.parts.prepare import RESTIC_ON_SERVERS, prepare
from managed.workflows.parts.repository_access import key_hint, repository_secrets
from managed.workflows.parts.run_records import forget_runs
from managed.workflows.parts.sent_files import send
from managed.workflows.parts.wanted_files import (
    chosen_snapshot,
    manifest_file,
    recorded_snapshot,
    script_input,
    source_id_of,
    target_of,
    wanted_part,
    wanted_paths,
    write_manifest,
)
from managed.workflows.steps import Done, Outcome, Step, StepContext, Wait, Workflow

_RESTORE_SECONDS = 4 * 3600
_SHORT_SECONDS = 120
_SOME_ARE_MISSING = 1


def choose(context: StepContext) -> Outcome:
    """Which verified snapshot, does it hold the paths, and may they go there? Nothing is touched
    yet.
    """
    source_id, target = source_id_of(context), target_of(context)
    source = context.world.servers.get(source_id)
    refusal = source_refusal(source, context.server)
    if refusal is not None:
        raise refusal
    record = chosen_snapshot(context, source_id)
    survey = wanted_part(context, record).survey
    if survey.missing:
        entries = manifest_entries(kept_content(context, record.manifest))
        raise missing_paths(survey.missing, entries)
    if target is RestoreTarget.IN_PLACE:
        refusal = in_place_refusal(wanted_paths(context), survey.data_directories)
    if refusal is not None:
        raise refusal
    quarantined: Sequence[str] = ()
    if source_id == context.job.server_id:
        # Nobody else may work in its repository meanwhile; a backup of another server may.
        repository = context.world.repository(source_id)
        quarantined = context.world.repositories.quarantine(repository)
    return Done(
        {
            "snapshot_id": record.snapshot_id,
            "time": record.time.isoformat(),
            "source": source_id,
            "paths": list(wanted_paths(context)),
            "entries": survey.entries,
            "bytes": survey.size,
            "place": target.folder(context.job.job_id),
            "quarantined": list(quarantined),
        }
    )


def look(context: StepContext) -> Outcome:
    """What is in place now of what will be replaced: without any of it nothing has to be saved."""
    if target_of(context) is RestoreTarget.BESIDE:
        return Done({"present": []})
    paths = wanted_paths(context)
    above = sorted({each for path in paths for each in directories_above(path)})
    strange = _found(context, above, "!", "-type", "d")
    if strange:
        raise Conflict(
            f"{strange[0]} was a directory when it was backed up, and is none now",
            hint="Restore beside, and copy what you need.",
            path=strange[0],
        )
    present = set(_found(context, paths))
    return Done({"present": [path for path in wanted_paths(context) if path in present]})


def restore(context: StepContext) -> Outcome:
    """The files arrive, are compared with the manifest, and in place go on to where they belong."""
    chosen = context.result_of("choose")
    found = detached(context, "restore", _script(context), _start_with_manifest)
    if isinstance(found, Wait):
        return found
    if found.get("checked") != chosen["entries"]:
        raise EvidenceMissing(
            f"{found.get('checked')} of {chosen['entries']} files were compared with the manifest"
        )
    return Done(
        {**found, "snapshot_id": chosen["snapshot_id"], "safety_snapshot": _safety(context)}
    )


def clear(context: StepContext) -> None:
    """Undo: remove the folder of the job."""
    place = target_of(context).folder(context.job.job_id)
    command = ("rm", "-rf", "--", place, manifest_file(context))
    removed = context.world.shell.run(context.endpoint, command, timeout=_SHORT_SECONDS)
    if removed.exit_status != 0:
        raise CommandFailed(f"{place} could not be removed: {removed.stderr.strip()[-300:]}")


def take_away(context: StepContext) -> Done | None:
    """Undo: end the run too. What has been replaced by then stays so, and is in the safety snapshot
    as it was.
    """
    context.world.runs.stop(context.endpoint, context.run_id("restore"))
    clear(context)
    begun = context.job.done_step("restore") or context.job.has_failed("restore")
    if not begun or target_of(context) is RestoreTarget.BESIDE:
        return None
    safety = _safety(context)
    how = f"restore them in place from {safety}" if safety else "there was nothing before"
    return Done(warnings=[f"some of the files may have been replaced; to go back: {how}"])


def _found(context: StepContext, paths: Sequence[str], *tests: str) -> list[str]:
    """Those of the paths that are there, and that find's tests are true of."""
    command = ("find", *paths, "-maxdepth", "0", *tests)
    found = context.world.shell.run(context.endpoint, command)
    if found.exit_status not in (0, _SOME_ARE_MISSING):
        raise CommandFailed(f"looking for the files failed: {found.stderr.strip()[-300:]}")
    return found.stdout.splitlines()


def _script(context: StepContext) -> ServerScript:
    given = script_input(context)
    limit = context.scaled(_RESTORE_SECONDS)
    if source_id_of(context) != context.job.server_id:
        return ServerScript("restore_files", {**given, "brought": True}, limit)
    account = account_of(context.job.server_id)
    access: dict[str, Json] = {
        "repository": repository_url(account),
        "restic": RESTIC_ON_SERVERS,
        "snapshot": context.result_of("choose")["snapshot_id"],
    }
    return ServerScript(
        "restore_files",
        {**given, **access},
        limit,
        environment=key_hint(context),
        secrets=repository_secrets(context, account),
        needs_gateway=True,
    )


def _start_with_manifest(context: StepContext, request: RunRequest) -> None:
    write_manifest(context, wanted_part(context, recorded_snapshot(context)).manifest)
    start_over_ssh(context, request)


def _present(context: StepContext) -> Sequence[str]:
    """The paths of which there is something now, to be saved before."""
    present = context.result_of("look").get("present")
    return outermost(str(path) for path in present) if isinstance(present, list) else ()


def _safety(context: StepContext) -> str | None:
    """The safety snapshot, once it is proven."""
    verified = context.job.done_step("verify")
    found = verified.result.get("snapshot_id") if verified else None
    return str(found) if found else None


def _needs_restic(context: StepContext) -> bool:
    return bool(_present(context)) or source_id_of(context) == context.job.server_id


def _only_when(needed: Callable[[StepContext], object], step: Step) -> Step:
    """The step, left out where it is not needed. Its undo copes with what was never begun."""

    def run(context: StepContext) -> Outcome:
        return step.run(context) if needed(context) else Done(_NOT_NEEDED)

    return replace(step, run=run)


_NOT_NEEDED: Mapping[str, Json] = {"needed": False}

WORKFLOW = Workflow(
    kind=JobKind.RESTORE_FILES,
    version=1,
    time_limit=timedelta(hours=24),
    steps=(
        Step("choose", choose),
        Step("look", look),
        _only_when(_present, Step("open_repository", backup.open_repository)),
        _only_when(_needs_restic, Step("prepare", prepare)),
        _only_when(_present, Step("take", backup.taking(_present), undo=backup.stop_run)),
        _only_when(_present, Step("find_snapshot", backup.find_snapshot)),
        _only_when(_present, Step("keep_manifest", backup.keeping_manifest(_present))),
        _only_when(_present, Step("verify", backup.verify)),
        Step("send", send, undo=clear),
        Step("restore", restore, undo=take_away),
        Step("forget_runs", forget_runs("take", "restore")),
    ),
)
