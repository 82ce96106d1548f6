"""A server is judged when it had time to come up, and after a restore by how it was before."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from managed.domain.jobs import JobKind, JobStatus
from managed.domain.servers import ServerStatus
from tests.support.workflows import SERVER_ID, WorkflowBench

SITE = {"protocol": "tcp", "address": "192.0.2.1", "port": 80, "process": "nginx"}
PAGE = {"url": "http://127.0.0.1/", "status": 200, "sha256": "aa", "error": ""}
REFUSED = {"url": "http://127.0.0.1/", "status": 0, "sha256": "", "error": "refused"}
FULL = {"mount": "/", "read_only": False, "used_percent": 96, "inodes_used_percent": 1}
OLD_TROUBLE: dict[str, Any] = {
    "system_state": "degraded",
    "failed_units": ["old.service"],
    "filesystems": [FULL],
    "dpkg_problems": ["half configured"],
}

Seen = Callable[[dict[str, Any]], dict[str, Any]]


class Boots:
    """What health checks see: a server that has been up, and the next boots of it, each of which
    shows `reports` one after the other; its last one stays.
    """

    def __init__(self, up: dict[str, Any], *reports: dict[str, Any]) -> None:
        self.up, self.reports = up, reports
        self.first_boot = ""
        self.looks: dict[str, int] = {}

    def __call__(self, report: dict[str, Any]) -> dict[str, Any]:
        boot_id = str(report["boot_id"])
        self.first_boot = self.first_boot or boot_id
        if boot_id == self.first_boot:
            return {**report, **self.up}
        look = self.looks.get(boot_id, 0)
        self.looks[boot_id] = look + 1
        return {**report, **self.reports[min(look, len(self.reports) - 1)]}


def always(**seen: Any) -> Seen:
    return lambda report: {**report, **seen}


STARTING = {"system_state": "starting", "starting_units": ["cloud-init.service"]}


# ---------------------------------------------------------------- time to come up


def test_a_patch_waits_for_the_boot_to_end_and_for_what_listened_before(
    bench: WorkflowBench,
) -> None:
    bench.exists()
    up = {"listeners": [SITE], "probes": [PAGE]}
    bench.health = Boots(
        up,
        {**STARTING, "listeners": [], "probes": [REFUSED]},
        {"listeners": [], "probes": [REFUSED]},
        {"listeners": [SITE], "probes": [REFUSED]},
        up,
    )

    job = bench.finish(JobKind.PATCH)

    assert job.status is JobStatus.SUCCEEDED, job.error


def test_what_does_not_come_back_is_named_when_the_time_is_over(bench: WorkflowBench) -> None:
    bench.exists()
    bench.health = Boots({"listeners": [SITE]}, STARTING, {"listeners": []})
    began = bench.clock()

    job = bench.finish(JobKind.PATCH)

    assert job.error is not None
    assert job.error["data"] == {"regressions": ["nothing listens on tcp port 80 any more"]}
    assert 300 <= (bench.clock() - began).total_seconds() < 3600


def test_what_time_does_not_mend_is_not_waited_for(bench: WorkflowBench) -> None:
    bench.exists()
    bench.health = Boots({}, {"failed_units": ["new.service"]})
    began = bench.clock()

    job = bench.finish(JobKind.PATCH)

    assert job.error is not None
    assert job.error["data"] == {"regressions": ["unit new.service has failed"]}
    assert (bench.clock() - began).total_seconds() < 60


def test_a_boot_that_never_ended_before_is_no_regression(bench: WorkflowBench) -> None:
    bench.exists()
    bench.health = always(**STARTING)

    job = bench.finish(JobKind.PATCH)

    assert job.status is JobStatus.SUCCEEDED, job.error


@pytest.mark.parametrize("kind", [JobKind.CREATE, JobKind.RESTORE])
def test_a_new_boot_is_judged_when_it_has_settled(bench: WorkflowBench, kind: JobKind) -> None:
    if kind is JobKind.RESTORE:
        bench.exists()
        bench.has_backup()
    looks = iter([STARTING, STARTING])
    bench.health = lambda report: {**report, **next(looks, {})}

    job = bench.finish(kind)

    assert job.status is JobStatus.SUCCEEDED, job.error
    assert bench.server.status is ServerStatus.ACTIVE


def test_a_new_server_that_never_settles_is_none(bench: WorkflowBench) -> None:
    bench.health = always(**STARTING)

    job = bench.finish(JobKind.CREATE)

    assert job.error is not None
    assert "the system is starting; unit cloud-init.service is still starting" in str(
        job.error["detail"]
    )


def test_who_changes_his_mind_does_not_wait_for_the_boot(bench: WorkflowBench) -> None:
    bench.exists()
    bench.health = always(**STARTING)
    bench.cancel_at("check", done=False)

    assert bench.finish(JobKind.CHECK).status is JobStatus.CANCELLED


# ---------------------------------------------------------------- restored as it was


def test_a_restore_of_an_ill_server_is_as_good_as_its_backup(bench: WorkflowBench) -> None:
    bench.exists()
    bench.health = always(**OLD_TROUBLE, listeners=[SITE])
    bench.has_backup()

    job = bench.finish(JobKind.RESTORE)

    assert job.status is JobStatus.SUCCEEDED, job.error
    assert bench.server.status is ServerStatus.ACTIVE
    assert "as it was when backed up: / is full" in job.warnings


@pytest.mark.parametrize(
    ("seen", "worse"),
    [
        ({"failed_units": ["new.service"]}, "unit new.service has failed"),
        ({"listeners": []}, "nothing listens on tcp port 80 any more"),
    ],
)
def test_a_restored_server_that_is_worse_than_its_backup_is_broken(
    bench: WorkflowBench, seen: dict[str, Any], worse: str
) -> None:
    bench.exists()
    bench.health = always(listeners=[SITE])
    bench.has_backup()
    bench.health = always(**{"listeners": [SITE], **seen})

    job = bench.finish(JobKind.RESTORE)

    assert job.error is not None
    assert job.error["data"] == {"regressions": [worse]}
    assert bench.server.status is ServerStatus.BROKEN


def test_a_server_that_could_not_be_looked_at_is_backed_up_and_must_be_well_after(
    bench: WorkflowBench,
) -> None:
    bench.exists()
    bench.health = lambda _report: {}
    backup = bench.finish(JobKind.BACKUP)
    assert backup.status is JobStatus.SUCCEEDED, backup.error
    assert any("its health is not known" in warning for warning in backup.warnings)
    assert bench.catalogue.of_server(SERVER_ID)[0].health is None

    bench.health = always(**OLD_TROUBLE)
    job = bench.finish(JobKind.RESTORE)

    assert job.error is not None
    assert "the server is not well" in str(job.error["detail"])


# ---------------------------------------------------------------- what a patch has proven


@pytest.mark.parametrize(
    "said",
    [
        {"packages_after": {"linux-image": "1"}},
        {"lists": {}},
        {"ok": False},
        {"reboot": {}},
    ],
    ids=str,
)
def test_a_patch_that_proves_nothing_is_not_green(
    bench: WorkflowBench, said: dict[str, Any]
) -> None:
    bench.exists()
    bench.updated = said

    job = bench.finish(JobKind.PATCH)

    assert job.status is JobStatus.FAILED
    assert job.error is not None
    assert job.error["code"] == "evidence-missing"
