"""Real updates on a cell, also after a kill in the middle of apt."""

from __future__ import annotations

import json
from collections.abc import Mapping

import pytest

from managed.domain.errors import Json
from managed.domain.health import HealthReport, health_problems, health_regressions, health_report
from managed.domain.packages import patch_report
from managed.domain.runs import RunRequest
from managed.drivers.runs import request_document, runner_file
from managed.lab.cells import Cell
from managed.server_scripts import script_source
from tests.support.cells import StartCell
from tests.support.playbook_runs import Remote, Run, text_of
from tests.support.waiting import wait_until

pytestmark = [pytest.mark.cell, pytest.mark.timeout(600)]


def test_real_updates_are_installed_even_after_a_kill_in_the_middle(
    start_test_cell: StartCell, run: Run, remote: Remote
) -> None:
    cell = start_test_cell("patch")
    before = _health(cell, remote)
    first = run("patch", cell, **_patch_request("job.patch.1"))
    assert first.facts["run_started"] is True
    assert run("patch", cell, **_patch_request("job.patch.1")).changed == 0, "claimed once"
    path, source = runner_file()
    assert (cell.root_dir / path.lstrip("/")).read_bytes() == source
    log = cell.root_dir / "var/lib/managed/runs/job.patch.1/log"
    wait_until(lambda: "Unpacking " in text_of(log), timeout=200, what="packages are unpacked")
    remote(cell, "systemctl kill --signal=KILL managed-run-job.patch.1.service")

    run("patch", cell, **_patch_request("job.patch.2"))
    record = cell.root_dir / "var/lib/managed/runs/job.patch.2"
    wait_until(lambda: (record / "status").exists(), timeout=400, what="the second run ends")

    assert (record / "status").read_text().strip() == "0", text_of(record / "log")[-3000:]
    result = json.loads((record / "result.json").read_text())
    patch_report(result)
    changed = dict(result["packages_after"].items() - result["packages_before"].items())
    assert len(changed) >= 15, "also those that the killed run had installed"
    assert '@managed {"event": "patch_progress"' in text_of(record / "log")
    after = _health(cell, remote)
    assert health_problems(after) == ()
    assert health_regressions(before, after) == ()
    assert remote(cell, "dpkg --audit") == ""


def test_a_dead_repository_is_no_green(
    start_test_cell: StartCell, run: Run, remote: Remote
) -> None:
    cell = start_test_cell("dead-repository", isolated=True)

    run("patch", cell, **_patch_request("job.patch.1"))
    record = cell.root_dir / "var/lib/managed/runs/job.patch.1"
    wait_until(lambda: (record / "status").exists(), timeout=300, what="the run ends")

    assert (record / "status").read_text().strip() == "1"
    result = json.loads((record / "result.json").read_text())
    assert "fetch package lists" in result["error"]["detail"]


def _patch_request(run_id: str) -> Mapping[str, Json]:
    given = json.dumps({"only_security": False, "time_limit": 3600})
    request = RunRequest(run_id, script_source("apply_updates"), arguments=(given,))
    path, source = runner_file()
    return {
        "patch_run_id": run_id,
        "patch_request": request_document(request).decode(),
        "patch_runner_path": path,
        "patch_runner_source": source.decode(),
    }


def _health(cell: Cell, remote: Remote) -> HealthReport:
    return health_report(json.loads(remote(cell, "python3 -", script_source("check_health"))))
