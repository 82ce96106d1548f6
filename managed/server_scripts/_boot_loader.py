"""Making a disk boot: the server's own GRUB, run inside its own root."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from managed.domain.disk_layouts import DiskLayout
from managed.server_scripts._disk import TARGET
from managed.server_scripts._run import ScriptFailed, run_program, say

REMOVABLE_LOADER = "EFI/BOOT/BOOTX64.EFI"


@contextmanager
def kernel_filesystems() -> Iterator[None]:
    """Give the mounted root what programs in it expect; /run and /tmp are only for now, so that
    nothing they write stays.
    """
    binds = [("/dev", "dev"), ("/proc", "proc"), ("/sys", "sys")]
    mounted: list[Path] = []
    try:
        for source, name in binds:
            _mount_in_target(("--rbind", "--make-rslave", source), name, mounted)
        for name in ("run", "tmp"):
            _mount_in_target(("-t", "tmpfs", "-o", "mode=1777", "tmpfs"), name, mounted)
        yield
    finally:
        for place in reversed(mounted):
            run_program(("umount", "--recursive", str(place)))


def _mount_in_target(words: tuple[str, ...], name: str, mounted: list[Path]) -> None:
    place = TARGET / name
    place.mkdir(exist_ok=True)
    run_program(("mount", *words, str(place)))
    mounted.append(place)


def in_target(*argv: str, stdin: str = "") -> str:
    """Run a program of the mounted system inside it (with `kernel_filesystems` around)."""
    variables = {"DEBIAN_FRONTEND": "noninteractive", "TMPDIR": "/tmp"}  # noqa: S108 (a tmpfs)
    return run_program(("chroot", str(TARGET), *argv), stdin=stdin, environment=variables)


def has_program(name: str) -> bool:
    """Whether the mounted system has this program in one of the usual directories."""
    places = ("usr/sbin", "usr/bin", "sbin", "bin", "usr/local/sbin")
    return any(os.path.lexists(TARGET / place / name) for place in places)


def install_boot_loader(disk: Path, layout: DiskLayout) -> list[str]:
    """Write GRUB to where BIOS and EFI look for it; says what was written, one phrase each.

    An EFI loader at the removable path is left as it is, since the firmware finds it there on
    any machine.
    """
    written = []
    if layout.bios:
        _grub_install("i386-pc", str(disk))
        written.append(f"BIOS boot code and core image on {disk.name} (grub-install i386-pc)")
    place = layout.efi_directory
    if place and not (TARGET / place.lstrip("/") / REMOVABLE_LOADER).is_file():
        _grub_install("x86_64-efi", f"--efi-directory={place}", "--removable", "--no-nvram")
        written.append(f"{place}/{REMOVABLE_LOADER} (grub-install x86_64-efi)")
    return written


def _grub_install(platform: str, *words: str) -> None:
    say(f"installing GRUB for {platform}")
    if has_program("grub-install") and (TARGET / "usr/lib/grub" / platform).is_dir():
        in_target("grub-install", f"--target={platform}", *words)
        return
    say("the system has no GRUB of its own for this; using the rescue image's")
    if not (TARGET / "boot/grub/grub.cfg").is_file():
        raise ScriptFailed("the system does not boot by GRUB", "not-supported")
    inside = tuple(word.replace("=/", f"={TARGET}/") for word in words)
    run_program(
        ("grub-install", f"--target={platform}", f"--boot-directory={TARGET}/boot", *inside)
    )
