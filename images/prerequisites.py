"""Checks before a build starts, so that it fails in the first second and not in the last."""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping
from pathlib import Path

from managed.domain.errors import MissingRequirement

MEBIBYTE = 1024 * 1024
TOOL_DIRECTORIES = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


def require_root() -> None:
    """Raise MissingRequirement unless this process is root (device nodes, chroot, mounts)."""
    if os.geteuid() != 0:
        raise MissingRequirement(
            "Building an image needs root, because it makes device nodes and uses chroot.",
            hint="Run it again with sudo.",
        )


def require_tools(tools: Mapping[str, str]) -> None:
    """Raise MissingRequirement when a program is missing.

    tools: program name to the name of the Debian package that carries it.
    """
    missing = [tool for tool in tools if shutil.which(tool, path=TOOL_DIRECTORIES) is None]
    if missing:
        packages = sorted({tools[tool] for tool in missing})
        raise MissingRequirement(
            f"Building this image needs {', '.join(missing)}, which this machine does not have.",
            hint=f"Run: apt-get install {' '.join(packages)}",
        )


def require_space(directory: Path, mebibytes: int) -> None:
    """Raise MissingRequirement unless that much is free where the existing `directory` is."""
    free = shutil.disk_usage(directory).free // MEBIBYTE
    if free < mebibytes:
        raise MissingRequirement(
            f"Building this image needs {mebibytes} MiB free at {directory}, "
            f"but only {free} MiB are left.",
            hint="Free some space, or choose another place with MANAGED_IMAGES_DIR.",
        )
