"""What operators are given holds together: guides, units, compose files."""

from __future__ import annotations

import re
import shutil
import subprocess
from itertools import combinations
from pathlib import Path
from typing import Any

import pytest
import yaml
from pydantic import SecretStr

from managed.domain.jobs import HELD_IN_A_PAUSE, JobKind
from managed.settings import MAY_STAND_IN_A_FILE, Settings
from tests.support.compose import (
    MAIN_FILE,
    SECOND_FILE,
    SECOND_FILES_OWN,
    second_file_without,
)

ROOT = Path(__file__).parents[2]
_ROW = re.compile(r"^\| `MANAGED_(\w+)` \| (?:`(.*)`)? ?\| (.*) \|$", re.MULTILINE)


def text_of(value: object) -> str:
    if isinstance(value, SecretStr):
        return value.get_secret_value()
    return "" if value is None else f"{value:g}" if isinstance(value, float) else str(value)


def test_the_guide_has_every_setting_with_its_default() -> None:
    guide = (ROOT / "docs" / "guides" / "operations.md").read_text()
    shown = {name.lower(): (default, text) for name, default, text in _ROW.findall(guide)}
    fields = Settings.model_fields
    assert list(shown) == [name for name in fields if name in shown], "in the order of the settings"
    assert {name: default for name, (default, _) in shown.items()} == {
        name: text_of(field.default) for name, field in fields.items()
    }
    in_files = {name for name, (_, text) in shown.items() if text.startswith("*file*")}
    assert in_files == MAY_STAND_IN_A_FILE


def test_the_guide_says_which_jobs_a_pause_holds() -> None:
    guide = (ROOT / "docs" / "guides" / "windows.md").read_text()
    rows = re.findall(r"^\| (`[a-z`, -]+`) \| (.*) \|$", guide, re.MULTILINE)
    said = {kind: text for kinds, text in rows for kind in re.findall(r"`([a-z-]+)`", kinds)}
    assert set(said) == set(JobKind)
    assert {kind for kind, text in said.items() if "refused" in text} == HELD_IN_A_PAUSE


@pytest.fixture(scope="module")
def units(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The units as they would be installed, with programs that are here."""
    directory = tmp_path_factory.mktemp("units")
    true = shutil.which("true")
    for unit in (ROOT / "deploy" / "systemd").glob("*.service"):
        text = re.sub(r"^(Exec\w+)=\S+", rf"\1={true}", unit.read_text(), flags=re.MULTILINE)
        (directory / unit.name).write_text(text)
    return directory


@pytest.mark.parametrize("name", ["migrate", "gateway", "api", "worker@1", "clock"])
def test_systemd_finds_nothing_wrong_with_a_unit(units: Path, name: str) -> None:
    template = units / f"managed-{name.split('@')[0]}{'@' if '@' in name else ''}.service"
    unit = units / f"managed-{name}.service"
    if not unit.exists():
        shutil.copy(template, unit)
    done = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", str(unit)],
        env={"SYSTEMD_UNIT_PATH": f"{units}:", "PATH": "/usr/bin:/bin"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")


def unit_settings(text: str) -> set[str]:
    return set(re.findall(r"MANAGED_(\w+)=", text))


def variables(name: str) -> set[str]:
    """Those by which the setting can be given, without their prefix."""
    return {name.upper(), *([f"{name.upper()}_FILE"] if name in MAY_STAND_IN_A_FILE else [])}


def test_units_and_compose_files_set_only_what_is_a_setting() -> None:
    known = set().union(*map(variables, Settings.model_fields))
    for file in (ROOT / "deploy" / "systemd").iterdir():
        assert not unit_settings(file.read_text()) - known, file.name
    assert not unit_settings((ROOT / "Dockerfile").read_text()) - known
    for name, service in compose()["services"].items():
        set_there = {key.removeprefix("MANAGED_") for key in service.get("environment", {})}
        # uvicorn's own, which it reads itself.
        assert not set_there - known - {"FORWARDED_ALLOW_IPS"}, name


NOT_FOR_CONTAINERS = {
    *("api_url", "token"),  # the command line's, on other machines
    *("listen_port", "gateway_socket"),  # within a container nothing else listens
    # Nodes' and the lab's: virtual machines, and what they are made of.
    *("images_dir", "libvirt_uri", "acceleration", "debian_mirror", "debian_security_mirror"),
    *("apt_proxy", "lab_apt_proxy"),
}


OF_ONE_PART = {
    "listen_address": "api",
    "gateway_listen": "gateway",
    "gateway_certificate_file": "gateway",
    "gateway_key_file": "gateway",
}
PARTS = ("migrate", "api", "worker-1", "worker-2", "clock")


@pytest.mark.parametrize("name", [n for n in Settings.model_fields if n not in NOT_FOR_CONTAINERS])
def test_compose_sets_a_setting_of_the_service_or_hands_it_on(name: str) -> None:
    of_image = unit_settings((ROOT / "Dockerfile").read_text().partition("\nENV ")[2])
    for part in (OF_ONE_PART[name],) if name in OF_ONE_PART else PARTS:
        of_part = {
            key.removeprefix("MANAGED_") for key in compose()["services"][part]["environment"]
        }
        assert variables(name) & (of_part | of_image), part


def test_the_command_line_on_a_host_of_units_has_what_a_unit_has() -> None:
    folder = ROOT / "deploy" / "systemd"
    unit = (folder / "managed-migrate.service").read_text()
    secrets = re.findall(r"^LoadCredential=(\w+):/etc/managed/secrets/\1$", unit, re.MULTILINE)
    command = (folder / "managed-command").read_text()
    assert secrets
    assert f"for name in {' '.join(secrets)}; do" in command


def compose(second_file: dict[str, Any] | None = None) -> dict[str, Any]:
    """What Compose makes of its two files, as far as it matters here."""
    merged: dict[str, Any] = {"services": {}}
    for document in (
        yaml.safe_load((ROOT / MAIN_FILE).read_text()),
        second_file or yaml.safe_load((ROOT / SECOND_FILE).read_text()),
    ):
        for service, described in document["services"].items():
            there = merged["services"].setdefault(service, {})
            needed = {**there.get("depends_on", {}), **described.get("depends_on", {})}
            there.update({**described, "depends_on": needed})
    return merged


WAYS_OF_LEAVING_OUT = [
    left_out
    for number in range(1, len(SECOND_FILES_OWN) + 1)
    for left_out in combinations(SECOND_FILES_OWN, number)
]


@pytest.mark.parametrize("left_out", WAYS_OF_LEAVING_OUT, ids="+".join)
def test_what_is_elsewhere_can_be_left_out(left_out: tuple[str, ...]) -> None:
    second_file = second_file_without(left_out)
    services = compose(second_file)["services"]
    assert set(services) == set(compose()["services"]) - set(left_out)
    for name, service in services.items():
        assert not set(service["depends_on"]) - set(services), name
        assert service["image"], name
    assert bool(second_file["services"]) == (left_out != SECOND_FILES_OWN)


@pytest.mark.parametrize("name", list(compose()["services"]))
def test_every_container_is_without_rights_and_says_how_it_is(name: str) -> None:
    service = compose()["services"][name]
    assert service["read_only"]
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert "user" not in service, "the images' own users have no rights"
    assert name == "migrate" or service["healthcheck"]["test"][0] == "CMD"
    # Where a secret belongs a file is named, and no address holds a login.
    for key, value in service.get("environment", {}).items():
        assert not re.search(r"(KEY|TOKEN|PASSWORD|URL)$", key) or "@" not in str(value), key
        assert not key.endswith(("_ACCESS_KEY", "_SECRET_KEY", "DATABASE_URL", "BROKER_URL")), key


@pytest.mark.parametrize(
    "file", ["Dockerfile", "deploy/docker/postgresql.Dockerfile", "deploy/docker/broker.Dockerfile"]
)
def test_images_run_as_a_user_of_their_own_on_a_base_that_can_be_chosen(file: str) -> None:
    lines = (ROOT / file).read_text().splitlines()
    assert any(line.startswith("ARG BASE=") for line in lines)
    assert [line for line in lines if line.startswith("FROM ")][-1] == "FROM ${BASE}"
    users = [line.split()[1] for line in lines if line.startswith("USER ")]
    assert users
    assert users[-1] != "root"
