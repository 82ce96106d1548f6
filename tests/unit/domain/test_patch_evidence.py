"""What a patch left as proof, also when a hostile root wrote it."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pytest

from managed.domain.errors import Json
from managed.domain.jobs import Job, JobKind, JobStatus, StepResult, StepStatus
from managed.domain.patch_evidence import PackageChange, SeenHealth, patch_evidence
from tests.support.jobs import START
from tests.support.nights import HEALTH


def patch(**results: dict[str, Json]) -> Job:
    """A patch job with the results of these steps."""
    steps = tuple(
        StepResult(name, StepStatus.DONE, 1, START, START, result)
        for name, result in results.items()
    )
    end = START + timedelta(hours=1)
    return Job("j1", "s1", JobKind.PATCH, 1, JobStatus.SUCCEEDED, {}, START, end, steps=steps)


def test_packages_are_compared_and_health_is_read() -> None:
    job = patch(
        check_before={"health": {**HEALTH, "failed_units": ["a.service"]}},
        update={"packages_before": {"a": "1", "b": "1"}, "packages_after": {"b": "1", "c": "2"}},
        reboot={"rebooted": False, "reasons": ["a new kernel"]},
    )
    found = patch_evidence(job) or pytest.fail("there is none")
    assert found.packages == (PackageChange("a", "1", None), PackageChange("c", None, "2"))
    assert (found.rebooted, found.reboot_reasons) == (False, ("a new kernel",))
    assert found.before == SeenHealth("6.1.0-41-amd64", ("unit a.service has failed",))
    assert found.after is None


def test_before_the_update_is_done_there_is_no_evidence() -> None:
    assert patch_evidence(patch(check_before={"health": dict(HEALTH)})) is None
    assert patch_evidence(replace(patch(update={}), kind=JobKind.BACKUP)) is None


@pytest.mark.parametrize("odd", [None, 1, "text", [], {}, {"a": {"b": []}}, [[1]]])
def test_whatever_a_server_wrote_is_read_without_a_defect(odd: Json) -> None:
    update: dict[str, Json] = {"packages_before": odd, "packages_after": odd}
    job = patch(check_before={"health": odd}, update=update, reboot={"reasons": odd})
    found = patch_evidence(job) or pytest.fail("there is none")
    assert found.packages == ()
