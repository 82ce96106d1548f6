"""Looking at a server's health, before and after a change."""

from __future__ import annotations

import json
from collections.abc import Sequence

from managed.domain.errors import CommandFailed, EvidenceMissing, Json
from managed.domain.health import HealthReport, health_problems, health_regressions, health_report
from managed.server_scripts import script_source
from managed.workflows.steps import StepContext


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


def require_no_regression(
    before: HealthReport, after: HealthReport, expected: Sequence[str] = ()
) -> None:
    """CommandFailed when the server is worse than before; `expected` are changes that we made."""
    worse = [text for text in health_regressions(before, after) if text not in expected]
    if worse:
        raise CommandFailed(
            f"the server is worse than before: {'; '.join(worse)}",
            hint="Look at the server; the health reports before and after are in the job's steps.",
            regressions=list[Json](worse),
        )


def require_health(report: HealthReport) -> None:
    """CommandFailed when the server is not well."""
    problems = health_problems(report)
    if problems:
        raise CommandFailed(
            f"the server is not well: {'; '.join(problems)}", problems=list[Json](problems)
        )
