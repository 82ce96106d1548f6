"""A person's session against a real OpenSSH server."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from managed.domain.connections import Endpoint
from managed.drivers.ssh.keys import new_key_pair
from managed.lab.interactive_ssh import answered_ssh, interactive_ssh
from tests.support.local_sshd import local_sshd

pytestmark = pytest.mark.integration


def test_logs_in_with_the_stored_key_and_leaves_none_behind(tmp_path: Path) -> None:
    runtime = tmp_path / "run"
    with local_sshd(tmp_path) as endpoint:
        assert interactive_ssh(endpoint, ["exit", "7"], runtime) == 7
    assert list(runtime.iterdir()) == []


def test_what_a_command_answers_is_taken_apart_from_what_it_complains_of(tmp_path: Path) -> None:
    runtime = tmp_path / "run"
    with local_sshd(tmp_path) as endpoint:
        done = answered_ssh(endpoint, ["echo one; echo two >&2; exit 7"], runtime)
    assert (done.returncode, done.stdout, done.stderr) == (7, "one\n", "two\n")
    assert list(runtime.iterdir()) == []


def test_another_host_key_than_the_pinned_one_is_refused(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    with local_sshd(tmp_path) as endpoint:
        other: Endpoint = replace(endpoint, host_key=new_key_pair().public_key)
        assert interactive_ssh(other, ["true"], tmp_path / "run") == 255
    assert "verification failed" in capfd.readouterr().err
