"""The one tree of errors.

An error says what is wrong, what to do about it (`hint`), and whether trying again can help
(`retryable`, `retry_after` in seconds). `details` holds plain JSON values for logs and API
answers; it never holds a secret. Drivers raise these instead of what their libraries raise, and
only `api/errors.py` knows which HTTP status belongs to which.
"""

from __future__ import annotations

from typing import ClassVar

Json = None | bool | int | float | str | list["Json"] | dict[str, "Json"]


class ManagedError(Exception):
    """Anything that `managed` reports; `code` is stable and part of the API."""

    code: ClassVar[str] = "error"
    title: ClassVar[str] = "Something went wrong"
    retryable: ClassVar[bool] = False

    def __init__(
        self, message: str, *, hint: str = "", retry_after: float | None = None, **details: Json
    ) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint
        self.retry_after = retry_after
        self.details = details

    def as_json(self) -> dict[str, Json]:
        """The form in which errors are stored on a job and shown to people."""
        document: dict[str, Json] = {"code": self.code, "title": self.title, "detail": self.message}
        if self.hint:
            document["hint"] = self.hint
        if self.details:
            document["data"] = dict(self.details)
        return document


class InvalidInput(ManagedError):
    """What was asked for makes no sense as it stands."""

    code = "invalid-input"
    title = "The request cannot be carried out as written"


class NotFound(ManagedError):
    code = "not-found"
    title = "There is no such thing"


class Conflict(ManagedError):
    """The request is sensible, but not in the present state."""

    code = "conflict"
    title = "The present state does not allow this"


class AlreadyExists(Conflict):
    code = "already-exists"
    title = "This already exists"


class ServerBusy(Conflict):
    """Another changing job holds the server."""

    code = "server-busy"
    title = "Another job is working on this server"


class Paused(Conflict):
    """Somebody has stopped everything that is not urgent from being started."""

    code = "paused"
    title = "Nothing new is started at the moment"


class KeyReused(Conflict):
    """An Idempotency-Key came back with another request."""

    code = "idempotency-key-reused"
    title = "This Idempotency-Key was used for a different request"


class NoBackup(Conflict):
    code = "no-backup"
    title = "This server has no usable backup"


class NotSupported(Conflict):
    """The driver or the server cannot do this; its capabilities say so."""

    code = "not-supported"
    title = "This is not possible for this server"


class Unauthorized(ManagedError):
    code = "unauthorized"
    title = "A valid bearer token is needed"


class Forbidden(ManagedError):
    """The caller is known and may not."""

    code = "forbidden"
    title = "You may not do this"


class SignatureRefused(Unauthorized):
    code = "signature-refused"
    title = "The signature is missing or wrong"


class Unavailable(ManagedError):
    """Something that we depend on does not answer; later it may."""

    code = "unavailable"
    title = "Something that this needs does not answer"
    retryable = True


class ServerUnreachable(Unavailable):
    code = "server-unreachable"
    title = "The server does not answer over SSH"


class HypervisorUnavailable(Unavailable):
    code = "hypervisor-unavailable"
    title = "The node does not answer"


class ObjectStoreUnavailable(Unavailable):
    code = "object-store-unavailable"
    title = "The object store does not answer"


class GatewayUnavailable(Unavailable):
    code = "gateway-unavailable"
    title = "The backup gateway does not answer"


class NotDelivered(Unavailable):
    """A mail server or a webhook did not take a message."""

    code = "not-delivered"
    title = "A message was not taken"


class HelpdeskUnavailable(Unavailable):
    code = "helpdesk-unavailable"
    title = "The helpdesk does not answer"


class HelpdeskRefused(ManagedError):
    """The helpdesk has read what we sent and will not have it: later it will not either."""

    code = "helpdesk-refused"
    title = "The helpdesk refused an answer"


class BrokerUnavailable(Unavailable):
    code = "broker-unavailable"
    title = "The broker does not answer"


class RepositoryLocked(Unavailable):
    code = "repository-locked"
    title = "The backup repository is locked by another process"


class HostKeyChanged(ManagedError):
    """The server showed another host key than the pinned one: never go on, never retry."""

    code = "host-key-changed"
    title = "The server's SSH host key is not the pinned one"


class LoginRefused(ManagedError):
    code = "login-refused"
    title = "The server refused the SSH login"


class CommandFailed(ManagedError):
    """A command ended with a status that means failure, or with one that nobody knows."""

    code = "command-failed"
    title = "A command failed"


class PlaybookFailed(CommandFailed):
    code = "playbook-failed"
    title = "A playbook failed"


class RepositoryDamaged(ManagedError):
    code = "repository-damaged"
    title = "The backup repository is damaged or cannot be opened"


class EvidenceMissing(ManagedError):
    """Work ended without the proof that it is good: that counts as a failure."""

    code = "evidence-missing"
    title = "There is no evidence that this worked"


class HypervisorError(ManagedError):
    code = "hypervisor-error"
    title = "The hypervisor refused or failed"


class UnknownOutcome(ManagedError):
    """Nobody knows whether the work happened (its record is gone); it may be tried anew."""

    code = "unknown-outcome"
    title = "The outcome of earlier work is unknown"
    retryable = True


class RunLost(UnknownOutcome):
    """A detached run is over and its record does not say how it ended (a reboot ended it, say).

    The one error after which another try starts a new run.
    """

    code = "run-lost"
    title = "A run on the server was cut off and left no result"


class StillRunning(ManagedError):
    """A detached run outlasted its time and is still at work, so nothing may start beside it."""

    code = "still-running"
    title = "Work on the server has outlasted its time limit"


class WorkerDied(ManagedError):
    """Worker after worker was lost in the same step: the step ends them (it needs too much memory,
    say).
    """

    code = "worker-died"
    title = "This step ends the workers that take it up"


class LeaseLost(ManagedError):
    """Another worker owns this job now; whoever sees this stops at once and writes nothing."""

    code = "lease-lost"
    title = "Another worker has taken over this job"


class JobCancelled(ManagedError):
    code = "cancelled"
    title = "The job was cancelled"


class DeadlineExceeded(ManagedError):
    code = "deadline-exceeded"
    title = "The job did not end before its deadline"


class UnknownWorkflow(ManagedError):
    """A parked job needs a workflow version that this deployment does not carry."""

    code = "unknown-workflow-version"
    title = "This deployment cannot go on with a job of that workflow version"


class SecretUnreadable(ManagedError):
    code = "secret-unreadable"
    title = "A stored secret cannot be opened with this master key"


class CopyDamaged(ManagedError):
    """A copy of the control plane is not what was put into the bucket, or cannot be read."""

    code = "copy-damaged"
    title = "This copy of the control plane cannot be used"


class UnknownSinceRestore(ManagedError):
    """The job was under way when the copy was taken that the control plane was restored from."""

    code = "unknown-since-restore"
    title = "The control plane was restored; what became of this job is not on record"


class MissingRequirement(ManagedError):
    """A tool, permission or resource of this machine is missing; the hint says how to get it."""

    code = "missing-requirement"
    title = "This machine lacks something that is needed"


class InternalError(ManagedError):
    """A defect of ours. Its message names the place, never the values."""

    code = "internal-error"
    title = "A defect in managed itself"
