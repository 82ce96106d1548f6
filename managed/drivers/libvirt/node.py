"""What the driver knows of its node: where libvirt answers, and which file lies where."""

from __future__ import annotations

import re
import uuid
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Final

from managed.domain.errors import InvalidInput, MissingRequirement

_IMAGE_NAME: Final = re.compile(r"[a-z0-9]([a-z0-9.-]{0,61}[a-z0-9])?")


class Acceleration(StrEnum):
    """How guests run. AUTO boots a small guest once to find out whether KVM really works here."""

    AUTO = "auto"
    KVM = "kvm"
    TCG = "tcg"


@dataclass(frozen=True)
class RescueImage:
    """The files of the rescue image. `kernel` is the unpacked one that QEMU enters directly, which
    saves a second without KVM; `packed_kernel` the same as a boot loader would load it.
    """

    kernel: Path
    packed_kernel: Path
    initramfs: Path
    root: Path


@dataclass(frozen=True)
class LibvirtNode:
    """One node. All directories are absolute and reachable from here as from libvirt's daemon.

    `storage_dir` holds the disks, `images_dir` the built images (`rescue/`, `debian-12/`, …),
    `console_dir` what the serial consoles printed, `state_dir` what the driver remembers of the
    node. `rescue_command_line` is the kernel's in a rescue session; it holds no secret.
    """

    uri: str
    storage_dir: Path
    images_dir: Path
    console_dir: Path
    state_dir: Path
    acceleration: Acceleration = Acceleration.AUTO
    rescue_command_line: str = "console=ttyS0 quiet"

    def disk(self, server_id: str) -> Path:
        return self.storage_dir / f"{server_id}.qcow2"

    def configuration_disk(self, server_id: str) -> Path:
        return self.storage_dir / f"{server_id}.rescue-config.raw"

    def console_log(self, server_id: str) -> Path:
        return self.console_dir / f"{server_id}.log"

    def files(self, server_id: str) -> list[Path]:
        """Every file of a server that exists on this node, unfinished and rotated ones included."""
        found = [*self.storage_dir.glob(f"{server_id}.*"), *self.console_dir.glob(f"{server_id}.*")]
        return sorted(found)

    def rescue_image(self) -> RescueImage:
        """Raises MissingRequirement when the image has not been built."""
        folder = self.images_dir / "rescue"
        image = RescueImage(
            kernel=folder / "vmlinux",
            packed_kernel=folder / "vmlinuz",
            initramfs=folder / "initrd.img",
            root=folder / "root.squashfs",
        )
        for path in (image.kernel, image.packed_kernel, image.initramfs, image.root):
            if not path.is_file():
                raise MissingRequirement(
                    f"The rescue image is not built: {path} is missing",
                    hint="Build the images first.",
                    path=str(path),
                )
        return image

    def operating_system_image(self, name: str) -> Path:
        """Raises InvalidInput for a name that is none, MissingRequirement when it is not built."""
        if not _IMAGE_NAME.fullmatch(name):
            raise InvalidInput(f"{name!r} is not an image's name", field="image")
        path = self.images_dir / name / "root.squashfs"
        if not path.is_file():
            raise MissingRequirement(
                f"The image {name} is not built: {path} is missing",
                hint="Build the images first.",
                path=str(path),
            )
        return path


def checked_server_id(server_id: str) -> str:
    """A UUID in its canonical form, so that it is safe as a domain's UUID and as a file name."""
    try:
        canonical: str | None = str(uuid.UUID(server_id))
    except ValueError:
        canonical = None
    if canonical != server_id:
        raise InvalidInput(
            f"{server_id!r} is not a server's id",
            hint="Give a UUID in lower case, with hyphens.",
            field="server_id",
        )
    return server_id
