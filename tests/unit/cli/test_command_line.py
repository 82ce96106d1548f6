"""The command line without a service: misuse, help, and what it says when nothing is there."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from pathlib import Path

import pytest
import typer
from typer.core import TyperCommand, TyperGroup

from managed.cli import REFUSED, UNAVAILABLE, USAGE, app, following, run
from managed.cli.output import moment
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
    monkeypatch.setattr("managed.lab.disk_space.NEEDED_GIB", 10**9)
    assert run(["doctor", "--json"]) == REFUSED
    document = json.loads(capsys.readouterr().out)
    checks = {check["name"]: check for check in document["checks"]}
    assert not document["ok"]
    assert checks["disk space"]["status"] == "missing"
    assert "MANAGED_STATE_DIR" in checks["disk space"]["remedy"]
    assert {"Python", "qemu-system-x86_64", "libvirtd", "permission", "KVM"} <= set(checks)
    assert {"ip", "signature check", "dpkg-deb", "ansible-playbook"} <= set(checks)


def commands(
    group: TyperCommand | TyperGroup, *path: str
) -> Iterator[tuple[tuple[str, ...], TyperCommand]]:
    """Every command below this one that does something, with the words that lead there."""
    if isinstance(group, TyperGroup):
        for name, command in group.commands.items():
            yield from commands(command, *path, name)
    else:
        yield path, group


def test_every_command_takes_json() -> None:
    found = dict(commands(typer.main.get_command(app)))
    assert len(found) >= 20
    without = [
        " ".join(path)
        for path, command in found.items()
        if not any("--json" in parameter.opts for parameter in command.params)
    ]
    assert without == []


@pytest.mark.usefixtures("token")
@pytest.mark.parametrize("words", [["lab", "down"]])
def test_with_json_nobody_is_asked(
    words: list[str], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO("y\n"))
    assert run([*words, "--json"]) == REFUSED
    printed = capsys.readouterr()
    assert printed.out == ""
    assert "--yes" in json.loads(printed.err)["error"]["hint"]


def test_lab_down_says_what_it_ended(
    state: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("MANAGED_LIBVIRT_URI", "test:///default")
    assert run(["lab", "down", "--yes"]) == 0
    assert "no server was running" in capsys.readouterr().out
    assert run(["lab", "down", "--yes", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {"ended": []}


def test_lab_down_does_not_say_down_when_libvirt_does_not_answer(
    state: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (state / "servers").mkdir()
    monkeypatch.setenv("MANAGED_LIBVIRT_URI", f"qemu+unix:///system?socket={state}/none")
    assert run(["lab", "down", "--yes"]) == UNAVAILABLE
    assert capsys.readouterr().out == ""


def test_the_end_of_a_demo_as_json_is_json_alone(
    state: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (state / "demo" / "state").mkdir(parents=True)
    assert run(["demo", "--down", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {"ok": True}
    assert not (state / "demo" / "state").exists()


def test_a_demo_without_room_says_so_in_a_sentence(
    state: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("managed.lab.disk_space.NEEDED_GIB", 10**9)
    assert run(["demo", "--json"]) == REFUSED
    printed = capsys.readouterr()
    assert json.loads(printed.out)["ok"] is False
    assert f"{10**9} GiB are needed" in printed.err


@pytest.mark.usefixtures("state")
def test_ssh_without_an_installation_says_so(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["lab", "ssh", "shop"]) == REFUSED
    said = " ".join(capsys.readouterr().err.split())
    assert "there is no installation at" in said
    assert "make serve" in said


def test_a_shell_has_no_json(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["lab", "ssh", "shop", "--json"]) == REFUSED
    assert "uptime" in json.loads(capsys.readouterr().err)["error"]["hint"]


def test_a_wrong_setting_is_a_sentence(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("MANAGED_LISTEN_PORT", "abc")
    settings.cache_clear()
    assert run(["jobs", "list"]) == REFUSED
    settings.cache_clear()
    assert "MANAGED_LISTEN_PORT" in capsys.readouterr().err


@pytest.mark.parametrize(
    "time", ["2026-12-01T01:00:00Z", "2026-12-01T02:00:00+01:00", "2026-11-30T20:00:00.9-05:00"]
)
def test_times_are_said_in_utc(time: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TZ", "Asia/Kolkata")
    assert moment(time) == "2026-12-01 01:00:00 UTC"
    assert moment(None) == ""


def test_what_a_job_ended_with_is_text(capsys: pytest.CaptureFixture[str]) -> None:
    ended = {
        "kind": "patch", "status": "failed", "started_at": None, "finished_at": None,
        "created_at": "2026-11-23T02:00:00Z", "warnings": ["\\[/nope]\x1b[5n"],
        "error": {"detail": "[/red]\x1b]0;title\x07", "hint": "\\[/]"},
    }  # fmt: skip
    following.show_end(ended)
    said = capsys.readouterr().out
    assert "\x1b" not in said
    assert "\\[/nope][5n" in said
    assert "[/red]]0;title" in said
