"""The units of deploy/systemd, started for real: a cell with its own systemd is the operator's
host, installed by the lines of the guide; another one is a customer's server; at the end the host
is a node, too. PostgreSQL, Redis and the S3 server are this test's own.

The tests are one story and run in their order: each finds the service up and leaves it so.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import httpx
import pytest
from sqlalchemy import create_engine, text

from managed.client import ManagedClient
from managed.lab.cells import Cell
from tests.support.cells import StartCell
from tests.support.node_host import DISKS, make_node, order_server, owners
from tests.support.postgres import PostgresCluster
from tests.support.systemd_host import (
    REPOSITORY,
    SECONDS,
    SystemdHost,
    carry_out,
    guide_commands,
    host_release,
    operators_host,
)
from tests.support.waiting import wait_until

pytestmark = [
    pytest.mark.cell,
    pytest.mark.integration,
    pytest.mark.slow,
    pytest.mark.timeout(400),
]

UNITS = {
    "gateway": "managed-gateway",
    "api": "managed-api",
    "worker-1": "managed-worker@1",
    "worker-2": "managed-worker@2",
    "clock": "managed-clock",
}


@dataclass(frozen=True)
class Stage:
    host: SystemdHost
    server: Cell
    cluster: PostgresCluster

    def worker_of(self, job_id: str) -> str:
        """The unit whose process holds the job's lease."""
        database = create_engine(self.cluster.url)
        with database.connect() as connection:
            query = text("SELECT lease_owner FROM jobs WHERE id = :id")
            owner = str(connection.execute(query, {"id": job_id}).scalar_one())
        database.dispose()
        return self.host.run(f"ps -o unit= -p {owner.rpartition(':')[2]}").strip()


@pytest.fixture(scope="module")
def stage(start_test_cell: StartCell) -> Iterator[Stage]:
    with operators_host(start_test_cell("operators-host", host_release())) as (host, cluster):
        yield Stage(host, start_test_cell("customers-server"), cluster)


def submit(client: ManagedClient, kind: str) -> str:
    return str(client.post("/v1/servers/customer/jobs", {"kind": kind})["id"])


def wait_for_step(client: ManagedClient, job_id: str, name: str) -> None:
    """Until the job is in this step."""
    for event in client.events(job_id):
        if event["type"] == "step_started" and event["data"]["step"] == name:
            return
    raise AssertionError(f"the job ended without the step {name}")


def ended(client: ManagedClient, job_id: str) -> tuple[dict[str, Any], dict[str, list[str]]]:
    """The job when it has ended, and its steps by the event that told of them."""
    told: dict[str, list[str]] = {"step_started": [], "step_done": []}

    def note(event: dict[str, Any]) -> None:
        if event["type"] in told:
            told[event["type"]].append(event["data"]["step"])

    job = client.wait_for_job(job_id, note)
    assert job["status"] == "succeeded", job["error"]
    return job, told


def test_the_guides_lines_bring_all_parts_up(stage: Stage) -> None:
    assert stage.host.readiness()["parts"] == dict.fromkeys(
        ("database", "bucket", "gateway", "broker"), "ok"
    )
    for unit in UNITS.values():
        assert stage.host.property_of(unit, "ActiveState") == "active"
        assert stage.host.property_of(unit, "NRestarts") == "0", unit
        assert stage.host.property_of(unit, "UnitFileState") == "enabled"


@pytest.mark.parametrize("part", list(UNITS))
def test_a_process_sees_its_own_secrets_and_may_write_where_it_has_to(
    stage: Stage, part: str
) -> None:
    unit = UNITS[part]
    process = f"/proc/{stage.host.property_of(unit, 'MainPID')}"
    assert stage.host.run(f"ls {process}/root/run/credentials").split() == [f"{unit}.service"]
    assert stage.host.run(f"stat -c %U {process}").strip() == "managed"
    mounts = [line.split() for line in stage.host.run(f"cat {process}/mounts").splitlines()]
    writable = {place: kind for _, place, kind, options, *_ in mounts if "rw" in options.split(",")}
    assert "/" not in writable
    assert "/var/lib/managed" in writable
    assert writable[f"/run/managed-{part}"] == "tmpfs"


def test_a_killed_worker_is_started_again_and_its_job_goes_on(stage: Stage) -> None:
    """In the midst of a playbook."""
    with stage.host.client() as client:
        body = {"name": "customer", "address": stage.server.address}
        enrolled = client.post(
            "/v1/servers/enrol",
            {**body, "ssh_port": stage.server.port, "host_key": stage.server.host_key},
        )
        with (stage.server.root_dir / "root/.ssh/authorized_keys").open("a") as file:
            file.write(enrolled["authorized_keys_line"] + "\n")
        job_id = submit(client, "enrol")
        wait_for_step(client, job_id, "prepare")
        unit = stage.worker_of(job_id)
        before = stage.host.property_of(unit, "MainPID")
        stage.host.run(f"systemctl kill --kill-whom=main --signal=KILL {unit}")
        job, told = ended(client, job_id)
    assert told["step_done"] == [step["name"] for step in job["steps"]]
    wait_until(stage.host.is_up, timeout=SECONDS, what="the killed worker is back")
    assert stage.host.property_of(unit, "NRestarts") == "1"
    assert stage.host.property_of(unit, "MainPID") != before


def test_workers_restarted_in_the_midst_of_steps_lose_none_and_do_none_twice(
    stage: Stage,
) -> None:
    """A backup, by restic through the gateway with TLS; the worker that has the step is restarted,
    the other one goes on, and later that one, too.
    """
    with stage.host.client() as client:
        job_id = submit(client, "backup")
        for step in ("open_repository", "verify"):
            wait_for_step(client, job_id, step)
            unit = stage.worker_of(job_id)
            old = stage.host.property_of(unit, "InvocationID")
            stage.host.run(f"systemctl restart {unit}")
            said = stage.host.run(f"journalctl --output=cat --no-pager INVOCATION_ID={old}")
            assert f"{unit}: Deactivated successfully." in said
        job, told = ended(client, job_id)
    assert told["step_started"] == told["step_done"] == [step["name"] for step in job["steps"]]
    wait_until(stage.host.is_up, timeout=SECONDS, what="both workers are back")


def test_what_dies_while_the_database_is_away_comes_back_with_it(stage: Stage) -> None:
    victims = (UNITS["api"], UNITS["worker-1"], UNITS["clock"])
    before = {unit: int(stage.host.property_of(unit, "NRestarts")) for unit in victims}
    stage.cluster.stop()
    stage.host.run(f"systemctl kill --kill-whom=main --signal=KILL {' '.join(victims)}")
    wait_until(
        lambda: all(
            int(stage.host.property_of(unit, "NRestarts")) >= before[unit] + 2 for unit in victims
        ),
        timeout=SECONDS,
        what="each was started in vain",
    )
    stage.cluster.start()
    wait_until(stage.host.is_up, timeout=SECONDS, what="all parts are up again")


def test_all_end_in_time_when_stopped_and_a_boot_goes_on_with_the_work(stage: Stage) -> None:
    """Even the API, which holds somebody's stream of events."""
    with stage.host.client() as client:
        stage.host.run(f"systemctl stop {UNITS['worker-1']} {UNITS['worker-2']}")
        job_id = submit(client, "check")
        headers = {"Authorization": f"Bearer {stage.host.token()}", "Accept": "text/event-stream"}
        url = f"{stage.host.api_url()}/v1/jobs/{job_id}/events"
        with httpx.stream("GET", url, headers=headers, timeout=60) as stream:
            assert next(stream.iter_lines())
            stage.host.run(f"systemctl stop {' '.join(UNITS.values())}")
    for unit in UNITS.values():
        assert stage.host.property_of(unit, "ActiveState") == "inactive", unit
        assert stage.host.property_of(unit, "Result") == "success", unit
    stage.host.run("systemctl --no-block reboot")
    wait_until(stage.host.is_up, timeout=SECONDS, what="all parts are up after a boot")
    with stage.host.client() as client:
        ended(client, job_id)


def test_the_command_line_as_installed_has_the_services_secrets_and_hands_on_what_was_typed(
    stage: Stage,
) -> None:
    reason = '$HOME ${PATH} 5 % of "them" don\'t boot'
    quoted = "'" + reason.replace("'", "'\\''") + "'"
    stage.host.run(f"managed pause begin {quoted}")
    assert json.loads(stage.host.run("managed pause show --json"))["pause"]["reason"] == reason
    stage.host.run("managed pause end")
    on_a_terminal = stage.host.run("script -qec 'managed audit verify' /dev/null")
    assert "all as they were written" in on_a_terminal
    stage.host.run(f"! managed audit verify --expect 1:{'0' * 64}")
    assert stage.host.run("systemctl list-units --all --plain --no-legend 'managed-command*'") == ""


def test_secrets_for_tickets_reach_api_and_clock_by_the_guides_drop_in(stage: Stage) -> None:
    url = f"{stage.host.api_url()}/v1/webhooks/zammad"
    assert httpx.post(url, json={}).status_code == 503, "there is no secret yet"
    stage.host.run("cd /root; echo of-zammad >token; openssl rand -hex 32 >webhook-secret")
    stage.host.run("cd /root\n" + drop_in())
    wait_until(stage.host.is_up, timeout=SECONDS, what="API and clock are back")
    assert httpx.post(url, json={}).status_code == 401, "it asks for a signature now"
    for unit in (UNITS["api"], UNITS["clock"]):
        process = f"/proc/{stage.host.property_of(unit, 'MainPID')}"
        shown = stage.host.run(f"ls {process}/root/run/credentials/{unit}.service").split()
        assert {"zammad_token", "zammad_webhook_secret"} <= set(shown)


def drop_in() -> str:
    """The guide's lines that make it."""
    guide = (REPOSITORY / "docs" / "guides" / "operations.md").read_text()
    block = guide.partition("For Zammad")[2].split("```")[1]
    return "\n".join(line.strip().removeprefix("# ") for line in block.splitlines())


def test_another_versions_folder_takes_over_from_one_at_work(stage: Stage) -> None:
    lines = guide_commands("A new version")
    switch = next(i for i, line in enumerate(lines) if line.startswith("ln "))
    for line in lines[:switch]:
        carry_out(stage.host, line, "/opt/managed-2")
    with stage.host.client() as client:
        job_id = submit(client, "backup")
        wait_for_step(client, job_id, "open_repository")
        for line in lines[switch:]:
            carry_out(stage.host, line, "/opt/managed-2")
            if "daemon-reload" in line:
                assert {folder_of(stage, unit) for unit in UNITS.values()} == {"/opt/managed-1"}
        wait_until(stage.host.is_up, timeout=SECONDS, what="all parts are up")
        job, told = ended(client, job_id)
    assert told["step_started"] == told["step_done"] == [step["name"] for step in job["steps"]]
    assert {folder_of(stage, unit) for unit in UNITS.values()} == {"/opt/managed-2"}


def folder_of(stage: Stage, unit: str) -> str:
    """Where the unit's process works."""
    pid = stage.host.property_of(unit, "MainPID")
    return stage.host.run(f"readlink /proc/{pid}/cwd").strip()


def test_a_copy_is_taken_and_brings_the_control_plane_back(stage: Stage) -> None:
    taken = json.loads(stage.host.run("managed backup-self --json"))
    stage.host.run("managed customers add 'Later Ltd' later@example.org")
    stage.host.run(f"systemctl stop {' '.join(UNITS.values())}")
    restored = json.loads(stage.host.run("managed restore-self --replace --yes --json"))
    assert restored["manifest"]["name"] == taken["name"]
    stage.host.run(f"systemctl start {' '.join(UNITS.values())}")
    wait_until(stage.host.is_up, timeout=SECONDS, what="all parts are up after the restore")
    assert json.loads(stage.host.run("managed customers list --json"))["items"] == []
    stage.host.run("managed audit verify && managed pause end")
    with stage.host.client() as client:
        ended(client, submit(client, "check"))


@pytest.mark.vm
def test_the_guides_lines_make_the_host_a_node(stage: Stage) -> None:
    make_node(stage.host, "/opt/managed-2")
    (node,) = json.loads(stage.host.run("managed nodes list --json"))["items"]
    assert (node["libvirt_uri"], node["storage_dir"]) == ("qemu:///system", DISKS)


@pytest.mark.vm
@pytest.mark.parametrize("part", list(UNITS))
def test_all_parts_but_the_gateway_see_libvirts_socket(stage: Stage, part: str) -> None:
    """Customers' servers speak to the gateway, and who may use libvirt is as good as root."""
    process = stage.host.property_of(UNITS[part], "MainPID")
    seen = stage.host.run(f"ls -A /proc/{process}/root/run/libvirt").split()
    assert ("libvirt-sock" in seen) == (part != "gateway")


@pytest.mark.vm
def test_a_rescue_session_on_the_node_lets_us_in_and_a_cancelled_create_leaves_nothing(
    stage: Stage,
) -> None:
    """Clock and workers take turns, so that the job goes no further than that."""
    workers = f"{UNITS['worker-1']} {UNITS['worker-2']}"
    stage.host.run(f"systemctl stop {UNITS['clock']}")
    with stage.host.client() as client:
        job_id = order_server(client, "given-up")

        def status() -> str:
            return str(client.get(f"/v1/jobs/{job_id}")["status"])

        wait_until(lambda: status() == "waiting", timeout=SECONDS, what="the session boots")
        assert owners(stage.host) == {
            "qcow2": "libvirt-qemu 600",
            "rescue-config.raw": "libvirt-qemu 600",
            "log": "managed 600",
        }
        stage.host.run(f"systemctl stop {workers}; systemctl start {UNITS['clock']}")
        wait_until(lambda: status() == "queued", timeout=SECONDS, what="the clock is let in")
        client.post(f"/v1/jobs/{job_id}/cancel")
        stage.host.run(f"systemctl start {workers}")
        job = client.wait_for_job(job_id, lambda _event: None)
    assert job["status"] == "cancelled", job["error"]
    assert owners(stage.host) == {}
