"""A playbook does not outlive its worker, its time limit, or its successor's arrival."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from managed.domain.connections import Endpoint
from managed.domain.errors import UnknownOutcome
from managed.drivers import processes
from managed.drivers.ansible.outcome import RunRecord
from managed.drivers.ansible.playbooks import AnsiblePlaybooks, _Watch
from tests.support.local_sshd import local_sshd
from tests.support.runtime import short_directory
from tests.support.waiting import wait_until

pytestmark = pytest.mark.integration

ROOT = Path(__file__).parents[3]
PLAYBOOKS = ROOT / "tests" / "support" / "playbooks"
WORKER = """
import json, sys
from pathlib import Path
from managed.domain.connections import Endpoint
from managed.domain.secrets import Secret
from managed.drivers import processes
from managed.drivers.ansible.playbooks import AnsiblePlaybooks

given = json.load(sys.stdin)
endpoint = Endpoint(**{**given["endpoint"], "private_key": Secret(given["private_key"])})
def register(pid):
    print(json.dumps(processes.identity_of(pid).as_json()), flush=True)
def emit(name, data):
    print(json.dumps([name, data]), flush=True)
AnsiblePlaybooks(Path(given["playbooks"]), Path(given["runtime"])).run(
    "wait", endpoint, variables={}, secrets={}, emit=emit, register_child=register, timeout=250)
"""


@pytest.fixture
def runtime() -> Iterator[Path]:
    with short_directory() as directory:
        yield directory


@pytest.fixture
def endpoint(tmp_path: Path) -> Iterator[Endpoint]:
    with local_sshd(tmp_path) as endpoint:
        yield endpoint


def start_worker(
    endpoint: Endpoint, runtime: Path
) -> tuple[subprocess.Popen[str], processes.ProcessIdentity]:
    """A worker whose playbook is in the middle of a long task on the server."""
    worker = subprocess.Popen(
        [sys.executable, "-c", WORKER],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=ROOT,
    )
    assert worker.stdin is not None
    assert worker.stdout is not None
    public = {name: getattr(endpoint, name) for name in ("address", "port", "user", "host_key")}
    worker.stdin.write(
        json.dumps(
            {
                "endpoint": public,
                "private_key": endpoint.private_key.reveal(),
                "playbooks": str(PLAYBOOKS),
                "runtime": str(runtime),
            }
        )
    )
    worker.stdin.close()
    child = processes.ProcessIdentity.from_json(json.loads(worker.stdout.readline()))
    wait_until(lambda: _has_ssh(child), timeout=60, what="the task runs over ssh")
    return worker, child


def _has_ssh(child: processes.ProcessIdentity) -> bool:
    names = set()
    for pid in processes.survivors(child):
        try:
            names.add(Path(f"/proc/{pid}/comm").read_text().strip())
        except OSError:
            continue
    return "ssh" in names


def test_a_killed_worker_leaves_nothing_of_its_playbook(endpoint: Endpoint, runtime: Path) -> None:
    worker, child = start_worker(endpoint, runtime)

    worker.kill()
    worker.wait(timeout=10)

    wait_until(lambda: not processes.survivors(child), timeout=10, what="nothing survives")
    assert list(runtime.iterdir()) == [], "the key of the server was left behind"


def test_the_successor_ends_what_survives_a_killed_supervisor(
    endpoint: Endpoint, runtime: Path
) -> None:
    worker, child = start_worker(endpoint, runtime)
    os.kill(worker.pid, signal.SIGSTOP)  # a worker that hangs cannot clean up either
    try:
        os.kill(child.pid, signal.SIGKILL)
        wait_until(
            lambda: not processes.is_running(child), timeout=10, what="the supervisor is dead"
        )
        assert processes.survivors(child), "ansible's forks sit in sessions of their own"

        assert processes.end_survivors(child)
        assert processes.survivors(child) == ()
    finally:
        worker.kill()
        worker.wait(timeout=10)


def test_the_time_limit_ends_everything(endpoint: Endpoint, runtime: Path) -> None:
    children: list[processes.ProcessIdentity] = []

    def register(pid: int) -> None:
        identity = processes.identity_of(pid)
        assert identity is not None
        children.append(identity)

    with pytest.raises(UnknownOutcome):
        AnsiblePlaybooks(PLAYBOOKS, runtime).run(
            "wait",
            endpoint,
            variables={},
            secrets={},
            emit=lambda _name, _data: None,
            register_child=register,
            timeout=4,
        )

    assert processes.survivors(children[0]) == ()
    assert list(runtime.iterdir()) == []


def test_a_time_limit_that_is_over_before_the_playbook_has_started_is_no_defect(
    runtime: Path,
) -> None:
    record = RunRecord("wait", lambda _name, _data: None, ())
    with _Watch(runtime / "control", lambda _pid: None, record, timeout=0) as watch:
        watch.poll()
        watch.poll()
    watch.raise_failure()
    assert watch.timed_out


def test_the_private_directory_of_a_dead_worker_is_swept(runtime: Path, endpoint: Endpoint) -> None:
    dead = subprocess.run(
        [sys.executable, "-c", "import os; print(os.getpid())"],
        capture_output=True,
        text=True,
        check=True,
    )
    orphan = runtime / f"run-{dead.stdout.strip()}-12345-abc"
    orphan.mkdir()

    with pytest.raises(UnknownOutcome):
        AnsiblePlaybooks(PLAYBOOKS, runtime).run(
            "wait",
            endpoint,
            variables={},
            secrets={},
            emit=lambda _name, _data: None,
            register_child=lambda _pid: None,
            timeout=0,
        )
    assert list(runtime.iterdir()) == []
