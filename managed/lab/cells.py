"""Cells: containers with their own systemd, sshd, apt and dpkg, for tests of many servers.

A cell is a systemd-nspawn container over an overlay of a shared root filesystem. By default it
shares the host's network, its sshd listens on a loopback address of its own, and it has no
CAP_NET_ADMIN: what it did to a firewall would happen to the host's. An isolated cell has a network
namespace of its own, reached over a veth pair, where it may do all that; it has no way out.

Everything that a cell is made of stands below `<state_dir>/cells/<name>/`; its processes are those
of its control group. So any process can end it, also after the one that started it was killed.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from images.prerequisites import require_root, require_tools
from managed.domain.connections import Endpoint
from managed.domain.errors import CommandFailed, Conflict, NotFound
from managed.domain.secrets import Secret
from managed.domain.servers import checked_name
from managed.drivers.ssh.keys import new_key_pair
from managed.lab import cell_network, cell_processes
from managed.lab.cell_network import CellNetwork

_TOOLS: Final = {
    "systemd-nspawn": "systemd-container",
    "ip": "iproute2",
    "mount": "mount",
    "setsid": "util-linux",
}

# A systemd takes about ten inotify instances, and a host's usual limit is 128 for all of root's.
_INOTIFY_LIMIT: Final = Path("/proc/sys/fs/inotify/max_user_instances")
_INOTIFY_INSTANCES: Final = 8192


@dataclass(frozen=True)
class Cell:
    """A cell as it stands on disk, running or not. `root_dir` is its root filesystem while it
    runs, `upper_dir` all that it ever changed.
    """

    name: str
    network: CellNetwork
    base_root: Path
    directory: Path
    host_key: str
    private_key: Secret

    @property
    def address(self) -> str:
        return self.network.address

    @property
    def port(self) -> int:
        return self.network.port

    @property
    def endpoint(self) -> Endpoint:
        return Endpoint(self.address, self.port, "root", self.host_key, self.private_key)

    @property
    def root_dir(self) -> Path:
        return self.directory / "root"

    @property
    def upper_dir(self) -> Path:
        return self.directory / "upper"

    @property
    def is_running(self) -> bool:
        return bool(cell_processes.process_ids(self.group))

    @property
    def group(self) -> str:
        """The name of its control group, and of its machine: unique on this host."""
        return f"{self.name[:40]}-{self.network.identity}"


def start_cell(
    state_dir: Path,
    root: Path,
    name: str,
    *,
    address: str | None = None,
    isolated: bool = False,
    timeout: float = 60,
) -> Cell:
    """Boot the cell of this name, made when there is none, and wait until its sshd answers.

    `root` is what `build_cell_root` gave. Without `address` it gets one of its own. A cell that was
    stopped boots from its own overlay with its old keys; a running one is left as it is. Raises
    Conflict when it exists with another root or network, CommandFailed when it does not come up.
    """
    require_root()
    require_tools(_TOOLS)
    checked_name(name)
    directory = (state_dir / "cells" / name).resolve()
    network = cell_network.choose(str(directory), address, isolated)
    if (directory / "cell.json").exists():
        cell = load_cell(state_dir, name)
        wanted = (root.resolve(), network if address else cell.network)
        if (cell.base_root, cell.network) != wanted or cell.network.isolated != isolated:
            raise Conflict(f"the cell {name} exists with another root or network")
    else:
        cell = _make(directory, name, root.resolve(), network)
    if cell.is_running:
        return cell
    try:
        _boot(cell)
        _wait_for_ssh(cell, timeout)
    except BaseException:
        stop_cell(cell)
        raise
    return cell


def load_cell(state_dir: Path, name: str) -> Cell:
    """The cell of this name, running or stopped. NotFound when there is none."""
    directory = (state_dir / "cells" / name).resolve()
    try:
        document = json.loads((directory / "cell.json").read_text())
    except FileNotFoundError as error:
        raise NotFound(f"there is no cell named {name!r}") from error
    return Cell(
        name=name,
        network=CellNetwork(**document["network"]),
        base_root=Path(document["base_root"]),
        directory=directory,
        host_key=document["host_key"],
        private_key=Secret((directory / "login_key").read_text()),
    )


def list_cells(state_dir: Path) -> list[Cell]:
    """Every cell of this state directory, by name."""
    found = sorted((state_dir / "cells").glob("*/cell.json"))
    return [load_cell(state_dir, file.parent.name) for file in found]


def stop_cell(cell: Cell) -> None:
    """Pull the plug: end its processes, unmount its overlay, remove its network. It keeps its
    overlay and can be started again; stopped is fine.
    """
    cell_processes.end_all(cell.group)
    _unmount(cell.root_dir)
    cell_network.remove(cell.network)
    shutil.rmtree(Path("/run/systemd/nspawn/propagate") / cell.group, ignore_errors=True)
    (cell.directory / ".#root.lck").unlink(missing_ok=True)


def remove_cell(cell: Cell) -> None:
    """Stop the cell and delete all that it was."""
    stop_cell(cell)
    shutil.rmtree(cell.directory)


def cells_down(state_dir: Path) -> list[str]:
    """Remove every cell of this state directory, half-made ones too; returns their names."""
    names = []
    for cell in list_cells(state_dir):
        remove_cell(cell)
        names.append(cell.name)
    for half_made in (state_dir / "cells").glob("*"):
        _unmount(half_made / "root")
        shutil.rmtree(half_made)
    return names


def nspawn_command(cell: Cell) -> tuple[str, ...]:
    """systemd-nspawn's argv. Without a service manager that knows us: no registration, no unit."""
    if cell.network.isolated:
        network: tuple[str, ...] = (
            f"--network-namespace-path=/run/netns/{cell.network.namespace}",
            "--capability=CAP_NET_ADMIN,CAP_NET_RAW",
            "--resolv-conf=off",
        )
        # Its sysctls below /proc/sys/net are those of its own namespace.
        environment: tuple[str, ...] = ("env", "SYSTEMD_NSPAWN_API_VFS_WRITABLE=network")
    else:
        environment = ()
        network = ("--drop-capability=CAP_NET_ADMIN", "--resolv-conf=bind-host")
    return (
        *environment,
        "systemd-nspawn",
        "--quiet",
        "--register=no",
        "--keep-unit",
        "--settings=no",
        "--boot",
        f"--directory={cell.root_dir}",
        f"--machine={cell.group}",
        f"--hostname={cell.name}",
        "--timezone=off",
        "--link-journal=no",
        "--console=read-only",
        *network,
    )


def overlay_command(cell: Cell) -> tuple[str, ...]:
    layers = f"lowerdir={cell.base_root},upperdir={cell.upper_dir},workdir={cell.directory}/work"
    return ("mount", "-t", "overlay", "overlay", "-o", layers, str(cell.root_dir))


def _make(directory: Path, name: str, base_root: Path, network: CellNetwork) -> Cell:
    """Lay out a new cell; `cell.json` comes last, so that a half-made cell counts as none."""
    shutil.rmtree(directory, ignore_errors=True)
    directory.mkdir(parents=True, mode=0o700)
    host, login = new_key_pair(), new_key_pair()
    upper = directory / "upper"
    for path in (upper / "etc/ssh/sshd_config.d", upper / "root/.ssh"):
        path.mkdir(parents=True)
    (upper / "root").chmod(0o700)
    (upper / "root/.ssh").chmod(0o700)
    _write_private(upper / "etc/ssh/ssh_host_ed25519_key", host.private_key.reveal())
    (upper / "etc/ssh/ssh_host_ed25519_key.pub").write_text(host.public_key + "\n")
    _write_private(upper / "root/.ssh/authorized_keys", login.public_key + "\n")
    (upper / "etc/ssh/sshd_config.d/00-cell.conf").write_text(
        f"ListenAddress {network.address}\nPort {network.port}\n"
        "HostKey /etc/ssh/ssh_host_ed25519_key\n"
    )
    (upper / "etc/hostname").write_text(name + "\n")
    (upper / "etc/hosts").write_text(f"127.0.0.1 localhost\n{network.address} {name}\n")
    for part in ("work", "root"):
        (directory / part).mkdir()
    _write_private(directory / "login_key", login.private_key.reveal())
    document = {
        "network": network.__dict__,
        "base_root": str(base_root),
        "host_key": host.public_key,
    }
    unfinished = directory / ".cell.json"
    unfinished.write_text(json.dumps(document))
    unfinished.rename(directory / "cell.json")
    return Cell(name, network, base_root, directory, host.public_key, login.private_key)


def _boot(cell: Cell) -> None:
    stop_cell(cell)
    allow_many_cells(_INOTIFY_LIMIT)
    cell_network.add(cell.network)
    run_tool(overlay_command(cell))
    console = cell.directory / "console.log"
    with console.open("wb") as output:
        cell_processes.launch(cell.group, nspawn_command(cell), output)


def allow_many_cells(limit: Path) -> None:
    """Raise the host's limit of inotify instances when it is lower than many cells need; where
    that may not be written, a cell that does not come up any more says why on its console.
    """
    with suppress(OSError):
        if int(limit.read_text()) < _INOTIFY_INSTANCES:
            limit.write_text(f"{_INOTIFY_INSTANCES}\n")


def _wait_for_ssh(cell: Cell, timeout: float) -> None:
    deadline = time.monotonic() + timeout
    while not cell_network.ssh_answers(cell.network):
        if time.monotonic() > deadline or not cell.is_running:
            console = (cell.directory / "console.log").read_text(errors="replace")
            raise CommandFailed(
                f"the cell {cell.name} did not reach SSH",
                hint=_boot_hint(console),
                console=console[-2000:],
            )
        time.sleep(0.05)


def _boot_hint(console: str) -> str:
    if "Too many open files" in console:
        return f"Raise the limit in {_INOTIFY_LIMIT}, or end other cells."
    return ""


def _unmount(path: Path) -> None:
    while os.path.ismount(path):
        subprocess.run(("umount", str(path)), check=False, capture_output=True, timeout=60)
        if os.path.ismount(path):
            run_tool(("umount", "--lazy", str(path)))


def _write_private(path: Path, text: str) -> None:
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        file.write(text)


def run_tool(argv: tuple[str, ...]) -> None:
    """Run a short program of the host; raises CommandFailed with what it said."""
    done = subprocess.run(argv, check=False, capture_output=True, text=True, timeout=60)
    if done.returncode != 0:
        raise CommandFailed(
            f"{argv[0]} ended with status {done.returncode}: {done.stderr.strip()[-500:]}"
        )
