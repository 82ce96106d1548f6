"""What must be true when a job has ended, whatever was killed: looked up where it is, not asked of
the job. The cell's own dpkg, its boots, its processes; the bucket; the tables.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Callable, Collection, Iterator
from typing import Any

import psycopg

from managed.domain.jobs import JobKind
from managed.domain.snapshots import job_tag
from managed.lab import cell_processes
from managed.wiring import Installation
from managed.workflows.registry import current_workflow
from tests.kill_matrix.servers import PACKAGES, ManagedCell
from tests.kill_matrix.victims import Victim

_RUN_NUMBERS = "SELECT run_numbers FROM jobs WHERE id = %s"
_RUNS = "var/lib/managed/runs"
_HELD = """
SELECT count(*) FROM jobs WHERE server_id = %s
AND (holds_server OR lease_owner <> '' OR lease_expires_at IS NOT NULL
     OR status IN ('queued', 'running', 'waiting'))
"""


def problems_of(
    server: ManagedCell,
    installation: Installation,
    job: dict[str, Any],
    killed: Collection[Victim],
) -> list[str]:
    """What is wrong with the ended job; empty when it ended well, with all its evidence, its work
    was done once, and it left nothing behind.
    """
    kind = JobKind(job["kind"])
    if job["status"] != "succeeded":
        return [f"{job['status']}: {json.dumps(job['error'])}", *_left_behind(server)]
    of_kind: dict[JobKind, Callable[[], Iterator[str]]] = {
        JobKind.PATCH: lambda: _of_patch(server, job),
        JobKind.BACKUP: lambda: _of_backup(server, installation, job, Victim.RUNNER in killed),
    }
    return [
        *_of_record(server, job),
        *_of_runs(server, job, Victim.RUNNER in killed),
        *of_kind[kind](),
        *_records_left(server, job),
        *_left_behind(server),
    ]


def _of_record(server: ManagedCell, job: dict[str, Any]) -> Iterator[str]:
    """Each step once, in order; a log without gap or repetition that tells each end once."""
    steps = [step["name"] for step in job["steps"]]
    wanted = [step.name for step in current_workflow(JobKind(job["kind"])).steps]
    if steps != wanted or {step["status"] for step in job["steps"]} != {"done"}:
        yield f"the steps on record are {steps}"
    events = server.events(job["id"])
    if [event["seq"] for event in events] != list(range(1, len(events) + 1)):
        yield "the numbers of its events have gaps"
    told = Counter(event["data"]["step"] for event in events if event["type"] == "step_done")
    if told != Counter(wanted):
        yield f"its events tell of steps done: {dict(told)}"
    if [event["type"] for event in events].count("job_ended") != 1:
        yield "its events do not tell of one end"


def _of_runs(server: ManagedCell, job: dict[str, Any], runner_was_killed: bool) -> Iterator[str]:
    """Only a run that was lost may have a successor."""
    with psycopg.connect(server.installation.cluster.connection) as database:
        row = database.execute(_RUN_NUMBERS, (job["id"],)).fetchone()
    numbers = row[0] if row else {}
    if any(number > 1 for number in numbers.values()) and not runner_was_killed:
        yield f"there were several runs although none was killed: {numbers}"


def _of_patch(server: ManagedCell, job: dict[str, Any]) -> Iterator[str]:
    log = (server.cell.root_dir / "var/log/dpkg.log").read_text()
    for package in PACKAGES:
        pattern = rf"^\S+ \S+ status installed {package}:all {server.version}$"
        times = len(re.findall(pattern, log, re.MULTILINE))
        if times != 1:
            yield f"{package} {server.version} was installed {times} times"
        if _installed_version(server, package) != str(server.version):
            yield f"{package} is at {_installed_version(server, package)}, not {server.version}"
    boots = server.boots_noted() - server.boots
    if boots != 1:
        yield f"the server was rebooted {boots} times"
    results = {step["name"]: step["result"] for step in job["steps"]}
    if not results["check_after"].get("health"):
        yield "there is no health after the patch"
    if results["update"]["packages_after"].get(PACKAGES[0]) != str(server.version):
        yield "its result does not show the new version"


def _installed_version(server: ManagedCell, package: str) -> str:
    status = (server.cell.root_dir / "var/lib/dpkg/status").read_text()
    found = re.search(
        rf"^Package: {package}\nStatus: install ok installed\n(?:\S.*\n| .*\n)*?Version: (\S+)$",
        status,
        re.MULTILINE,
    )
    return found[1] if found else "nothing"


def _of_backup(
    server: ManagedCell, installation: Installation, job: dict[str, Any], runner_was_killed: bool
) -> Iterator[str]:
    """In the repository itself one snapshot of this job; after a lost run its torso may be there
    too, as one that nobody verified.
    """
    tag = job_tag(job["id"])
    repository = installation.world.repository(server.server_id)
    made = [s for s in installation.world.repositories.snapshots(repository) if tag in s.tags]
    if not 1 <= len(made) <= (2 if runner_was_killed else 1):
        yield f"the repository holds {len(made)} snapshots of the job"
    listed = server.ask("GET", f"/v1/servers/{server.server_id}/snapshots")["items"]
    verified = [s for s in listed if s["job_id"] == job["id"] and s["verified_at"]]
    if len(verified) != 1:
        yield f"{len(verified)} snapshots of the job are verified"
    elif verified[0]["id"] not in {s.snapshot_id for s in made}:
        yield "the verified snapshot is not in the repository"


def _records_left(server: ManagedCell, job: dict[str, Any]) -> Iterator[str]:
    """A failed job's stay on the server, for people to look at; a good one's do not."""
    left = sorted(path.name for path in (server.cell.root_dir / _RUNS).glob(f"{job['id']}*"))
    if left:
        yield f"records of runs stay: {left}"


def _left_behind(server: ManagedCell) -> Iterator[str]:
    """Leases and processes."""
    with psycopg.connect(server.installation.cluster.connection) as database:
        row = database.execute(_HELD, (server.server_id,)).fetchone()
    if row is None or row[0]:
        yield "a job still holds the server"
    at_work = [pid for pid in cell_processes.process_ids(server.cell.group) if _is_of_a_run(pid)]
    if at_work:
        yield f"{len(at_work)} processes of runs are at work"


def _is_of_a_run(pid: int) -> bool:
    try:
        with open(f"/proc/{pid}/environ", "rb") as file:
            return b"MANAGED_RUN_ID=" in file.read()
    except OSError:
        return False
