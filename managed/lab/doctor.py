"""Has this machine what `managed` needs? Each check says what it found and how to mend it."""

from __future__ import annotations

import importlib
import json
import os
import platform
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Final

from images.build import up_to_date_image
from images.errors import ImageError
from images.prerequisites import TOOL_DIRECTORIES
from images.sources import DEBIAN_KEYRING, resolve_sources
from images.store import ImageName
from managed.domain.errors import MissingRequirement
from managed.drivers.local_ports import port_is_free
from managed.drivers.rclone import rclone_binary
from managed.lab import disk_space
from managed.settings import Settings

_MEMORY_GIB: Final = 3
_SETUP: Final = "Run: make setup"


class Need(StrEnum):
    """What a missing thing stands in the way of."""

    REQUIRED = "required"
    TESTS = "tests"
    OPTIONAL = "optional"


@dataclass(frozen=True)
class Finding:
    """`found` is what is here (or what is wrong), `remedy` what to do if it is not well."""

    name: str
    is_well: bool
    found: str
    remedy: str = ""
    need: Need = Need.REQUIRED

    @property
    def word(self) -> str:
        """ok, missing, or warning for what only the tests or conveniences need."""
        if self.is_well:
            return "ok"
        return "missing" if self.need is Need.REQUIRED else "warning"


@dataclass(frozen=True)
class Tool:
    """A program, the Debian package that carries it, and how it tells its version ("" asks not)."""

    program: str
    package: str
    version_option: str = "--version"
    need: Need = Need.REQUIRED
    at_least: tuple[int, ...] = ()


TOOLS: Final = (
    Tool("qemu-system-x86_64", "qemu-system-x86", at_least=(7, 0)),
    Tool("qemu-img", "qemu-utils"),
    Tool("libvirtd", "libvirt-daemon", at_least=(9, 0)),
    Tool("virtlogd", "libvirt-daemon (Debian 13: libvirt-daemon-log)"),
    Tool("ssh", "openssh-client", "-V"),
    Tool("ip", "iproute2", "-V"),
    Tool("setpriv", "util-linux"),
    Tool("unshare", "util-linux"),
    Tool("mmdebstrap", "mmdebstrap"),
    Tool("mksquashfs", "squashfs-tools", "-version"),
    Tool("dpkg-deb", "dpkg"),
    Tool("systemd-nspawn", "systemd-container", need=Need.TESTS),
    Tool("sshd", "openssh-server", "", Need.TESTS),
    Tool("redis-server", "redis-server", need=Need.TESTS),
    Tool("apt-cacher-ng", "apt-cacher-ng", "", Need.OPTIONAL),
)
_LIBRARIES: Final = ("libvirt", "sqlalchemy", "celery", "ansible_runner", "asyncssh", "boto3")
_VERSION: Final = re.compile(r"\d+(?:\.\d+)+")


def examine(settings: Settings) -> list[Finding]:
    """Every check, in the order in which one would mend things. Changes nothing."""
    checks: Iterable[Callable[[], Finding]] = (
        _python,
        _libraries,
        _rclone,
        _ansible,
        _permission,
        *(lambda tool=tool: tool_finding(tool) for tool in TOOLS),
        _postgresql,
        _signatures,
        _keyring,
        lambda: _disk(settings.state),
        _memory,
        lambda: _kvm(settings),
        lambda: _port(settings),
        lambda: _mirror(settings),
        *(lambda name=name: _image(name, settings) for name in ImageName),
    )
    return [check() for check in checks]


def tool_finding(tool: Tool) -> Finding:
    """Is the program here, and new enough?"""
    remedy = f"Run: apt-get install {tool.package}   (or: make setup)"
    path = shutil.which(tool.program, path=f"{os.environ.get('PATH', '')}:{TOOL_DIRECTORIES}")
    if path is None:
        return Finding(tool.program, False, "not installed", remedy, tool.need)
    if not tool.version_option:
        return Finding(tool.program, True, path, need=tool.need)
    version = version_in(_said(path, tool.version_option))
    is_well = bool(version) and version >= tool.at_least
    found = ".".join(map(str, version)) if version else "tells no version"
    if version and not is_well:
        found += f"; {'.'.join(map(str, tool.at_least))} or newer is needed"
    return Finding(tool.program, is_well, found, remedy, tool.need)


def version_in(text: str) -> tuple[int, ...]:
    """The first dotted number of a program's answer; empty when there is none."""
    match = _VERSION.search(text)
    return tuple(map(int, match.group().split("."))) if match else ()


def _said(*command: str) -> str:
    try:
        done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=20)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout + done.stderr


def _python() -> Finding:
    version = platform.python_version()
    is_well = sys.version_info >= (3, 11)
    return Finding("Python", is_well, version, "Install Python 3.11 or newer, then: make setup")


def _libraries() -> Finding:
    missing = []
    for name in _LIBRARIES:
        try:
            importlib.import_module(name)
        except ImportError:
            missing.append(name)
    found = f"missing: {', '.join(missing)}" if missing else f"in {sys.prefix}"
    return Finding("Python libraries", not missing, found, _SETUP)


def _rclone() -> Finding:
    try:
        path = rclone_binary()
    except MissingRequirement as error:
        return Finding("rclone", False, error.message, _SETUP)
    version = version_in(_said(str(path), "version"))
    return Finding("rclone", bool(version), ".".join(map(str, version)) or str(path), _SETUP)


def _ansible() -> Finding:
    """Beside this Python: playbooks are run by the one that is locked, not by the machine's."""
    program = Path(sys.executable).parent / "ansible-playbook"
    version = version_in(_said(str(program), "--version"))
    found = ".".join(map(str, version)) or "not installed"
    return Finding("ansible-playbook", bool(version), found, _SETUP)


def _permission() -> Finding:
    if os.geteuid() == 0:
        return Finding("permission", True, "root")
    remedy = "Building images, cells and the lab's own libvirt need root: run it with sudo."
    return Finding("permission", False, f"user {os.getuid()}", remedy)


def _postgresql() -> Finding:
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))
    version = found[-1].parts[-3] if found else "not installed"
    remedy = "Run: apt-get install postgresql"
    return Finding("PostgreSQL", bool(found), version, remedy, Need.TESTS)


def _signatures() -> Finding:
    """What apt checks a mirror's signatures with: Debian 13's has sqv, earlier ones gpgv."""
    found = next((path for name in ("sqv", "gpgv") if (path := shutil.which(name))), None)
    remedy = "Run: apt-get install gpgv"
    return Finding("signature check", found is not None, found or "neither sqv nor gpgv", remedy)


def _keyring() -> Finding:
    is_well = Path(DEBIAN_KEYRING).exists()
    found = DEBIAN_KEYRING if is_well else "not installed"
    return Finding(
        "Debian's archive keys", is_well, found, "Run: apt-get install debian-archive-keyring"
    )


def _disk(state: Path) -> Finding:
    place = disk_space.place_of(state)
    free, needed = disk_space.free_gib(place), disk_space.NEEDED_GIB
    remedy = f"Free {needed} GiB at {place}, or set MANAGED_STATE_DIR to a larger place."
    return Finding("disk space", free >= needed, f"{free:.0f} GiB free at {place}", remedy)


def _memory() -> Finding:
    text = Path("/proc/meminfo").read_text(encoding="ascii")
    fields = dict(line.split(":", 1) for line in text.splitlines())
    free = int(fields["MemAvailable"].split()[0]) / 1024**2
    remedy = f"The demo wants {_MEMORY_GIB} GiB: end something, or add memory."
    return Finding(
        "memory", free >= _MEMORY_GIB, f"{free:.1f} GiB available", remedy, Need.OPTIONAL
    )


def _kvm(settings: Settings) -> Finding:
    """What the driver's probe found, if it has run: a /dev/kvm that opens is no proof."""
    remedy = "Nothing to do: guests are emulated, about six times slower."
    if settings.acceleration != "auto":
        return Finding("KVM", True, f"set to {settings.acceleration} by MANAGED_ACCELERATION")
    for record in sorted(settings.state.glob("nodes/*/acceleration.json")):
        verdict = json.loads(record.read_text(encoding="utf-8"))
        found = f"probed: {verdict['evidence']}"
        return Finding("KVM", bool(verdict["accelerated"]), found, remedy, Need.OPTIONAL)
    if not os.access("/dev/kvm", os.R_OK | os.W_OK):
        return Finding("KVM", False, "no usable /dev/kvm", remedy, Need.OPTIONAL)
    return Finding("KVM", True, "/dev/kvm opens; a guest will prove it when one is first started")


def _port(settings: Settings) -> Finding:
    name = f"port {settings.listen_port}"
    if port_is_free(settings.listen_port, settings.listen_address):
        return Finding(name, True, f"free on {settings.listen_address}")
    pid_file = settings.state / "service.pid"
    if pid_file.exists() and pid_file.read_text(encoding="ascii").strip():
        return Finding(name, True, "the service of this state folder seems to listen there")
    remedy = "Stop what listens there, or set MANAGED_LISTEN_PORT."
    return Finding(name, False, f"in use on {settings.listen_address}", remedy, Need.OPTIONAL)


def _mirror(settings: Settings) -> Finding:
    try:
        sources = resolve_sources(
            settings.debian_mirror, settings.debian_security_mirror, settings.apt_proxy, _silent
        )
    except ImageError as error:
        return Finding("Debian mirror", False, error.message, error.hint)
    return Finding("Debian mirror", True, sources.mirror)


def _image(name: ImageName, settings: Settings) -> Finding:
    image = up_to_date_image(name, settings.images)
    found = f"built {image.built_at:%Y-%m-%d %H:%M} UTC" if image else "not built yet"
    remedy = "Run: make images   (the demo builds what it needs by itself)"
    return Finding(f"image {name.value}", image is not None, found, remedy, Need.OPTIONAL)


def _silent(_line: str) -> None:
    """Nothing is reported while mirrors are looked up."""
