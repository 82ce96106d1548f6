"""apt-cacher-ng on loopback, so that the lab's servers fetch each package from afar once."""

from __future__ import annotations

import os
import shutil
import socket
from contextlib import suppress
from pathlib import Path
from typing import Final

from images.sources import host_proxy
from managed.domain.errors import MissingRequirement
from managed.drivers.server_process import ServerProcess

# Where QEMU's user-mode networking shows the host's loopback to a guest.
HOST_SEEN_FROM_GUESTS: Final = "10.0.2.2"
_PROGRAM_DIRECTORIES: Final = "/usr/sbin:/usr/bin:/sbin:/bin:/usr/local/sbin:/usr/local/bin"
# Its templates for the status page; optional, so a missing folder is no matter.
_SUPPORT: Final = "/usr/lib/apt-cacher-ng"


def guest_proxy_url(port: int) -> str:
    """The cache's address for a guest of the lab."""
    return f"http://{HOST_SEEN_FROM_GUESTS}:{port}"


def apt_cache_configuration(directory: Path, log_directory: Path, port: int, proxy: str) -> str:
    """acng.conf: our own folders, loopback only, mirrors on any port, TLS passed through. `proxy`
    is the host's own, or "".
    """
    lines = [
        f"CacheDir: {directory / 'cache'}",
        f"LogDir: {log_directory}",
        f"SupportDir: {_SUPPORT}",
        "BindAddress: 127.0.0.1",
        f"Port: {port}",
        "ForeGround: 1",
        "ReportPage:",
        "ExThreshold: 30",
        "VerboseLog: 0",
        "PassThroughPattern: ^[^/:]+:443$",
        "AllowUserPorts: 0",
    ]
    if proxy:
        lines.append(f"Proxy: {proxy}")
    return "\n".join(lines) + "\n"


def apt_cache_server(state_dir: Path, port: int, log_file: Path) -> ServerProcess:
    """The cache, not started; what it fetched stays in `state_dir`/apt-cache for the next time.

    MissingRequirement when apt-cacher-ng is not installed: it is a convenience.
    """
    program = shutil.which("apt-cacher-ng", path=_PROGRAM_DIRECTORIES)
    if program is None:
        raise MissingRequirement(
            "apt-cacher-ng is not installed", hint="Run: apt-get install apt-cacher-ng"
        )
    directory = state_dir / "apt-cache"
    configuration, logs = directory / "conf", directory / "log"
    for folder in (configuration, logs, directory / "cache"):
        folder.mkdir(parents=True, exist_ok=True)
    text = apt_cache_configuration(directory, logs, port, host_proxy() or "")
    (configuration / "acng.conf").write_text(text, encoding="ascii")
    environment = {"PATH": os.environ.get("PATH", _PROGRAM_DIRECTORIES), "HOME": str(directory)}
    return ServerProcess(
        "the package cache",
        (program, "-c", str(configuration)),
        environment,
        log_file,
        lambda: _listens(port),
    )


def _listens(port: int) -> bool:
    with suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=2):
        return True
    return False
