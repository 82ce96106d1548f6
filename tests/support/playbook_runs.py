"""What tests of playbooks on cells have in common."""

from __future__ import annotations

import json
import shlex
import subprocess
from pathlib import Path
from typing import Any, Protocol

from managed.domain.errors import Json
from managed.lab.cells import Cell
from managed.ports import PlaybookReport

PLAYBOOKS = Path(__file__).parents[2] / "playbooks"
HARDEN_FILES = PLAYBOOKS / "roles" / "harden" / "files"
SSHD_SETTINGS = "etc/ssh/sshd_config.d/00-managed.conf"
TRIAL = "/usr/local/lib/managed/hardening-trial"


class Run(Protocol):
    """Runs a playbook on a cell with the given variables."""

    def __call__(self, playbook: str, cell: Cell, **variables: Json) -> PlaybookReport: ...


class Harden(Protocol):
    """Runs harden.yml on a cell with the given variables."""

    def __call__(self, cell: Cell, **variables: Json) -> PlaybookReport: ...


class Remote(Protocol):
    """Runs a shell command on a cell over a new connection and returns what it printed."""

    def __call__(self, cell: Cell, command: str, given: str = "") -> str: ...


def look(remote: Remote, cell: Cell, script: str, *arguments: str) -> dict[str, Any]:
    """What a script of the harden role sees on the cell, asked as the role asks it."""
    command = shlex.join(["/usr/bin/python3", "-", *arguments])
    seen: dict[str, Any] = json.loads(remote(cell, command, (HARDEN_FILES / script).read_text()))
    return seen


def serve_command(unit: str, port: int) -> str:
    """A command that starts a web server on all addresses and waits until it answers."""
    return (
        f"systemd-run --quiet --unit={unit} python3 -m http.server {port} && timeout 20 sh -c "
        f"'until curl -s -o /dev/null http://127.0.0.1:{port}/; do sleep 0.1; done'"
    )


def answers(cell: Cell, port: int) -> bool:
    """Does an HTTP server of the cell answer from outside?"""
    address = f"http://{cell.address}:{port}/"
    command = ["curl", "--silent", "--max-time", "2", "--output", "/dev/null", address]
    return subprocess.run(command, check=False).returncode == 0


def text_of(path: Path) -> str:
    return path.read_text(errors="replace") if path.exists() else ""


def ways_in(cell: Cell, user: str) -> str:
    """The ways to log in that the cell's running sshd offers this user, such as
    "publickey,password".
    """
    options = ("PreferredAuthentications=none", "StrictHostKeyChecking=no",
               "UserKnownHostsFile=/dev/null", "LogLevel=ERROR")  # fmt: skip
    refused = subprocess.run(
        ["ssh", "-F", "none", "-p", str(cell.port),
         *(word for option in options for word in ("-o", option)), f"{user}@{cell.address}"],
        stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False, timeout=60,
    ).stderr  # fmt: skip
    return refused.rpartition("Permission denied (")[2].partition(")")[0]
