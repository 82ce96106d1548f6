"""`managed backup-self` and `managed restore-self`: they work on database and bucket themselves."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any

import typer

from managed.cli.output import (
    AsJson,
    confirm,
    moment,
    print_json,
    print_table,
    progress,
    size,
)
from managed.settings import settings

if TYPE_CHECKING:
    from managed.storage.copies.control_plane import ListedCopy
    from managed.storage.copies.findings import Findings
    from managed.storage.copies.restoring import Restored
    from managed.wiring import Installation

List = Annotated[bool, typer.Option("--list", help="Only list the copies in the bucket.")]


def backup_self(only_list: List = False, as_json: AsJson = False) -> None:
    """Copy the control plane's database to the bucket, sealed, and prove the copy."""
    with _installation() as installation:
        if only_list:
            return _list(installation, as_json=as_json)
        manifest = installation.copies.take()
        removed = installation.copies.prune(installation.keep_rule)
        mark = installation.copies.mark
    if as_json:
        return print_json({**manifest.as_json(), "master_key": mark, "removed": list(removed)})
    say = progress(as_json=False)
    rows, tables = sum(manifest.rows.values()), len(manifest.rows)
    say(f"{manifest.name}: {rows} rows of {tables} tables, {size(manifest.sealed_size)}; read back")
    if removed:
        say(f"removed, as the rule keeps them no longer: {', '.join(removed)}")
    say(f"It opens with the master key {mark} alone. Keep that key elsewhere.")
    if not manifest.rows["sealed_secrets"]:
        say("Nothing in the database is sealed yet: nothing proves that this key is the right one.")
    return None


def restore_self(
    copy: Annotated[
        str, typer.Option("--from", metavar="NAME", help="The copy; the newest without it.")
    ] = "",
    replace: Annotated[
        bool,
        typer.Option("--replace", help="Also into a database with rows, which are set aside."),
    ] = False,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask before replacing.")] = False,
    only_list: List = False,
    as_json: AsJson = False,
) -> None:
    """Bring the control plane back from bucket and master key. The service has to be stopped."""
    from managed.lab.service import only_service

    with only_service(settings()), _installation() as installation:
        if only_list:
            return _list(installation, as_json=as_json)
        name = copy or installation.copies.newest()
        if replace:
            confirm(f"Replace the database by {name}?", yes=yes, as_json=as_json)
        restored = installation.copies.restore(name, replace=replace)
        installation.admit_servers()
        found = installation.copies.findings()
    if as_json:
        return print_json({**asdict(restored), **asdict(found)})
    return _tell(restored, found)


@contextmanager
def _installation() -> Iterator[Installation]:
    from managed.lab.bucket import bucket_at_hand
    from managed.wiring import open_installation

    with bucket_at_hand(settings()) as complete:
        installation = open_installation(complete)
        try:
            yield installation
        finally:
            installation.database.dispose()


def _list(installation: Installation, *, as_json: bool) -> None:
    found, mark = installation.copies.list(), installation.copies.mark
    if as_json:
        items = [{**_fields(one), "problem": one.problem} for one in found]
        return print_json({"items": items, "master_key": mark})
    now = installation.clock()
    print_table(
        ("copy", "age", "size", "rows", "schema", "managed", "status"),
        (
            (
                one.name,
                f"{(now - one.manifest.taken_at).total_seconds() / 3600:.1f} h",
                size(one.manifest.sealed_size),
                sum(one.manifest.rows.values()),
                one.manifest.schema,
                one.manifest.managed_version,
                "ok",
            )
            if one.manifest
            else (one.name, "", "", "", "", "", one.problem)
            for one in found
        ),
        "There is no copy of the control plane yet. Make one with: managed backup-self",
    )
    return progress(as_json=False)(f"The master key here has the mark {mark}.")


def _fields(one: ListedCopy) -> dict[str, Any]:
    return dict(one.manifest.as_json()) if one.manifest else {"name": one.name}


def _tell(restored: Restored, found: Findings) -> None:
    say, manifest = progress(as_json=False), restored.manifest
    rows = sum(manifest.rows.values())
    say(f"{manifest.name} of {moment(manifest.taken_at.isoformat())} is back: {rows} rows.")
    if restored.set_aside:
        say(f"What was in the database before is set aside: {restored.set_aside}")
    if restored.ended_jobs:
        print_table(
            ("job", "kind", "server", "ended because"),
            (
                (job.job_id, job.kind, job.server, _why(job.had_begun, job.step))
                for job in restored.ended_jobs
            ),
            "",
        )
    for server in restored.in_rescue:
        end = f"managed jobs submit {server} unrescue"
        say(f"{server}: was in a rescue session; it stays as it is until: {end}")
    for server, count in found.newer_snapshots.items():
        say(f"{server}: {count} backups in the bucket are not on record (newer than the copy).")
    for server in found.locked_out:
        say(f"{server}: its repository is newer than the copy; the password is lost with it.")
    for account in found.unknown_accounts:
        say(f"{account}: backups of a server that is not on record (made after the copy).")
    say("Everything is paused. Look at the servers, then: managed pause end")


def _why(had_begun: bool, step: str) -> str:
    return f"unknown since restore, in {step or 'its first step'}" if had_begun else "had not begun"


def add_to(app: typer.Typer) -> None:
    """Register the commands at the top level."""
    app.command("backup-self")(backup_self)
    app.command("restore-self")(restore_self)
