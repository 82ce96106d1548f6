"""Restore points: snapshots inside the disk's own qcow2 file.

qcow2 makes and drops them in one step, live as well as stopped, so that a crash at any moment
leaves either the point or none, never a chain of overlays that somebody has to merge. A point made
of a running server holds what its disk held at that instant, as after a power failure.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final, Protocol

import libvirt_qemu

from managed.domain.errors import HypervisorError, InvalidInput, NotFound
from managed.drivers.libvirt.disks import (
    create_point_command,
    delete_point_command,
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
        run_qemu_img(create_point_command(self._path, name))

    def delete(self, name: str) -> None:
        run_qemu_img(delete_point_command(self._path, name))

    def revert(self, name: str) -> None:
        if name not in {point.name for point in self.points()}:
            raise NotFound(f"There is no restore point {name}", name=name)
        run_qemu_img(revert_point_command(self._path, name))


class RunningDisk:
    """The disk of a running domain, reached through QEMU's monitor (libvirt has no call for it)."""

    def __init__(self, domain: Any) -> None:
        self._domain = domain

    def points(self) -> Sequence[RestorePoint]:
        image = self._inserted().get("image")
        return points_in(image if isinstance(image, dict) else {})

    def create(self, name: str) -> None:
        self._change("blockdev-snapshot-internal-sync", name)

    def delete(self, name: str) -> None:
        self._change("blockdev-snapshot-delete-internal-sync", name)

    def _change(self, command: str, name: str) -> None:
        self._ask(command, device=self._inserted()["node-name"], name=point_tag(name))

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
