"""What the installer writes into a new system."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from images.operating_system import RECIPE
from managed.server_scripts import install_system


def test_the_nodes_kernel_options_are_added_to_the_images(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Read as grub-mkconfig reads them: one file after the other, in the order of their names."""
    shutil.copytree(RECIPE / "root", tmp_path, dirs_exist_ok=True)
    monkeypatch.setattr(install_system, "TARGET", tmp_path)

    install_system.configure_kernel(("norandmaps", "mitigations=off"))

    read = 'for file in etc/default/grub.d/*.cfg; do . "./$file"; done; echo "$GRUB_CMDLINE_LINUX"'
    told = subprocess.run(
        ["sh", "-c", read],
        cwd=tmp_path,
        env={"LC_ALL": "C"},
        capture_output=True,
        text=True,
        check=True,
    ).stdout.split()
    assert told == ["console=tty0", "console=ttyS0,115200", "norandmaps", "mitigations=off"]
