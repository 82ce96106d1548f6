"""Restore points: snapshots inside the disk's own qcow2 file.

They are made and dropped by one command, live as well as stopped, so that a crash at any moment
leaves either the point or none, never a chain of overlays that somebody has to merge. What it may
leave is wrong counts of use inside the file; those are put right before the disk is used again.
While QEMU makes a point of a running server, that server's disk waits: seconds on a large disk,
because every cluster's count is raised. A point made
of a running server holds what its disk held at that instant, as after a power failure.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final, Protocol

import libvirt_qemu

from managed.domain.errors import HypervisorError, InvalidInput
from managed.drivers.libvirt.disks import (
    change_of_snapshots,
    create_point_command,
    delete_point_command,
    finish_interrupted_change,
    inspect_disk,
    point_tag,
    points_in,
    revert_point_command,
    run_qemu_img,
)
from managed.drivers.libvirt.domain_xml import SERVER_DISK_ALIAS
from managed.ports import RestorePoint

_POINT_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")


def checked_point_name(name: str) -> str:
    if not _POINT_NAME.fullmatch(name):
        raise InvalidInput(
            f"{name!r} is not a restore point's name",
            hint="Use 1 to 64 letters, digits, dots, hyphens and underscores.",
            field="name",
        )
    return name


class PointStore(Protocol):
    """Where the points of one disk can be reached at this moment."""

    def points(self) -> Sequence[RestorePoint]: ...

    def create(self, name: str) -> None: ...

    def delete(self, name: str) -> None: ...


class StoppedDisk:
    """The disk of a server that is powered off; QEMU's own lock guards against a mistake."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def points(self) -> Sequence[RestorePoint]:
        return points_in(inspect_disk(self._path))

    def create(self, name: str) -> None:
        self._change(create_point_command(self._path, name))

    def delete(self, name: str) -> None:
        self._change(delete_point_command(self._path, name))

    def revert(self, name: str) -> None:
        """The point must exist."""
        self._change(revert_point_command(self._path, name))

    def _change(self, command: tuple[str, ...]) -> None:
        finish_interrupted_change(self._path)
        with change_of_snapshots(self._path):
            run_qemu_img(command)


class RunningDisk:
    """The disk of a running domain, reached through QEMU's monitor (libvirt has no call for it)."""

    def __init__(self, domain: Any, path: Path) -> None:
        self._domain = domain
        self._path = path

    def points(self) -> Sequence[RestorePoint]:
        image = self._inserted().get("image")
        return points_in(image if isinstance(image, dict) else {})

    def create(self, name: str) -> None:
        self._change("blockdev-snapshot-internal-sync", name)

    def delete(self, name: str) -> None:
        self._change("blockdev-snapshot-delete-internal-sync", name)

    def _change(self, command: str, name: str) -> None:
        disk = self._inserted()["node-name"]
        with change_of_snapshots(self._path):
            self._ask(command, device=disk, name=point_tag(name))

    def _inserted(self) -> dict[str, object]:
        for block in self._ask("query-block"):
            if f"/{SERVER_DISK_ALIAS}/" in block.get("qdev", "") and "inserted" in block:
                inserted: dict[str, object] = block["inserted"]
                return inserted
        raise HypervisorError("The running domain does not hold the server's disk")

    def _ask(self, command: str, **arguments: object) -> Any:
        question = json.dumps({"execute": command, "arguments": arguments})
        answer = json.loads(libvirt_qemu.qemuMonitorCommand(self._domain, question, 0))
        if "error" in answer:
            raise HypervisorError(f"QEMU refused {command}: {answer['error'].get('desc', '')}")
        return answer["return"]
