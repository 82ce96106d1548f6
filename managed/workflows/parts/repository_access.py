"""What restic on a server, or in its rescue session, is given to open the server's repository."""

from __future__ import annotations

from managed.domain.secrets import Secret, SecretPurpose
from managed.workflows.steps import StepContext


def repository_secrets(context: StepContext, account: str) -> dict[str, Secret]:
    """Passed by stdin, for one run."""
    world, server_id = context.world, context.job.server_id
    return {
        "RESTIC_PASSWORD": world.repository(server_id).password,
        "RESTIC_REST_USERNAME": Secret(account),
        "RESTIC_REST_PASSWORD": world.vault.secret(server_id, SecretPurpose.GATEWAY_PASSWORD),
    }


def key_hint(context: StepContext) -> dict[str, str]:
    """Which key restic is to try: it would give up among others that a hostile root has planted."""
    return {"RESTIC_KEY_HINT": context.world.servers.repository_key(context.job.server_id)}
