"""What counts as ill, and what as worse than before."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from managed.domain.errors import EvidenceMissing
from managed.domain.health import (
    Filesystem,
    HealthReport,
    Listener,
    ProbeResult,
    health_problems,
    health_regressions,
    health_report,
    still_coming,
)

SITE = ProbeResult("http://127.0.0.1/", 200, "aa", "")
WELL = HealthReport(
    boot_id="b",
    kernel="6.1",
    uptime_seconds=10,
    system_state="running",
    starting_units=(),
    failed_units=(),
    listeners=(Listener("tcp", "192.0.2.1", 80, "nginx"), Listener("udp", "::", 40000, "named")),
    filesystems=(Filesystem("/", False, 50, 10),),
    dpkg_problems=(),
    probes=(SITE,),
)


def changed(**fields: Any) -> HealthReport:
    return dataclasses.replace(WELL, **fields)


def test_a_well_server_has_no_problems() -> None:
    assert health_problems(WELL) == ()
    assert health_regressions(WELL, WELL) == ()


@pytest.mark.parametrize(
    ("report", "problem"),
    [
        (changed(system_state="maintenance"), "the system is maintenance"),
        (changed(failed_units=("a.service",)), "unit a.service has failed"),
        (changed(filesystems=(Filesystem("/", True, 5, 1),)), "/ is mounted read-only"),
        (changed(filesystems=(Filesystem("/", False, 95, 1),)), "/ is full"),
        (changed(filesystems=(Filesystem("/", False, 5, 100),)), "/ is full"),
        (changed(dpkg_problems=("half",)), "dpkg: half"),
        (changed(probes=(dataclasses.replace(SITE, status=502),)), "http://127.0.0.1/ answers 502"),
        (changed(probes=(ProbeResult(SITE.url, 0, "", "refused"),)), f"{SITE.url} answers refused"),
    ],
)
def test_problems_are_new_regressions_but_old_ones_are_not(
    report: HealthReport, problem: str
) -> None:
    assert health_problems(report) == (problem,)
    assert health_regressions(WELL, report) == (problem,)
    assert health_regressions(report, report) == ()


def test_a_lost_listener_is_a_regression_whatever_its_random_port() -> None:
    moved = changed(
        listeners=(Listener("tcp", "::", 80, "nginx"), Listener("udp", "::", 51000, "named"))
    )

    assert health_regressions(WELL, moved) == ()
    assert health_regressions(WELL, changed(listeners=())) == (
        "nothing listens on tcp port 80 any more",
        "nothing listens on named (udp) any more",
    )


def test_a_lost_mount_and_other_content_are_regressions() -> None:
    after = changed(filesystems=(), probes=(dataclasses.replace(SITE, sha256="bb"),))

    assert health_regressions(WELL, after) == (
        "/ is not mounted any more",
        "http://127.0.0.1/ answers with other content",
    )


def test_a_site_that_was_not_asked_again_is_not_taken_for_well() -> None:
    assert health_regressions(WELL, changed(probes=())) == (
        "http://127.0.0.1/ was not asked again",
    )


@pytest.mark.parametrize(("state", "settled"), [("starting", False), ("degraded", True)])
def test_settled_means_that_the_boot_has_ended(state: str, settled: bool) -> None:
    assert changed(system_state=state).is_settled is settled


def test_a_boot_that_has_not_ended_is_waited_for_and_says_by_what_it_is_held_up() -> None:
    booting = changed(system_state="starting", starting_units=("mariadb.service",))
    expected = ("the system is starting", "unit mariadb.service is still starting")

    assert still_coming(booting, None) == expected
    assert still_coming(booting, WELL) == expected
    assert health_problems(booting) == expected
    assert still_coming(changed(starting_units=("mariadb.service",)), WELL) == ()


def test_what_was_up_before_may_come_by_itself() -> None:
    refused = ProbeResult(SITE.url, 0, "", "refused")
    late = changed(listeners=WELL.listeners[1:], probes=(refused,))

    assert still_coming(late, WELL) == (
        "nothing listens on tcp port 80 any more",
        f"{SITE.url} answers refused",
    )
    assert still_coming(late, None) == ()


def test_what_was_not_up_before_and_what_time_does_not_mend_is_not_waited_for() -> None:
    refused = changed(probes=(ProbeResult(SITE.url, 0, "", "refused"),))
    booting = changed(system_state="starting")
    ill = changed(failed_units=("a.service",), filesystems=(), dpkg_problems=("half",))

    assert still_coming(refused, refused) == ()
    assert still_coming(booting, booting) == ()
    assert still_coming(ill, WELL) == ()


@pytest.mark.parametrize("document", [{}, {"boot_id": None}, {"boot_id": []}])
def test_an_incomplete_report_is_no_evidence(document: dict[str, Any]) -> None:
    with pytest.raises(EvidenceMissing):
        health_report(document)
