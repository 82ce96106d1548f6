"""What a restore writes by itself: boot loaders where the layout says, swap files, nothing else."""

from __future__ import annotations

import uuid
from dataclasses import replace
from pathlib import Path

import pytest

from managed.domain.disk_layouts import MEBIBYTE, DiskLayout, default_layout
from managed.domain.manifests import Difference
from managed.domain.swap_files import SwapFile
from managed.server_scripts import _boot_loader, restore_system
from managed.server_scripts._boot_loader import install_boot_loader
from managed.server_scripts._run import ScriptFailed

DISK = Path("/dev/vda")


def layout(efi_at: str = "/boot/efi") -> DiskLayout:
    bios, efi, root = default_layout(4096 * MEBIBYTE, lambda: str(uuid.uuid4())).partitions
    assert efi.filesystem is not None
    efi = replace(efi, filesystem=replace(efi.filesystem, mount_point=efi_at))
    made = default_layout(4096 * MEBIBYTE, lambda: str(uuid.uuid4()))
    swap_files = (SwapFile("/swapfile", MEBIBYTE),)
    return replace(made, partitions=(bios, efi, root), swap_files=swap_files)


@pytest.fixture
def commands(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, ...]]:
    """What is run inside the restored system, which has GRUB for both ways of booting."""
    for place in ("usr/sbin", "usr/lib/grub/i386-pc", "usr/lib/grub/x86_64-efi"):
        (tmp_path / place).mkdir(parents=True)
    (tmp_path / "usr/sbin/grub-install").touch()
    run: list[tuple[str, ...]] = []
    monkeypatch.setattr(_boot_loader, "TARGET", tmp_path)
    monkeypatch.setattr(_boot_loader, "in_target", lambda *argv: run.append(argv))
    return run


@pytest.mark.parametrize("place", ["/boot/efi", "/efi", "/boot"])
def test_efis_loader_is_put_where_its_partition_is_mounted(
    place: str, commands: list[tuple[str, ...]]
) -> None:
    written = install_boot_loader(DISK, layout(place))

    assert f"--efi-directory={place}" in commands[1]
    assert written[1].startswith(f"{place}/EFI/BOOT/BOOTX64.EFI")


def test_a_loader_that_the_backup_brought_is_left_alone(
    tmp_path: Path, commands: list[tuple[str, ...]]
) -> None:
    loader = tmp_path / "efi/EFI/BOOT/BOOTX64.EFI"
    loader.parent.mkdir(parents=True)
    loader.touch()
    install_boot_loader(DISK, layout("/efi"))

    assert [argv[1] for argv in commands] == ["--target=i386-pc"]


def test_a_server_that_boots_by_bios_needs_no_efi_partition_mounted(
    commands: list[tuple[str, ...]],
) -> None:
    install_boot_loader(DISK, layout(""))

    assert [argv[1] for argv in commands] == ["--target=i386-pc"]


def test_what_the_restore_itself_rewrites_is_named_with_its_reason(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MANAGED_RUN_DIR", str(tmp_path))
    grub = [Difference("/boot/grub/core.img", name, "a", "b") for name in ("size", "sha256")]
    efi = Difference("/efi/EFI/BOOT", "path", "absent", "present")
    swap = Difference("/swapfile", "path", "absent", "present")
    rewritten = restore_system.rewritten_paths([*grub, efi, swap], layout("/efi"))

    assert set(rewritten) == {"/boot/grub/core.img", "/efi/EFI/BOOT", "/swapfile"}
    assert rewritten["/boot/grub/core.img"].endswith("size, sha256")
    assert "swap file" in rewritten["/swapfile"]
    for path in ("/swapfile2", "/boot/efi/EFI/BOOT", "/etc/fstab"):
        other = Difference(path, "path", "absent", "present")
        with pytest.raises(ScriptFailed, match=path):
            restore_system.rewritten_paths([*grub, other], layout("/efi"))
