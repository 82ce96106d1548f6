"""The command line without a service: misuse, help, and what it says when nothing is there."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from managed.cli import REFUSED, UNAVAILABLE, USAGE, run
from managed.lab.ports import free_port
from managed.settings import settings


@pytest.fixture
def state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """An empty state folder, which this process's settings name."""
    monkeypatch.setenv("MANAGED_STATE_DIR", str(tmp_path))
    monkeypatch.setenv("MANAGED_LISTEN_PORT", str(free_port()))
    settings.cache_clear()
    yield tmp_path
    settings.cache_clear()


@pytest.fixture
def token(state: Path) -> None:
    (state / "keys").mkdir()
    (state / "keys" / "api-token").write_text("a-token\n")


def test_help_names_every_group(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["--help"]) == 0
    said = capsys.readouterr().out
    for word in ("serve", "demo", "doctor", "servers", "jobs", "snapshots", "lab", "cells"):
        assert word in said


@pytest.mark.parametrize("arguments", [["jobs", "frob"], ["servers", "show"], ["jobs", "--odd"]])
def test_misuse_is_one_sentence(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert run(arguments) == USAGE
    said = capsys.readouterr().err
    assert said.startswith("error: ")
    assert "Traceback" not in said


def test_without_a_token_it_says_how_to_start_the_service(
    state: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["servers", "list"]) == REFUSED
    assert "make serve" in capsys.readouterr().err


@pytest.mark.usefixtures("token")
def test_without_a_service_the_exit_status_says_so(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["jobs", "list"]) == UNAVAILABLE
    assert "does not answer" in capsys.readouterr().err


@pytest.mark.usefixtures("token")
def test_errors_are_json_when_json_is_asked_for(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["jobs", "list", "--json"]) == UNAVAILABLE
    error = json.loads(capsys.readouterr().err)["error"]
    assert error["detail"]
    assert error["hint"]


def test_parameter_without_a_value_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["jobs", "submit", "shop", "rescue", "-p", "hours"]) == REFUSED
    assert "NAME=VALUE" in capsys.readouterr().err


def test_images_that_are_not_built_are_listed_as_missing(
    state: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["images", "list", "--json"]) == 0
    rows = {row["name"]: row["status"] for row in json.loads(capsys.readouterr().out)["items"]}
    assert rows == dict.fromkeys(("rescue", "debian-12", "debian-13", "restic"), "missing")


def test_doctor_tells_of_each_check_and_fails_on_what_is_required(
    state: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("managed.lab.doctor._DISK_GIB", 10**9)
    assert run(["doctor", "--json"]) == REFUSED
    document = json.loads(capsys.readouterr().out)
    checks = {check["name"]: check for check in document["checks"]}
    assert not document["ok"]
    assert checks["disk space"]["status"] == "missing"
    assert "MANAGED_STATE_DIR" in checks["disk space"]["remedy"]
    assert {"Python", "qemu-system-x86_64", "libvirtd", "permission", "KVM"} <= set(checks)
