"""Is a reboot due? With reasons, so that people can judge them."""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

UNRESTARTABLE = ("systemd", "dbus-daemon")


def reboot_state(before: Mapping[str, str], after: Mapping[str, str]) -> dict[str, Any]:
    """Whether a reboot is due, with its reasons; a container, which has no kernel, needs fewer."""
    running = os.uname().release
    newest = newest_kernel(sorted(Path("/boot").glob("vmlinuz-*")))
    reasons = []
    if newest and newest != running:
        reasons.append(f"kernel {newest} is installed, {running} is running")
    image = f"linux-image-{running}"
    if newest and image in before and image in after and before[image] != after[image]:
        reasons.append(f"kernel {running} was replaced: {before[image]} by {after[image]}")
    for path in ("/run/reboot-required", "/var/run/reboot-required"):
        if os.path.exists(path):
            reasons.append("the distribution asks for it (reboot-required)")
            break
    outdated = outdated_processes()
    for name in UNRESTARTABLE:
        if name in outdated:
            reasons.append(f"{name} still runs with replaced libraries")
    return {"needed": bool(reasons), "reasons": reasons, "running": running, "newest": newest}


def newest_kernel(images: Sequence[Path]) -> str:
    """The highest version among kernel images in /boot; empty when there is none."""
    newest = ""
    for image in images:
        version = image.name[len("vmlinuz-") :]
        compared = ["dpkg", "--compare-versions", version, "gt", newest]
        if not newest or subprocess.run(compared, check=False).returncode == 0:
            newest = version
    return newest


def outdated_processes() -> list[str]:
    """Names of processes that still use library files which an update has replaced."""
    names = set()
    for pid in filter(str.isdecimal, os.listdir("/proc")):
        try:
            maps = Path("/proc", pid, "maps").read_text(errors="replace")
            if re.search(r" /(?:usr/)?lib\S*\.so\S* \(deleted\)$", maps, re.MULTILINE):
                names.add(Path("/proc", pid, "comm").read_text().strip())
        except OSError:
            continue
    return sorted(names)
