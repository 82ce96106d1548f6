"""Booting the rescue image over a server's own disk, and going back to its normal boot."""

from __future__ import annotations

import uuid
from datetime import timedelta

from managed.domain.errors import CommandFailed, ServerUnreachable
from managed.domain.questions import SshAnswers
from managed.domain.rescue import RescueSession
from managed.domain.secrets import Secret, SecretPurpose
from managed.domain.servers import PowerState, ServerStatus
from managed.ports import RescueBoot
from managed.workflows.steps import Done, Outcome, StepContext, Wait

_RESCUE_MEMORY_MIB = 1024
_RESCUE_IS_UP = "managed-rescue: sshd listens"
_RESCUE_BOOT_SECONDS = 60
_NORMAL_BOOT_SECONDS = 120


def boot_rescue(
    context: StepContext, *, lasts: timedelta | None = None, image: str | None = None
) -> Outcome:
    """Boot a session of this job (or go on in the one that is open) until SSH lets us in.

    The result tells session, pinned host key and boot id. `lasts` is for sessions that outlive
    their job, also for one that was open before; `image` is an operating system image to have at
    hand.
    """
    if context.timed_out:
        raise ServerUnreachable("the rescue session does not answer over SSH")
    session = _session(context, lasts)
    if context.answer is not None:
        require_login(context)
        return Done(
            {
                "session_id": session.session_id,
                "host_key": session.host_key,
                "boot_id": context.answer["boot_id"],
                "opened_here": session.job_id == context.job.job_id,
            }
        )
    _boot(context, session, image)
    context.world.servers.set_status(context.job.server_id, ServerStatus.RESCUE, context.now)
    question = SshAnswers(console=_RESCUE_IS_UP)
    return Wait(question, context.scaled(_RESCUE_BOOT_SECONDS))


def require_rescue(context: StepContext, *, image: str | None = None) -> None:
    """Is the rescue session up? One that has ended by itself (a crash of VM or node) is booted
    once more, and ServerUnreachable has the step tried again when it is there.
    """
    server = context.server
    if context.world.hypervisor(server).power_state(server.server_id) is not PowerState.RESCUE:
        _boot(context, _session(context, None), image)
        raise ServerUnreachable(
            "the rescue session had ended; it is booting again",
            retry_after=context.scaled(_RESCUE_BOOT_SECONDS / 4).total_seconds(),
        )


def _boot(context: StepContext, session: RescueSession, image: str | None) -> None:
    server, vault = context.server, context.world.vault
    login_key = vault.secret(session.session_id, SecretPurpose.LOGIN_KEY)
    rescue = RescueBoot(
        session_id=session.session_id,
        memory_mib=_RESCUE_MEMORY_MIB,
        configuration={
            "ssh_host_ed25519_key": vault.secret(session.session_id, SecretPurpose.RESCUE_HOST_KEY),
            "authorized_keys": Secret(context.world.public_key(login_key) + "\n"),
            "network.env": Secret(f"MODE=dhcp\nHOSTNAME={server.name}-rescue\n"),
        },
        image=image,
    )
    context.world.hypervisor(server).boot_rescue_image(server.server_id, rescue)


def end_rescue_of_this_job(context: StepContext, status: ServerStatus | None = None) -> None:
    """The undo of `boot_rescue`: end the session unless it was somebody else's before. The server
    gets this status on record, else the one that it had before the session.
    """
    session = context.world.rescue_sessions.current(context.job.server_id)
    if session is not None and session.job_id == context.job.job_id:
        end_rescue(context, status or session.status_before)


def end_rescue(context: StepContext, status: ServerStatus) -> None:
    """End the open session, if any; the server is left stopped, with this status on record. No
    other session is ended, whoever has opened it meanwhile.
    """
    server = context.server
    session = context.world.rescue_sessions.current(server.server_id)
    if session is not None:
        context.world.hypervisor(server).end_rescue(server.server_id, session.session_id)
    context.world.servers.set_status(server.server_id, status, context.now)
    end_session_record(context)


def end_session_record(context: StepContext) -> None:
    """Forget the open session, if any, that has ended or is gone with its server."""
    session = context.world.rescue_sessions.current(context.job.server_id)
    if session is not None:
        context.world.rescue_sessions.end(session.session_id, context.now)
        context.world.vault.forget(session.session_id)


def boot_normally(context: StepContext) -> Outcome:
    """Start the server from its own disk and wait until SSH answers with its pinned key."""
    if context.timed_out:
        server = context.server
        tail = context.world.hypervisor(server).console_tail(server.server_id)
        raise CommandFailed(
            "the server was started, but does not answer over SSH",
            hint="Look at the end of its console; a rescue session shows its disk.",
            console=tail[-1500:],
        )
    if context.answer is not None:
        require_login(context)
        return Done({"boot_id": context.answer["boot_id"]})
    server = context.server
    if context.world.hypervisor(server).power_state(server.server_id) is not PowerState.RUNNING:
        context.world.hypervisor(server).start(server.server_id)
    return Wait(SshAnswers(), context.scaled(_NORMAL_BOOT_SECONDS))


def start_again(context: StepContext) -> None:
    """Start the server if it is stopped: for undos that end a rescue."""
    server = context.server
    if context.world.hypervisor(server).power_state(server.server_id) is PowerState.STOPPED:
        context.world.hypervisor(server).start(server.server_id)


def _session(context: StepContext, lasts: timedelta | None) -> RescueSession:
    """The server's open session, or a new one whose keys are stored before it is on record."""
    server = context.server
    expires_at = context.now + lasts if lasts else None
    present = context.world.rescue_sessions.current(server.server_id)
    if present is not None:
        if expires_at is not None:
            context.world.rescue_sessions.keep_until(present.session_id, expires_at)
        return present
    session_id = str(uuid.uuid4())
    host_key, login_key = context.world.new_key_pair(), context.world.new_key_pair()
    context.world.vault.keep(session_id, SecretPurpose.RESCUE_HOST_KEY, host_key.private_key)
    context.world.vault.keep(session_id, SecretPurpose.LOGIN_KEY, login_key.private_key)
    opened = context.world.rescue_sessions.open(
        RescueSession(
            session_id=session_id,
            server_id=server.server_id,
            job_id=context.job.job_id,
            host_key=host_key.public_key,
            status_before=server.status,
            started_at=context.now,
            expires_at=expires_at,
        )
    )
    if opened.session_id != session_id:
        context.world.vault.forget(session_id)
    return opened


def require_login(context: StepContext) -> None:
    """An answer that is an error (another host key, a refused login) fails the step."""
    error = context.answer.get("error") if context.answer else None
    if isinstance(error, dict):
        raise CommandFailed(
            f"SSH answers, but not as expected: {error.get('detail')}",
            hint=str(error.get("hint") or ""),
            cause=error.get("code"),
        )
