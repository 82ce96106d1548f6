"""What a run of ansible-playbook finds in its private directory, and its environment. All pure."""

from __future__ import annotations

import json
import shlex
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from ansible_runner.utils import get_callback_dir

from managed.domain.connections import Endpoint
from managed.domain.errors import Json
from managed.domain.secrets import Secret

HOST_NAME: Final = "server"
"""The server's name in the inventory and in our known_hosts; its address is a variable."""

_CONNECT_TIMEOUT: Final = 15
_ALIVE_INTERVAL: Final = 10


def private_files(
    directory: Path,
    endpoint: Endpoint,
    variables: Mapping[str, Json],
    secrets: Mapping[str, Secret],
) -> dict[str, str]:
    """Name to content of every file that the private directory holds; all of them mode 0600."""
    return {
        "inventory/hosts.json": json.dumps(inventory(directory, endpoint)),
        "known_hosts": f"{HOST_NAME} {endpoint.host_key}\n",
        "identity": endpoint.private_key.reveal().rstrip("\n") + "\n",
        "env/extravars": extra_variables(variables, secrets),
        "env/settings": json.dumps(
            {"suppress_output_file": True, "suppress_ansible_output": True, "pexpect_timeout": 0.2}
        ),
    }


def inventory(directory: Path, endpoint: Endpoint) -> dict[str, Json]:
    host: dict[str, Json] = {
        "ansible_host": endpoint.address,
        "ansible_port": endpoint.port,
        "ansible_user": endpoint.user,
        "ansible_ssh_private_key_file": str(directory / "identity"),
        "ansible_ssh_args": shlex.join(ssh_arguments(directory)),
    }
    return {"all": {"hosts": {HOST_NAME: host}}}


def ssh_arguments(directory: Path) -> tuple[str, ...]:
    """Options for ssh: nothing from this machine's configuration, no trust but in our own file.

    The shared connection lives in the private directory; its master is ended with the run.
    """
    options = {
        "UserKnownHostsFile": str(directory / "known_hosts"),
        "GlobalKnownHostsFile": "/dev/null",
        "HostKeyAlias": HOST_NAME,
        "StrictHostKeyChecking": "yes",
        "UpdateHostKeys": "no",
        "CheckHostIP": "no",
        "IdentitiesOnly": "yes",
        "IdentityAgent": "none",
        "PreferredAuthentications": "publickey",
        "ConnectTimeout": str(_CONNECT_TIMEOUT),
        "ServerAliveInterval": str(_ALIVE_INTERVAL),
        "ServerAliveCountMax": "3",
        "ControlMaster": "auto",
        "ControlPersist": "30s",
        "ControlPath": str(directory / "mux"),
    }
    arguments = ["-F", "none"]
    for name, value in options.items():
        arguments += ["-o", f"{name}={value}"]
    return tuple(arguments)


def extra_variables(variables: Mapping[str, Json], secrets: Mapping[str, Secret]) -> str:
    """The variables as YAML in which every text is marked unsafe: Ansible never evaluates
    template braces in them, whoever wrote them.
    """
    values = {**variables, **{name: secret.reveal() for name, secret in secrets.items()}}
    return _unsafe_yaml(values) + "\n"


def environment(directory: Path, artifact_directory: str, playbooks: Path) -> dict[str, str]:
    """All that ansible-playbook gets; the worker's own environment may hold secrets and stays out.

    `PYTHONPATH` lets the supervisor find this package; it does not hand it on.
    """
    program_directory = Path(sys.executable).parent
    return {
        "PATH": f"{program_directory}:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
        "HOME": str(directory),
        "TMPDIR": str(directory),
        "LANG": "C.UTF-8",
        "LC_ALL": "C.UTF-8",
        "TERM": "dumb",
        "PYTHONPATH": str(Path(__file__).parents[3]),
        "ANSIBLE_CONFIG": str(playbooks / "ansible.cfg"),
        "ANSIBLE_HOME": str(directory / "ansible"),
        "ANSIBLE_NOCOLOR": "1",
        "ANSIBLE_HOST_KEY_CHECKING": "True",
        "ANSIBLE_RETRY_FILES_ENABLED": "False",
        "ANSIBLE_CALLBACK_PLUGINS": str(get_callback_dir()),
        "ANSIBLE_STDOUT_CALLBACK": "awx_display",
        "AWX_ISOLATED_DATA_DIR": artifact_directory,
        "RUNNER_OMIT_EVENTS": "False",
        "RUNNER_ONLY_FAILED_EVENTS": "False",
    }


def supervised(command: list[str], control_socket: Path, directory: Path) -> list[str]:
    """The command run by our supervisor, which does nothing until it is told to go."""
    supervisor = [sys.executable, "-m", "managed.drivers.ansible.supervisor"]
    return [*supervisor, str(control_socket), str(directory), *command]


def _unsafe_yaml(value: Json | Mapping[str, Json]) -> str:
    if isinstance(value, str):
        return f"!unsafe {_quoted(value)}"
    if isinstance(value, Mapping):
        items = (f"{_quoted(key)}: {_unsafe_yaml(item)}" for key, item in value.items())
        return "{" + ", ".join(items) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(_unsafe_yaml(item) for item in value) + "]"
    return json.dumps(value)


def _quoted(text: str) -> str:
    """A double-quoted YAML scalar; JSON's form, but for characters beyond 16 bits."""
    return "".join(
        json.dumps(character)[1:-1] if ord(character) <= 0xFFFF else f"\\U{ord(character):08x}"
        for character in text
    ).join('""')
