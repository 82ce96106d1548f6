"""Having on the server what our work there needs: restic, and folders of our own."""

from __future__ import annotations

import hashlib
from functools import lru_cache
from pathlib import Path

from managed.domain.errors import MissingRequirement
from managed.workflows.steps import Done, Outcome, StepContext

RESTIC_ON_SERVERS = "/usr/local/lib/managed/restic"


def prepare(context: StepContext) -> Outcome:
    """Run playbooks/prepare.yml unless the server has this very restic already."""
    restic = context.world.restic_path
    wanted = _sha256(restic)
    found = context.world.shell.run(context.endpoint, ("sha256sum", RESTIC_ON_SERVERS))
    if found.exit_status == 0 and found.stdout.split()[0] == wanted:
        return Done({"restic": wanted, "changed": False})
    report = context.world.playbooks.run(
        "prepare",
        context.endpoint,
        variables={"prepare_restic": restic, "prepare_take_over_upgrades": True},
        secrets={},
        emit=context.emit,
        register_child=context.register_child,
        timeout=context.scaled(180).total_seconds(),
    )
    return Done({"restic": wanted, "changed": True, **report.facts})


@lru_cache(maxsize=4)
def _sha256(path: str) -> str:
    try:
        return hashlib.sha256(Path(path).read_bytes()).hexdigest()
    except OSError as error:
        raise MissingRequirement(
            f"restic is not at {path}", hint="Build it with: managed images build restic"
        ) from error
