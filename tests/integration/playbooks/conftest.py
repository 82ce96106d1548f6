"""Playbooks run on cells."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator

import pytest

from managed.domain.errors import Json
from managed.drivers.ansible.playbooks import AnsiblePlaybooks
from managed.drivers.ssh.keys import public_key_of
from managed.lab.cells import Cell
from managed.ports import PlaybookReport
from tests.support.playbook_runs import PLAYBOOKS, Harden, Remote, Run
from tests.support.runtime import short_directory


@pytest.fixture(scope="session")
def run() -> Iterator[Run]:
    """Runs a playbook on a cell with the given variables."""
    with short_directory() as runtime:
        driver = AnsiblePlaybooks(PLAYBOOKS, runtime)

        def run_playbook(playbook: str, cell: Cell, **variables: Json) -> PlaybookReport:
            return driver.run(
                playbook,
                cell.endpoint,
                variables=variables,
                secrets={},
                emit=lambda _name, _data: None,
                register_child=lambda _pid: None,
                timeout=300,
            )

        yield run_playbook


@pytest.fixture(scope="session")
def harden(run: Run) -> Harden:
    """Runs harden.yml on a cell with the given variables."""

    def run_harden(cell: Cell, **variables: Json) -> PlaybookReport:
        return run("harden", cell, harden_our_key=public_key_of(cell.private_key), **variables)

    return run_harden


@pytest.fixture(scope="session")
def remote(tmp_path_factory: pytest.TempPathFactory) -> Remote:
    """Runs a shell command on a cell over a new connection, input given, and returns its output."""
    directory = tmp_path_factory.mktemp("remote")

    def run_command(cell: Cell, command: str, given: str = "") -> str:
        identity = directory / f"{cell.name}.key"
        identity.touch(mode=0o600)
        identity.write_text(cell.private_key.reveal())
        known = directory / f"{cell.name}.known"
        known.write_text(f"cell {cell.host_key}\n")
        options = (f"UserKnownHostsFile={known}", "HostKeyAlias=cell", "IdentitiesOnly=yes",
                   "BatchMode=yes", "ConnectTimeout=5")  # fmt: skip
        done = subprocess.run(
            ["ssh", "-F", "none", "-i", str(identity), "-p", str(cell.port),
             *(word for option in options for word in ("-o", option)),
             f"root@{cell.address}", command],
            input=given, capture_output=True, text=True, check=False, timeout=120,
        )  # fmt: skip
        if done.returncode != 0:
            raise AssertionError(f"{command!r} ended with {done.returncode}: {done.stderr}")
        return done.stdout

    return run_command
