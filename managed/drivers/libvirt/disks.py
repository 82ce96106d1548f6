"""A server's disks on the node: qemu-img command lines, and the rescue configuration disk.

No disk of a customer is ever mounted here or probed for its format.
"""

from __future__ import annotations

import io
import json
import os
import subprocess
import tarfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from managed.domain.errors import HypervisorError, MissingRequirement
from managed.domain.secrets import Secret
from managed.ports import RestorePoint

CONFIGURATION_DISK_SIZE: Final = 1024 * 1024
_QEMU_IMG_TIME_LIMIT: Final = 1800.0
_LOCK_TIME_LIMIT: Final = 60.0

# qemu-img and QEMU look a snapshot up by its number first: with a prefix no name is a number.
_POINT_PREFIX: Final = "managed-"


def create_disk_command(path: Path, size_gib: int) -> tuple[str, ...]:
    return ("qemu-img", "create", "-q", "-f", "qcow2", str(path), f"{size_gib}G")


def inspect_disk_command(path: Path) -> tuple[str, ...]:
    """Also while a guest or another qemu-img uses the disk."""
    return ("qemu-img", "info", "--output=json", "--force-share", "-f", "qcow2", str(path))


def repair_disk_command(path: Path) -> tuple[str, ...]:
    return ("qemu-img", "check", "-q", "-r", "all", "-f", "qcow2", str(path))


def create_point_command(path: Path, name: str) -> tuple[str, ...]:
    return _point_command("-c", path, name)


def revert_point_command(path: Path, name: str) -> tuple[str, ...]:
    return _point_command("-a", path, name)


def delete_point_command(path: Path, name: str) -> tuple[str, ...]:
    return _point_command("-d", path, name)


def _point_command(action: str, path: Path, name: str) -> tuple[str, ...]:
    image = f"driver=qcow2,file.driver=file,file.filename={str(path).replace(',', ',,')}"
    return ("qemu-img", "snapshot", "-q", action, point_tag(name), "--image-opts", image)


def point_tag(name: str) -> str:
    """What a restore point is called inside the disk's file."""
    return _POINT_PREFIX + name


def points_in(image: Mapping[str, object]) -> list[RestorePoint]:
    """The restore points in what `qemu-img info` or QMP tells of an image, oldest first."""
    snapshots = image.get("snapshots")
    points = [
        RestorePoint(
            str(each["name"]).removeprefix(_POINT_PREFIX),
            datetime.fromtimestamp(each["date-sec"] + each["date-nsec"] / 1e9, UTC),
        )
        for each in (snapshots if isinstance(snapshots, list) else [])
        if str(each["name"]).startswith(_POINT_PREFIX)
    ]
    return sorted(points, key=lambda point: point.created_at)


def run_qemu_img(command: tuple[str, ...]) -> str:
    """Run it and return what it printed. Raises MissingRequirement, HypervisorError."""
    try:
        ended = subprocess.run(
            command, capture_output=True, text=True, check=False, timeout=_QEMU_IMG_TIME_LIMIT
        )
    except FileNotFoundError as error:
        raise MissingRequirement(
            "qemu-img is not installed", hint="Install the package qemu-utils."
        ) from error
    except subprocess.TimeoutExpired as error:
        raise HypervisorError(f"{command[0]} {command[1]} did not end in time") from error
    if ended.returncode != 0:
        raise HypervisorError(
            f"{command[0]} {command[1]} failed: {ended.stderr.strip()}",
            exit_status=ended.returncode,
        )
    return ended.stdout


def create_disk(path: Path, size_gib: int) -> bool:
    """Make an empty disk that is there whole or not at all; False when it exists already."""
    if path.exists():
        return False
    unfinished = path.with_suffix(".new")
    try:
        run_qemu_img(create_disk_command(unfinished, size_gib))
        unfinished.chmod(0o600)
        unfinished.rename(path)
    finally:
        unfinished.unlink(missing_ok=True)
    return True


def inspect_disk(path: Path) -> dict[str, object]:
    """What qemu-img tells of a disk."""
    document: dict[str, object] = json.loads(run_qemu_img(inspect_disk_command(path)))
    return document


@contextmanager
def change_of_snapshots(disk: Path) -> Iterator[None]:
    """Leaves a mark beside the disk unless the change ends well.

    A change of qcow2's snapshots that is killed loses no data, but leaves wrong counts of use in
    the file, and later changes could act on them.
    """
    mark = _mark(disk)
    with mark.open("wb") as stream:
        os.fsync(stream.fileno())
    yield
    mark.unlink(missing_ok=True)


def finish_interrupted_change(disk: Path) -> None:
    """Put the counts of use right if a change of this stopped disk's snapshots was interrupted.

    A qemu-img that outlives the process which started it is waited for.
    """
    mark = _mark(disk)
    deadline = time.monotonic() + _LOCK_TIME_LIMIT
    while mark.exists():
        try:
            run_qemu_img(repair_disk_command(disk))
            mark.unlink(missing_ok=True)
        except HypervisorError as error:
            if "lock" not in error.message or time.monotonic() > deadline:
                raise
            time.sleep(0.2)


def _mark(disk: Path) -> Path:
    return disk.with_suffix(".changing")


def configuration_archive(files: Mapping[str, Secret]) -> bytes:
    """A tar archive of mode-0600 files, padded to the size of the configuration disk.

    Raises HypervisorError when the files do not fit.
    """
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.USTAR_FORMAT) as archive:
        for name, secret in sorted(files.items()):
            content = secret.reveal().encode()
            member = tarfile.TarInfo(name)
            member.size, member.mode = len(content), 0o600
            archive.addfile(member, io.BytesIO(content))
    content = buffer.getvalue()
    if len(content) > CONFIGURATION_DISK_SIZE:
        raise HypervisorError("The rescue configuration does not fit on its disk")
    return content.ljust(CONFIGURATION_DISK_SIZE, b"\0")


def write_configuration_disk(path: Path, files: Mapping[str, Secret]) -> None:
    """Replace the configuration disk; nobody else can read it at any moment."""
    content = configuration_archive(files)
    path.unlink(missing_ok=True)
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
    with os.fdopen(descriptor, "wb") as stream:
        stream.write(content)
