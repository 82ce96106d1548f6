"""The client that `make client` generates: whole, typed, and at work against a real API."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from api.openapi import openapi_text
from managed.client import ManagedClient
from managed.drivers.ssh.keys import new_key_pair
from tests.integration.api.conftest import ApiBench

ROOT = Path(__file__).parents[3]

PROGRAM = """
import sys
from io import BytesIO

from managed_client import AuthenticatedClient
from managed_client.api.jobs import submit_job, submit_jobs
from managed_client.api.servers import enrol_servers, list_servers
from managed_client.models import (
    BulkJobs,
    BulkView,
    EnrolledTableView,
    JobDetailView,
    NewCheck,
    PageServerView,
    Problem,
    ServerChoice,
)
from managed_client.types import File


def main(address: str, token: str, table: str) -> None:
    client = AuthenticatedClient(base_url=address, token=token)
    page = list_servers.sync(client=client, limit=1)
    assert isinstance(page, PageServerView)
    name: str = page.items[0].name
    print(name, page.items[0].status.value, page.next_)
    job = submit_job.sync(name, client=client, body=NewCheck(kind="check"))
    assert isinstance(job, JobDetailView)
    print(job.id, job.status.value, job.created_at.tzinfo is not None)
    problem = submit_job.sync(name, client=client, body=NewCheck(kind="check"))
    assert isinstance(problem, Problem)
    print(problem.status, problem.code, problem.hint)
    bulk = BulkJobs(job=NewCheck(kind="check"), servers=ServerChoice(all_=True), dry_run=True)
    many = submit_jobs.sync(client=client, body=bulk)
    assert isinstance(many, BulkView)
    print(many.submitted, many.refused)
    enrolled = enrol_servers.sync(client=client, body=File(payload=BytesIO(table.encode())))
    assert isinstance(enrolled, EnrolledTableView)
    print([item.name for item in enrolled.items])


main(*sys.argv[1:])
"""


def run(*command: str, directory: Path, **environment: str) -> str:
    done = subprocess.run(
        command,
        cwd=directory,
        env={"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}", **environment},
        capture_output=True,
        text=True,
        timeout=240,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


@pytest.fixture(scope="session")
def generated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the client, generated as the Makefile does it, and a program that uses it."""
    folder = tmp_path_factory.mktemp("client")
    (folder / "openapi.json").write_text(openapi_text())
    said = run(
        "openapi-python-client",
        "generate",
        *("--path", "openapi.json", "--output-path", "client", "--meta", "setup"),
        *("--config", str(ROOT / "api" / "client.yaml")),
        directory=folder,
    )
    assert "WARNING" not in said, said
    (folder / "program.py").write_text(PROGRAM)
    return folder


def test_every_operation_is_there(generated: Path) -> None:
    document = json.loads((generated / "openapi.json").read_text())
    operations = {
        operation["operationId"]
        for methods in document["paths"].values()
        for operation in methods.values()
    }
    modules = {path.stem for path in (generated / "client/managed_client/api").glob("*/*.py")}
    assert modules - {"__init__"} == operations
    assert (generated / "client/managed_client/py.typed").exists()


def test_a_program_over_it_is_typed_strictly(generated: Path) -> None:
    run(
        "mypy",
        *("--strict", "--cache-dir", str(generated / "cache"), "program.py"),
        directory=generated,
        MYPYPATH=str(generated / "client"),
    )


def test_the_program_works_against_the_api(
    generated: Path, live: ManagedClient, bench: ApiBench
) -> None:
    bench.add_server("one")
    bench.add_server("two")
    address = live.base_url
    table = f"name,address,host_key\nthree,192.0.2.1,{new_key_pair().public_key}\n"
    command = (sys.executable, "program.py", address, bench.token, table)
    said = run(*command, directory=generated, PYTHONPATH=str(generated / "client"))
    listed, job, problem, bulk, enrolled = said.splitlines()
    (made,) = bench.installation.queue.find()
    assert listed == "one active one"
    assert job == f"{made.job_id} queued True"
    assert problem.startswith(f"409 server-busy Wait for job {made.job_id}")
    assert bulk == "1 1"
    assert enrolled == "['three']"
