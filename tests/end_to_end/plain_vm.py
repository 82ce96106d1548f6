"""A VM by plain QEMU, without libvirt or anything of the project's drivers, for tests of images
and scripts. Nothing in it reaches further than this machine's loopback: its network is
restricted to one forwarded SSH port.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import select
import signal
import socket
import subprocess
import tarfile
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from managed.server_scripts import script_source

IMAGES = Path(os.environ.get("MANAGED_IMAGES", Path(__file__).parents[2] / "var" / "images"))
COMMAND_LINE = "console=ttyS0 quiet panic=1 mitigations=off nokaslr tsc=reliable"
SECONDS_TO_BOOT = 240.0
SECONDS_FOR_SCRIPTS = 2400.0
RUN_DIRECTORY = "/var/lib/managed/runs/test"
NETWORK = "MODE=static\nADDRESS=10.0.2.15/24\nGATEWAY=10.0.2.2\nDNS=10.0.2.3\nHOSTNAME=rescue\n"
DIE_WITH_PARENT = ("setpriv", "--pdeathsig", "KILL")


def wait_until(condition: Any, seconds: float, what: str, pause: float = 0.2) -> Any:
    """Ask again and again until the condition gives something true; AssertionError when late."""
    deadline = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < deadline, f"not within {seconds} s: {what}"
        select.select([], [], [], pause)
    return found


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@dataclass(frozen=True)
class Keys:
    """A client key of the test, and the host key that a rescue session is to show."""

    directory: Path

    def make(self) -> Keys:
        for name in ("client", "host"):
            argv = ("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "", "-f")
            subprocess.run((*argv, str(self.directory / name)), check=True)
        return self

    def public(self, name: str) -> str:
        return (self.directory / f"{name}.pub").read_text().strip()

    def configuration_disk(self) -> Path:
        """The rescue session's configuration: a tar archive as a disk."""
        path = self.directory / "configuration.tar"
        files = {
            "ssh_host_ed25519_key": (self.directory / "host").read_bytes(),
            "authorized_keys": (self.public("client") + "\n").encode(),
            "network.env": NETWORK.encode(),
        }
        with tarfile.open(path, "w") as archive:
            for name, content in files.items():
                member = tarfile.TarInfo(name)
                member.size = len(content)
                archive.addfile(member, io.BytesIO(content))
        path.write_bytes(path.read_bytes() + bytes(-path.stat().st_size % 4096))
        return path


class Vm:
    """One running VM with SSH on a port of the loopback; the host key is pinned."""

    def __init__(self, directory: Path, keys: Keys, host_key: str) -> None:
        self.directory, self.keys = directory, keys
        self.port = free_port()
        self.known_hosts = directory / f"known_hosts.{self.port}"
        self.known_hosts.write_text(f"[127.0.0.1]:{self.port} {host_key}\n")
        self.console = directory / f"console.{self.port}.log"
        self.process: subprocess.Popen[bytes] | None = None

    def start(self, arguments: tuple[str, ...], memory: int) -> None:
        forward = f"user,id=net,restrict=on,hostfwd=tcp:127.0.0.1:{self.port}-:22"
        argv = (
            *("qemu-system-x86_64", "-nodefaults", "-display", "none", "-machine", "q35"),
            *("-accel", "tcg,thread=multi", "-cpu", "Westmere", "-smp", "2", "-m", str(memory)),
            *("-netdev", forward, "-device", "virtio-net-pci,netdev=net"),
            *("-device", "virtio-rng-pci", "-no-reboot", "-serial", f"file:{self.console}"),
            *arguments,
        )
        self.process = subprocess.Popen((*DIE_WITH_PARENT, *argv))

    def ssh_command(self, *options: str) -> tuple[str, ...]:
        return (
            *("ssh", "-F", "none", "-i", str(self.keys.directory / "client"), "-p", str(self.port)),
            *("-o", f"UserKnownHostsFile={self.known_hosts}", "-o", "StrictHostKeyChecking=yes"),
            *("-o", "IdentitiesOnly=yes", "-o", "BatchMode=yes", "-o", "ConnectTimeout=5"),
            *("-o", "ServerAliveInterval=15", "-o", "LogLevel=ERROR", *options, "root@127.0.0.1"),
        )

    def run(self, command: str, stdin: bytes = b"", seconds: float = 600) -> str:
        """Run a shell command; AssertionError with its output when it fails."""
        ended = subprocess.run(
            (*self.ssh_command(), command), input=stdin, capture_output=True, timeout=seconds
        )
        shown = (ended.stdout[-6000:] + ended.stderr[-3000:]).decode(errors="replace")
        assert ended.returncode == 0, f"{command[:200]}: status {ended.returncode}\n{shown}"
        return ended.stdout.decode("utf-8", "surrogateescape")

    def wait_for_ssh(self) -> None:
        def answers() -> bool:
            assert self.process is not None
            assert self.process.poll() is None, self.console_text()
            quick = subprocess.run((*self.ssh_command(), "true"), capture_output=True, timeout=60)
            assert b"HOST IDENTIFICATION HAS CHANGED" not in quick.stderr, quick.stderr
            return quick.returncode == 0

        try:
            wait_until(answers, SECONDS_TO_BOOT, "SSH answers")
        except AssertionError as late:
            raise AssertionError(f"{late}\n{self.console_text()[-3000:]}") from late

    def console_text(self) -> str:
        return self.console.read_text(errors="replace") if self.console.exists() else ""

    def script(
        self,
        name: str,
        document: Mapping[str, Any],
        environment: Mapping[str, str] | None = None,
        accepted: tuple[int, ...] = (0,),
    ) -> tuple[dict[str, Any], str]:
        """Run one of the project's scripts, detached from the connection; result and log."""
        self.start_script(name, document, environment or {})

        def ended() -> str:
            assert self.process is not None
            assert self.process.poll() is None, f"the VM has ended\n{self.console_text()[-2000:]}"
            return self.look("cat /run/test.status").strip()

        status = int(wait_until(ended, SECONDS_FOR_SCRIPTS, f"{name} ends", 5.0))
        log = self.run("cat /run/test.log")
        (self.directory / f"{name}.log").write_text(log, errors="replace")
        assert status in accepted, f"{name}: {status}\n{log[-6000:]}"
        return json.loads(self.run(f"cat {RUN_DIRECTORY}/result.json")), log

    def look(self, command: str) -> str:
        """What a command prints, or nothing when it fails or the connection does."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            argv = (*self.ssh_command(), command)
            ended = subprocess.run(argv, capture_output=True, timeout=60)
            return ended.stdout.decode(errors="replace") if ended.returncode == 0 else ""
        return ""

    def start_script(
        self, name: str, document: Mapping[str, Any], environment: Mapping[str, str]
    ) -> None:
        """Start a script as a process group of its own, whose id is in /run/test.pid."""
        start = self._script_start(name, document, environment)
        self.run("rm -f /run/test.*; umask 077; cat > /run/test.sh", start.encode())
        group = "echo $$ > /run/test.pid; sh /run/test.sh > /run/test.log; echo $? > /run/test.new"
        command = f"{group}; mv /run/test.new /run/test.status"
        self.run(f"setsid sh -c '{command}' >/dev/null 2>&1 </dev/null &")

    def _script_start(
        self, name: str, document: Mapping[str, Any], environment: Mapping[str, str]
    ) -> str:
        """Bring a script and its input there; shell text that starts it."""
        self.run(f"mkdir -p {RUN_DIRECTORY} && rm -f {RUN_DIRECTORY}/result.json")
        self.run(f"cat > {RUN_DIRECTORY}/script", script_source(name).encode())
        self.run(f"cat > {RUN_DIRECTORY}/input", json.dumps(document).encode())
        variables = {"MANAGED_RUN_DIR": RUN_DIRECTORY, **environment}
        exports = "".join(f"export {key}='{value}'\n" for key, value in variables.items())
        return f'{exports}exec python3 {RUN_DIRECTORY}/script "$(cat {RUN_DIRECTORY}/input)" 2>&1\n'

    @contextlib.contextmanager
    def reverse_socket(self, remote: str, port: int) -> Iterator[None]:
        """A Unix socket in the VM that leads to a TCP port here."""
        self.run(f"mkdir -p -m 700 {Path(remote).parent}; rm -f {remote}")
        options = ("-N", "-o", "ExitOnForwardFailure=yes", "-R", f"{remote}:127.0.0.1:{port}")
        process = subprocess.Popen((*DIE_WITH_PARENT, *self.ssh_command(*options)))
        try:
            wait_until(lambda: self.run(f"test -S {remote} && echo yes || true"), 60, remote)
            yield
        finally:
            process.terminate()
            process.wait(20)

    def shut_down(self) -> None:
        """Power off from inside and wait until the VM has ended."""
        assert self.process is not None
        subprocess.run((*self.ssh_command(), "poweroff"), capture_output=True, timeout=60)
        self.process.wait(180)

    def end(self) -> None:
        if self.process is not None and self.process.poll() is None:
            self.process.send_signal(signal.SIGKILL)
            self.process.wait(30)


def drive(
    path: Path, serial: str, name: str, image_format: str, read_only: bool
) -> tuple[str, ...]:
    options = f"file={path},if=none,id={name},format={image_format},cache=unsafe"
    options += ",readonly=on,file.locking=off" if read_only else ",discard=unmap"
    return ("-drive", options, "-device", f"virtio-blk-pci,drive={name},serial={serial}")


@contextlib.contextmanager
def rescue_vm(
    directory: Path, keys: Keys, disk: Path, serial: str, image: str = "", memory: int = 1024
) -> Iterator[Vm]:
    """A rescue session over a server's disk, with an operating system's image beside it."""
    vm = Vm(directory, keys, " ".join(keys.public("host").split()[:2]))
    rescue = IMAGES / "rescue"
    arguments = (
        *("-kernel", str(rescue / "vmlinux"), "-initrd", str(rescue / "initrd.img")),
        *("-append", COMMAND_LINE),
        *drive(rescue / "root.squashfs", "managed-rescue", "rescue", "raw", True),
        *drive(keys.configuration_disk(), "managed-config", "config", "raw", True),
        *drive(disk, serial, "own", "qcow2", False),
    )
    if image:
        arguments += drive(IMAGES / image / "root.squashfs", "managed-image", "image", "raw", True)
    yield from _running(vm, arguments, memory)


@contextlib.contextmanager
def server_vm(
    directory: Path,
    keys: Keys,
    disk: Path,
    serial: str,
    host_key: str,
    firmware: tuple[str, ...] = (),
    memory: int = 1024,
) -> Iterator[Vm]:
    """The server booting from its own disk; BIOS unless other firmware is given."""
    vm = Vm(directory, keys, host_key)
    yield from _running(vm, (*firmware, *drive(disk, serial, "own", "qcow2", False)), memory)


def _running(vm: Vm, arguments: tuple[str, ...], memory: int) -> Iterator[Vm]:
    try:
        vm.start(arguments, memory)
        vm.wait_for_ssh()
        yield vm
    finally:
        vm.end()
