"""What a patch job has left as proof, for people to read. Servers wrote most of it: nothing in it
has to be there, or to be what it should be.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from managed.domain.errors import EvidenceMissing, Json
from managed.domain.health import health_problems, health_report
from managed.domain.jobs import Job, JobKind


@dataclass(frozen=True)
class PackageChange:
    """Versions; None where the package was not, or is no more."""

    name: str
    before: str | None
    after: str | None


@dataclass(frozen=True)
class SeenHealth:
    """`problems` are sentences, empty when the server was well."""

    kernel: str
    problems: tuple[str, ...]


@dataclass(frozen=True)
class PatchEvidence:
    """`before` and `after` are None where the server was not looked at. `rebooted` is None when
    the job did not come that far.
    """

    packages: tuple[PackageChange, ...]
    rebooted: bool | None
    reboot_reasons: tuple[str, ...]
    before: SeenHealth | None
    after: SeenHealth | None


def patch_evidence(job: Job) -> PatchEvidence | None:
    """The evidence of a patch job with its steps; None where it has changed no package yet."""
    update = job.done_step("update")
    if job.kind is not JobKind.PATCH or update is None:
        return None
    reboot = job.done_step("reboot")
    reasons = reboot.result.get("reasons") if reboot else None
    return PatchEvidence(
        packages=_changes(
            _versions(update.result.get("packages_before")),
            _versions(update.result.get("packages_after")),
        ),
        rebooted=bool(reboot.result.get("rebooted")) if reboot else None,
        reboot_reasons=tuple(map(str, reasons)) if isinstance(reasons, list) else (),
        before=_health(job, "check_before"),
        after=_health(job, "check_after"),
    )


def _changes(before: Mapping[str, str], after: Mapping[str, str]) -> tuple[PackageChange, ...]:
    return tuple(
        PackageChange(name, before.get(name), after.get(name))
        for name in sorted({*before, *after})
        if before.get(name) != after.get(name)
    )


def _versions(document: Json) -> dict[str, str]:
    if not isinstance(document, dict):
        return {}
    return {name: str(version) for name, version in document.items()}


def _health(job: Job, step: str) -> SeenHealth | None:
    done = job.done_step(step)
    document = done.result.get("health") if done else None
    if not isinstance(document, dict):
        return None
    try:
        report = health_report(document)
    except EvidenceMissing as error:
        return SeenHealth("unknown", (error.message,))
    return SeenHealth(report.kernel, health_problems(report))
