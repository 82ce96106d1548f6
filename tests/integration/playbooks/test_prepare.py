"""A server made ready for the other playbooks and scripts."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from managed.domain.errors import LoginRefused, PlaybookFailed
from managed.domain.secrets import Secret
from managed.drivers.ansible.playbooks import AnsiblePlaybooks
from managed.lab.cells import Cell
from tests.support.cells import StartCell
from tests.support.local_sshd import new_key
from tests.support.playbook_runs import PLAYBOOKS, Remote, Run
from tests.support.runtime import short_directory

WHO_UPGRADES = PLAYBOOKS / "roles/prepare/files/who_upgrades.sh"
"""Prints who installs updates; the playbook runs it before it changes anything."""

pytestmark = [pytest.mark.cell, pytest.mark.timeout(600)]


@pytest.fixture(scope="module")
def cell(start_test_cell: StartCell) -> Cell:
    return start_test_cell("prepare")


def test_prepare_is_idempotent_says_what_it_found_and_takes_over_only_when_it_is_told_to(
    cell: Cell, run: Run, remote: Remote
) -> None:
    first = run("prepare", cell)

    assert first.changed > 0
    assert first.facts["distribution"] == "Debian"
    assert first.facts["unattended_upgrades"] == "absent"
    assert first.facts["python_apt"] is True
    needrestart = (cell.root_dir / "etc/needrestart/conf.d/managed.conf").read_text()
    assert "^managed-run-" in needrestart
    assert (cell.root_dir / "var/lib/managed").stat().st_mode & 0o777 == 0o700

    _upgrades_itself(cell)
    second = run("prepare", cell)
    assert second.changed == 0
    assert second.facts["unattended_upgrades"] == "enabled"

    taken = run("prepare", cell, prepare_take_over_upgrades=True)
    assert taken.facts["unattended_upgrades"] == "taken-over"
    assert run("prepare", cell, prepare_take_over_upgrades=True).changed == 0

    given = run("prepare", cell, prepare_give_back_upgrades=True)
    assert given.facts["unattended_upgrades"] == "enabled"
    assert remote(cell, "sh", WHO_UPGRADES.read_text()).strip() == "enabled"


def _upgrades_itself(cell: Cell) -> None:
    program = cell.root_dir / "usr/bin/unattended-upgrade"
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    periodic = cell.root_dir / "etc/apt/apt.conf.d/20auto-upgrades"
    periodic.write_text('APT::Periodic::Unattended-Upgrade "1";\n')


def test_a_restic_that_is_too_old_is_refused(cell: Cell, run: Run, tmp_path: Path) -> None:
    restic = tmp_path / "restic"
    restic.write_text("#!/bin/sh\necho restic 0.14.0 compiled with go1.19 on linux/amd64\n")

    with pytest.raises(PlaybookFailed, match="older than"):
        run("prepare", cell, prepare_restic=str(restic))


def test_a_refused_login_is_told_apart(cell: Cell, tmp_path: Path) -> None:
    new_key(tmp_path / "stranger")
    endpoint = dataclasses.replace(
        cell.endpoint, private_key=Secret((tmp_path / "stranger").read_text())
    )
    with short_directory() as runtime, pytest.raises(LoginRefused):
        AnsiblePlaybooks(PLAYBOOKS, runtime).run(
            "prepare", endpoint, variables={}, secrets={}, emit=lambda _n, _d: None,
            register_child=lambda _pid: None, timeout=60,
        )  # fmt: skip
