"""The lab's own libvirt daemon, for root on a machine without systemd's libvirt.

An ordinary user's libvirt starts its daemon by itself (`qemu:///session`); root's does not. So
root gets a private one. It runs in a mount namespace of its own, in which libvirt's fixed
directories are directories of this lab: the machine's configuration is never touched, and several
labs do not see each other's servers. QEMU runs as root there, without security driver.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import libvirt

from managed.domain.errors import HypervisorError, HypervisorUnavailable, MissingRequirement
from managed.drivers.libvirt.connection import Connection
from managed.drivers.libvirt.domain_xml import disk_paths

SESSION_URI: Final = "qemu:///session"
SYSTEM_URI: Final = "qemu:///system"
RUNTIME_DIRECTORY: Final = Path("/run/managed-lab")

_START_TIME_LIMIT: Final = 30.0
_STOP_TIME_LIMIT: Final = 20.0
_SYSTEM_DIRECTORIES: Final = ("/usr/local/sbin", "/usr/sbin", "/sbin")

# libvirt refuses to start without the accounts that it was built for, even when QEMU is to run as
# root. Where they are missing, the namespace gets them, and the machine does not.
_ACCOUNTS: Final[Mapping[str, Mapping[str, str]]] = {
    "passwd": {"libvirt-qemu": "x:64055:64055::/var/lib/libvirt:/usr/sbin/nologin"},
    "group": {"libvirt-qemu": "x:64055:", "kvm": "x:64056:", "libvirt": "x:64057:"},
}

# Mounts pairs of paths up to "--" and becomes the command after it. `exec` keeps the process
# id, which is the daemon's then.
_NAMESPACE_SCRIPT: Final = (
    'while [ "$1" != -- ]; do mount --bind "$1" "$2"; shift 2; done; shift; exec "$@"'
)

_CONFIGURATION: Final[Mapping[str, str]] = {
    "libvirtd.conf": (
        'auth_unix_rw = "none"\nauth_unix_ro = "none"\nunix_sock_rw_perms = "0700"\n'
        'log_filters = ""\nlog_level = 3\n'
    ),
    # One boot's console output per server: 2 MiB, and as much in one rotated part.
    "virtlogd.conf": "log_level = 3\nmax_size = 2097152\nmax_backups = 1\n",
    "qemu.conf": (
        'user = "root"\ngroup = "root"\nsecurity_driver = "none"\ndynamic_ownership = 0\n'
        "remember_owner = 0\nnamespaces = []\ncgroup_controllers = []\n"
        'stdio_handler = "logd"\n'
    ),
}


@dataclass(frozen=True)
class LabDirectories:
    """Where a private daemon lives. `state` is long-lived; `runtime` holds sockets and ids of
    processes, below /run because a socket's path has at most 107 bytes.
    """

    state: Path
    runtime: Path

    @property
    def socket(self) -> Path:
        return self.runtime / "libvirt-sock"

    @property
    def mounts(self) -> Mapping[Path, Path]:
        """The lab's paths to the fixed ones of libvirt that they stand in for."""
        return {
            **{self.state / name: Path("/etc") / name for name in _ACCOUNTS},
            self.state / "etc": Path("/etc/libvirt"),
            self.state / "lib": Path("/var/lib/libvirt"),
            self.state / "cache": Path("/var/cache/libvirt"),
            self.state / "log": Path("/var/log/libvirt"),
            self.runtime: Path("/run/libvirt"),
        }


def lab_directories(state_dir: Path) -> LabDirectories:
    state = state_dir.resolve()
    name = hashlib.sha256(str(state).encode()).hexdigest()[:12]
    return LabDirectories(state, RUNTIME_DIRECTORY / name)


def private_uri(directories: LabDirectories) -> str:
    return f"qemu+unix:///system?socket={directories.socket}"


def accounts_with(present: str, wanted: Mapping[str, str]) -> str:
    """The text of a passwd or group file with the entries added whose names it lacks."""
    names = {line.split(":", 1)[0] for line in present.splitlines()}
    missing = [f"{name}:{rest}\n" for name, rest in wanted.items() if name not in names]
    return present + ("" if present.endswith("\n") else "\n") + "".join(missing)


def namespace_command(directories: LabDirectories, command: tuple[str, ...]) -> tuple[str, ...]:
    """`command` in a mount namespace of its own where libvirt's directories are the lab's."""
    pairs = [str(path) for pair in directories.mounts.items() for path in pair]
    shell = ("sh", "-eu", "-c", _NAMESPACE_SCRIPT, "lab", *pairs, "--", *command)
    return ("unshare", "--mount", "--propagation", "private", "--", *shell)


def lab_uri(state_dir: Path, wanted: str = "") -> str:
    """The libvirt address of the lab on this machine.

    wanted: an address from the settings, such as SYSTEM_URI; it is taken as it is. Without, an
    ordinary user's own session, and for root the private daemon, which must be started.
    """
    if wanted:
        return wanted
    return private_uri(lab_directories(state_dir)) if os.geteuid() == 0 else SESSION_URI


def end_servers(uri: str, storage_dir: Path) -> list[str]:
    """Pull the plug of every running domain that has a disk in this directory or below it, so that
    it stays off; their names. HypervisorUnavailable when libvirt does not answer, HypervisorError
    when it refuses.
    """
    ended = []
    connection = Connection(uri)
    try:
        with connection.use() as opened:
            for domain in opened.listAllDomains(libvirt.VIR_CONNECT_LIST_DOMAINS_ACTIVE):
                if _has_disk_in(domain, storage_dir):
                    if domain.isPersistent():
                        domain.setAutostart(0)
                    domain.destroy()
                    ended.append(domain.name())
    finally:
        connection.close()
    return ended


def _has_disk_in(domain: libvirt.virDomain, storage_dir: Path) -> bool:
    """False also for a domain that has just ended by itself."""
    with suppress(libvirt.libvirtError):
        return any(disk.is_relative_to(storage_dir) for disk in disk_paths(domain.XMLDesc(0)))
    return False


class PrivateLibvirtd:
    """The private daemon (and its virtlogd) of one state directory; only for root."""

    def __init__(self, state_dir: Path) -> None:
        self.directories = lab_directories(state_dir)
        self.uri = private_uri(self.directories)

    def start(self) -> str:
        """Start it, or use the one that runs; returns its address.

        Raises MissingRequirement (not root, not installed), HypervisorUnavailable (no answer).
        """
        libvirtd, virtlogd = _installed("libvirtd"), _installed("virtlogd")
        if os.geteuid() != 0:
            raise MissingRequirement(
                "Only root needs and can have a private libvirt daemon",
                hint=f"Use {SESSION_URI}.",
            )
        self.directories.state.mkdir(parents=True, exist_ok=True, mode=0o711)
        with (self.directories.state / "start.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            self._prepare()
            self._ensure("virtlogd", virtlogd, self.directories.runtime / "virtlogd-sock")
            self._ensure("libvirtd", libvirtd, self.directories.socket)
        return self.uri

    def is_running(self) -> bool:
        return self._process_id("libvirtd") is not None and _answers(self.directories.socket)

    def stop(self) -> None:
        """End the daemon and its virtlogd, by their ids. Servers that run are left running."""
        for name in ("libvirtd", "virtlogd"):
            process_id = self._process_id(name)
            if process_id is not None:
                _end(process_id)
            self._id_file(name).unlink(missing_ok=True)

    def stop_everything(self) -> list[str]:
        """End every server of this lab, then the daemon; the servers' names. Nothing of it runs
        afterwards.
        """
        ended: list[str] = []
        if self.is_running():
            # What libvirt does not end, or did not say, is ended by its process below.
            with suppress(HypervisorUnavailable, HypervisorError):
                ended = end_servers(self.uri, Path("/"))
        self.stop()
        for id_file in (self.directories.runtime / "qemu").glob("*.pid"):
            guest = _recorded_process(id_file, f"guest={id_file.stem},")
            if guest is not None:
                _end(guest)
                ended.append(id_file.stem)
        shutil.rmtree(self.directories.runtime, ignore_errors=True)
        return ended

    def _prepare(self) -> None:
        for ours, fixed in self.directories.mounts.items():
            if fixed.name not in _ACCOUNTS:
                ours.mkdir(parents=True, exist_ok=True, mode=0o711)
                fixed.mkdir(parents=True, exist_ok=True)
        # A lab is no node: when it is started anew, none of its servers is.
        shutil.rmtree(self.directories.state / "etc" / "qemu" / "autostart", ignore_errors=True)
        for name, wanted in _ACCOUNTS.items():
            present = (Path("/etc") / name).read_text(encoding="utf-8")
            content = accounts_with(present, wanted)
            (self.directories.state / name).write_text(content, encoding="utf-8")
        for name, content in _CONFIGURATION.items():
            (self.directories.state / "etc" / name).write_text(content, encoding="ascii")

    def _ensure(self, name: str, program: str, listening: Path) -> None:
        if self._process_id(name) is None:
            # One that was killed may hold its socket a moment longer; only the new one's is to be
            # taken for an answer.
            listening.unlink(missing_ok=True)
            # Without a file for its id the daemon would contend for the machine's /run/<name>.pid;
            # with it, its command line also says whose it is.
            options = ("--config", f"/etc/libvirt/{name}.conf", "--pid-file", self._mark(name))
            log = self.directories.state / "log" / f"{name}.log"
            with log.open("ab") as output:
                # Not the short-lived child of the caller: it outlives the command that began it.
                started = subprocess.Popen(
                    namespace_command(self.directories, (program, *options)),
                    stdin=subprocess.DEVNULL,
                    stdout=output,
                    stderr=output,
                    start_new_session=True,
                    cwd="/",
                )
            self._id_file(name).write_text(f"{started.pid}\n", encoding="ascii")
        if not _wait_until(lambda: _answers(listening), _START_TIME_LIMIT):
            self.stop()
            raise HypervisorUnavailable(
                f"The lab's {name} does not answer",
                hint=f"See {self.directories.state / 'log' / name}.log.",
            )

    def _id_file(self, name: str) -> Path:
        return self.directories.runtime / f"managed-{name}.pid"

    def _process_id(self, name: str) -> int | None:
        return _recorded_process(self._id_file(name), self._mark(name))

    def _mark(self, name: str) -> str:
        return str(self.directories.runtime / f"{name}.pid")


def _installed(program: str) -> str:
    path = shutil.which(program) or shutil.which(program, path=":".join(_SYSTEM_DIRECTORIES))
    if path is None:
        package = "libvirt-daemon" if program == "libvirtd" else "libvirt-daemon-log"
        raise MissingRequirement(
            f"{program} is not installed",
            hint=f"Install the package {package} (Debian 12, Ubuntu 24.04: libvirt-daemon).",
        )
    return path


def _recorded_process(id_file: Path, word: str) -> int | None:
    """The process in a file of ours if it is alive and still the one meant: its command line
    holds `word`. A zombie has none.
    """
    try:
        process_id = int(id_file.read_text(encoding="ascii"))
        command_line = Path(f"/proc/{process_id}/cmdline").read_bytes().decode(errors="replace")
    except (OSError, ValueError):
        return None
    return process_id if word in command_line else None


def _answers(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe, suppress(OSError):
        probe.connect(str(path))
        return True
    return False


def _end(process_id: int) -> None:
    """TERM, and KILL when that does not help in time."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        with suppress(ProcessLookupError):
            os.kill(process_id, number)
        if _wait_until(lambda: _is_gone(process_id), _STOP_TIME_LIMIT):
            return


def _is_gone(process_id: int) -> bool:
    """Also true of a zombie; one of our own children is reaped."""
    with suppress(ChildProcessError):
        os.waitpid(process_id, os.WNOHANG)
    try:
        return not Path(f"/proc/{process_id}/cmdline").read_bytes()
    except OSError:
        return True


def _wait_until(condition: Callable[[], bool], seconds: float) -> bool:
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.05)
    return True
