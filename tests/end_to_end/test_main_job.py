"""The main job on a real VPS, with workers killed in the middle of it.

One run for all questions, because it takes long: the demo's steps, while the Celery worker and the
clock are killed (-9) mid-apt, mid-playbook, mid-backup and mid-restore.
"""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from managed.domain.connections import Endpoint
from managed.domain.errors import ManagedError
from managed.drivers.processes import descendants, running_processes
from managed.lab.demo import STEPS
from managed.lab.ports import free_port
from tests.end_to_end import odd_files
from tests.end_to_end.main_job import PLANTED, Run, main_job_run
from tests.support.embedded import processes_of
from tests.support.waiting import wait_until

pytestmark = [pytest.mark.vm, pytest.mark.timeout(3600)]

FIRMWARE = Path("/usr/share/OVMF")


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Run]:
    with main_job_run(tmp_path_factory.mktemp("main-job")) as run:
        yield run


def test_every_step_holds_although_workers_were_killed(run: Run) -> None:
    assert run.report["ok"]
    assert [step["name"] for step in run.report["steps"]] == list(STEPS)
    assert {step["status"] for step in run.report["steps"]} == {"ok"}
    assert set(run.chaos.killed) == {"mid-apt", "mid-playbook", "mid-backup", "mid-restore"}
    assert all(run.chaos.killed.values()), "each kill hit a process"


def test_nothing_ran_twice(run: Run) -> None:
    """As the world tells it: one run of apt, one snapshot in the bucket, one restore."""
    history = run.demo.on_server("cat", "/var/log/apt/history.log")
    ours = [entry for entry in history.split("\n\n") if "upgrade --with-new-pkgs" in entry]
    assert len(ours) == 1, "the updates went in by one run of apt"
    assert "\nUpgrade: " in ours[0]
    world = run.installation.world
    snapshots = world.repositories.snapshots(world.repository(run.demo.server["id"]))
    assert len(snapshots) == 1, "restic ran once"
    work = run.rows("SELECT name, attempt FROM job_steps WHERE name IN ('update','take','restore')")
    assert sorted(work) == [("restore", 1), ("take", 1), ("update", 1)]
    installed = run.rows("SELECT data FROM events WHERE type = 'install_step'")
    assert len(installed) == len(set(installed)), "nothing was installed again"


def test_patch_kept_versions_before_and_after_and_rebooted_into_the_new_kernel(run: Run) -> None:
    patch = run.evidence("patch")
    assert patch["rebooted"]
    assert patch["kernel_before"] != patch["kernel_after"]
    assert len(patch["packages"]) >= 10
    assert all(before != after for before, after in patch["packages"].values())


def test_the_patch_was_started_by_the_clock_once_because_its_window_opened(run: Run) -> None:
    patch = run.evidence("patch")
    assert patch["started_by"] == "clock"
    keys = run.rows("SELECT run_key FROM jobs WHERE kind = 'patch'")
    assert len(keys) == 1
    assert "window:" in keys[0][0]
    ((outcome, found),) = run.rows("SELECT outcome, found FROM surveys")
    assert outcome == "work"
    assert json.loads(found)["updates"] >= 10


def test_the_ticket_proposed_the_restore_and_started_nothing_by_itself(run: Run) -> None:
    ticket, restore = run.evidence("ticket"), run.evidence("restore")
    assert (ticket["proposal"]["kind"], ticket["status"]) == ("restore-server", "open")
    assert "the server as a whole" in ticket["why"]
    query = "SELECT r.status, j.requested_by FROM requests r JOIN jobs j ON j.id = r.job_id"
    ((status, requested_by),) = run.rows(query)
    assert status == "done"
    assert restore["approved_by"] in requested_by


def test_the_customer_was_told_what_was_restored_with_the_evidence(run: Run) -> None:
    restore = run.evidence("restore")
    assert f"{restore['checked']} paths" in restore["answer"]
    assert all(secret not in restore["answer"] for secret in run.demo.secrets().values())


def test_its_kernel_is_started_as_the_node_wants_it(run: Run) -> None:
    node = run.installation.world.hypervisor_of(run.demo.server["node_id"])
    told = run.demo.on_server("cat", "/proc/cmdline").split()
    assert set(node.capabilities().kernel_options) <= set(told)


def test_every_file_equalled_the_manifest_but_those_that_the_restore_names(run: Run) -> None:
    restored, backup = run.evidence("restore"), run.evidence("backup")
    swap_files = [item for item in restored["rewritten"] if item["path"] == odd_files.SWAP_FILE]
    others = [item for item in restored["rewritten"] if item not in swap_files]
    assert len(swap_files) == 1
    assert restored["checked"] - len(others) <= restored["equal"] <= restored["checked"]
    assert restored["checked"] > 10_000
    assert all(item["path"].startswith("/boot/") for item in others)
    assert any("i386-pc" in phrase for phrase in restored["written_outside_files"])
    assert backup["verification"]["paths_compared"] == restored["checked"]


def test_files_that_backups_tend_to_lose_came_back_as_they_were(run: Run) -> None:
    found = run.demo.findings
    assert found.odd_files_before["inodes_of_linked"] == 1
    assert found.odd_files_before["is_sparse"]
    assert found.odd_files_before["swaps"][0] == [[odd_files.SWAP_FILE, "file", "65532"]]
    assert found.odd_files_after == found.odd_files_before


def test_the_restored_database_is_the_dump_not_the_torn_files(run: Run) -> None:
    loaded = run.evidence("restore")["databases"]
    assert [(entry["kind"], entry["databases"]) for entry in loaded] == [("postgresql", 2)]


def test_what_a_killed_worker_had_started_died_with_it(run: Run) -> None:
    assert run.chaos.left_behind == {}


def test_no_worker_left_a_playbook_restic_or_rescue_session_behind(run: Run) -> None:
    """One is planted, so that a look that finds nothing is noticed."""
    settings = run.installation.settings
    parts = {run.service_pid, *descendants(run.service_pid, running_processes())}
    planted = subprocess.Popen(
        ["sleep", "600"], env={"RESTIC_CACHE_DIR": str(settings.state / "cache" / "restic")}
    )
    try:
        found = processes_of(settings)
    finally:
        planted.kill()
        planted.wait(30)
    parts |= set(descendants(run.service_pid, running_processes()))
    lab = (f"guest=managed-{run.demo.server['id']},", "/libvirtd.pid", "/virtlogd.pid")
    around = (*lab, "tests.support.clean_after")
    strays = {
        pid: command
        for pid, command in found.items()
        if pid not in parts and not any(word.encode() in command for word in around)
    }
    assert list(strays) == [planted.pid]
    hypervisor = run.installation.world.hypervisor_of(run.demo.server["node_id"])
    assert dict(hypervisor.rescue_sessions()) == {}
    assert run.rows("SELECT id FROM rescue_sessions WHERE ended_at IS NULL") == []


def test_no_secret_is_in_command_lines_events_results_or_logs(run: Run) -> None:
    recorded = run.recorded()
    logs = "\n".join(
        path.read_text(errors="replace")
        for path in (run.installation.settings.state / "log").glob("*.log")
    )
    for name, secret in run.demo.secrets().items():
        assert secret not in recorded, f"{name} is in the database in the clear"
        assert secret not in logs, f"{name} is in a log"
        assert secret.encode() not in run.command_lines, f"{name} was on a command line"


def test_no_secret_was_on_the_servers_disk_or_in_its_units_and_processes(run: Run) -> None:
    found = run.demo.findings
    assert found.files_with_secrets == [PLANTED], "only what the test itself planted is found"
    assert "restic" in found.during_backup, "the backup was under way"
    for name, secret in run.demo.secrets().items():
        assert secret not in found.during_backup, f"{name} was in a unit or on a command line"


# Runs last: the server's disk boots outside of the service afterwards.
def test_the_restored_disk_also_boots_by_efi_on_a_machine_that_never_saw_it(
    run: Run, tmp_path: Path
) -> None:
    server = run.demo.server
    stop = run.demo.client.post(
        f"/v1/servers/{server['id']}/jobs", {"kind": "power", "action": "stop"}
    )
    assert run.demo.client.wait_for_job(stop["id"], lambda _event: None)["status"] == "succeeded"
    disk = next(run.installation.settings.state.glob(f"**/{server['id']}.qcow2"))
    with efi_machine(disk, tmp_path) as port:
        endpoint = replace(run.demo.endpoint, address="127.0.0.1", port=port)
        wait_until(
            lambda: answers(run, endpoint), timeout=240, what="SSH answers after an EFI boot"
        )
        shell = run.demo.shell
        assert shell.run(endpoint, ("test", "-e", "/sys/firmware/efi"), timeout=60).exit_status == 0


def answers(run: Run, endpoint: Endpoint) -> bool:
    try:
        run.demo.shell.fresh_login(endpoint, timeout=10)
    except ManagedError:
        return False
    return True


@contextmanager
def efi_machine(disk: Path, directory: Path) -> Iterator[int]:
    """The disk in a machine with EFI firmware that remembers no boot entry; the port of its SSH."""
    variables, port = directory / "variables.fd", free_port()
    variables.write_bytes((FIRMWARE / "OVMF_VARS_4M.fd").read_bytes())
    firmware = f"if=pflash,format=raw,readonly=on,file={FIRMWARE / 'OVMF_CODE_4M.fd'}"
    argv = (
        *("setpriv", "--pdeathsig", "KILL", "qemu-system-x86_64", "-nodefaults"),
        *("-display", "none", "-machine", "q35", "-accel", "tcg,thread=multi"),
        *("-cpu", "Westmere", "-smp", "2", "-m", "1024", "-device", "virtio-rng-pci"),
        *("-drive", firmware, "-drive", f"if=pflash,format=raw,file={variables}"),
        *("-drive", f"file={disk},if=virtio,format=qcow2"),
        *("-netdev", f"user,id=net,restrict=on,hostfwd=tcp:127.0.0.1:{port}-:22"),
        *("-device", "virtio-net-pci,netdev=net"),
        *("-serial", f"file:{directory / 'console.log'}"),
    )
    process = subprocess.Popen(argv)
    try:
        yield port
    finally:
        process.kill()
        process.wait(30)
