"""Create a server: an empty disk, an operating system laid down in a rescue session, first boot."""

from __future__ import annotations

import uuid
from datetime import timedelta

from managed.domain.disk_layout_documents import layout_as_json
from managed.domain.disk_layouts import default_layout
from managed.domain.errors import EvidenceMissing, InvalidInput, ManagedError, NotFound
from managed.domain.health import health_report
from managed.domain.jobs import JobKind, RetryPolicy, retry_refusal
from managed.domain.runs import RunRequest
from managed.domain.secrets import SecretPurpose
from managed.domain.servers import ServerSpec, ServerStatus
from managed.workflows.parts.detached import ServerScript, detached, start_over_ssh
from managed.workflows.parts.health import health_when_up, require_health
from managed.workflows.parts.prepare import prepare
from managed.workflows.parts.rescue_boot import (
    boot_normally,
    boot_rescue,
    end_rescue,
    end_rescue_of_this_job,
    end_session_record,
    require_rescue,
)
from managed.workflows.steps import Done, Outcome, Step, StepContext, Wait, Workflow

_GIB = 1024**3
_INSTALL_SECONDS = 180
_DEFINE_RETRY = RetryPolicy()


def define(context: StepContext) -> Outcome:
    """Make disk and definition on the node, and the key that we shall log in with."""
    server = context.server
    key = context.world.new_key_pair().private_key
    context.world.vault.keep_once(server.server_id, SecretPurpose.LOGIN_KEY, key)
    context.world.hypervisor(server).create_server(_spec(context))
    return Done({"disk_serial": server.disk_serial})


def remove(context: StepContext) -> None:
    """Undo: nothing of a server that could not be created stays, and its name is free again.

    A node that does not answer keeps a server that it has made on record, to be deleted later;
    but not one that it never made.
    """
    try:
        server = context.server
    except NotFound:
        return
    try:
        context.world.hypervisor(server).destroy_server(server.server_id)
    except ManagedError as error:
        is_last_try = retry_refusal(_DEFINE_RETRY, error, context.job, context.now) is not None
        if context.job.done_step("define") or not is_last_try:
            raise
        context.emit("node_not_cleaned", error.as_json())
    end_session_record(context)
    context.world.vault.forget(server.server_id)
    context.world.servers.set_status(server.server_id, ServerStatus.DELETED, context.now)


def boot_installer(context: StepContext) -> Outcome:
    return boot_rescue(context, image=context.server.operating_system)


def install(context: StepContext) -> Outcome:
    """Partition, lay down the image's files, make it bootable; learn its SSH host key."""
    found = detached(context, "install", _install_script(context), _start_installer)
    if isinstance(found, Wait):
        return found
    host_key = found.get("host_key")
    if not isinstance(host_key, str):
        raise EvidenceMissing("the installer told no host key")
    context.world.servers.pin_host_key(context.job.server_id, host_key, replacing="")
    return Done({"host_key": host_key, "seconds": found.get("seconds")})


def leave_rescue(context: StepContext) -> Outcome:
    end_rescue(context, ServerStatus.NEW)
    return Done()


def check(context: StepContext) -> Outcome:
    """The new server is well, or it is none."""
    health = health_when_up(context)
    if isinstance(health, Wait):
        return health
    require_health(health_report(health))
    context.world.servers.set_status(context.job.server_id, ServerStatus.ACTIVE, context.now)
    return Done({"health": health})


def _start_installer(context: StepContext, request: RunRequest) -> None:
    require_rescue(context, image=context.server.operating_system)
    start_over_ssh(context, request)


def _install_script(context: StepContext) -> ServerScript:
    world, server, spec = context.world, context.server, _spec(context)
    ours = world.public_key(world.vault.secret(server.server_id, SecretPurpose.LOGIN_KEY))
    theirs = context.job.parameters.get("authorized_keys") or []
    if not isinstance(theirs, list):
        raise InvalidInput("authorized_keys is no list", field="authorized_keys")
    layout = default_layout(spec.disk_gib * _GIB, lambda: str(uuid.uuid4()))
    return ServerScript(
        name="install_system",
        given={
            "disk_serial": spec.disk_serial,
            "image_serial": "managed-image",
            "layout": layout_as_json(layout),
            "hostname": server.name,
            "authorized_keys": [f"{ours} managed", *theirs],
            "apt_sources": world.sources.apt_sources(server.operating_system),
            "apt_proxy": world.sources.apt_proxy if spec.bridge is None else "",
            "network": {"mode": "dhcp", "dns": []},
            "timezone": "",
            "kernel_options": list(world.hypervisor(server).capabilities().kernel_options),
        },
        limit=context.scaled(_INSTALL_SECONDS),
    )


def _spec(context: StepContext) -> ServerSpec:
    spec = context.server.spec
    if spec is None:
        raise InvalidInput("a server without a specification cannot be created")
    return spec


WORKFLOW = Workflow(
    kind=JobKind.CREATE,
    version=1,
    time_limit=timedelta(hours=2),
    steps=(
        Step("define", define, undo=remove, retry=_DEFINE_RETRY),
        Step("boot_rescue", boot_installer, undo=end_rescue_of_this_job),
        Step("install", install),
        Step("leave_rescue", leave_rescue),
        Step("boot", boot_normally),
        Step("prepare", prepare),
        Step("check", check),
    ),
)
