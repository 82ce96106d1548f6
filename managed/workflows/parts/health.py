"""Looking at a server's health, before and after a change."""

from __future__ import annotations

import json
from datetime import timedelta

from managed.domain.errors import CommandFailed, EvidenceMissing, Json
from managed.domain.health import (
    HealthReport,
    health_problems,
    health_regressions,
    health_report,
    still_coming,
)
from managed.domain.questions import TimePassed
from managed.server_scripts import script_source
from managed.workflows.steps import StepContext, Wait

_UP_SECONDS = 300
_BETWEEN_LOOKS = timedelta(seconds=5)


def health_when_up(
    context: StepContext, before: HealthReport | None = None
) -> Wait | dict[str, Json]:
    """What check_health.py sees once the boot has ended and what was up `before` is up again; the
    wait for that while it is not. When the step's time for it is over: what there is then, for the
    caller to judge. sshd answers long before cloud-init, containers or a database's recovery end.
    """
    document = health_document(context)
    coming = still_coming(health_report(document), before)
    waited = context.now - (context.job.step_started_at or context.now)
    if not coming or waited >= context.scaled(_UP_SECONDS):
        return document
    context.emit("health_awaited", {"coming": list[Json](coming)})
    return Wait(TimePassed(), _BETWEEN_LOOKS)


def health_document(context: StepContext) -> dict[str, Json]:
    """What check_health.py sees on the server now, with the job's probes (`urls`)."""
    urls = context.job.parameters.get("urls") or []
    command = ("python3", "-", json.dumps({"probes": urls}))
    source = script_source("check_health").encode()
    timeout = context.scaled(60).total_seconds()
    result = context.world.shell.run(context.endpoint, command, stdin=source, timeout=timeout)
    if result.exit_status != 0:
        raise CommandFailed(
            f"the health check ended with status {result.exit_status}: {result.stderr[-500:]}"
        )
    try:
        document = json.loads(result.stdout)
    except ValueError as error:
        raise EvidenceMissing("the health check printed no JSON document") from error
    health_report(document)
    return dict(document)


def recorded_health(context: StepContext, step: str) -> HealthReport:
    """The report that an earlier step left as `health`."""
    document = context.result_of(step).get("health")
    if not isinstance(document, dict):
        raise EvidenceMissing(f"the step {step} recorded no health")
    return health_report(document)


def require_no_regression(before: HealthReport, after: HealthReport) -> None:
    """CommandFailed when the server is worse than before."""
    worse = health_regressions(before, after)
    if worse:
        raise CommandFailed(
            f"the server is worse than before: {'; '.join(worse)}",
            hint="Look at the server: what is named here was well before.",
            regressions=list[Json](worse),
        )


def require_health(report: HealthReport) -> None:
    """CommandFailed when the server is not well."""
    problems = health_problems(report)
    if problems:
        raise CommandFailed(
            f"the server is not well: {'; '.join(problems)}", problems=list[Json](problems)
        )
