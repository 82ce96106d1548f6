"""Destroying a lab server beyond booting, as its own root could: for the demo and for tests."""

from __future__ import annotations

import json
import re
from typing import Final

from managed.domain.connections import Endpoint
from managed.domain.errors import CommandFailed, InvalidInput, Json
from managed.ports import RemoteShell

_SERIAL: Final = re.compile(r"[A-Za-z0-9_-]{1,20}")
_SECONDS: Final = 120

# Reports first, because afterwards nothing can; what it needs is in memory by then. The plug is
# pulled in the background so that the answer still gets out.
_SCRIPT: Final = r"""
import ctypes, json, os, pathlib, shutil, sys, time

serial = sys.argv[1]
disks = [
    p.parent for p in pathlib.Path("/sys/block").glob("*/serial")
    if p.read_text().strip() == serial
]
if len(disks) != 1:
    sys.exit(f"{len(disks)} disks have the serial {serial}")
device = "/dev/" + disks[0].name
sectors = int((disks[0] / "size").read_text())
with open(device, "rb") as disk:
    table = disk.read(1 << 20)
if table[510:512] != b"\x55\xaa":
    sys.exit("the disk has no partition table; it is destroyed already")

def files_below(folder):
    return sum(len(files) for _, _, files in os.walk(folder))

found = {"disk": device, "files_erased": {f: files_below(f) for f in ("/boot", "/etc")}}
found["partitions"] = sorted(p.name for p in disks[0].glob(disks[0].name + "*"))
for folder in ("/boot", "/etc"):
    for entry in os.scandir(folder):
        if os.path.ismount(entry.path):
            continue
        if entry.is_dir(follow_symlinks=False):
            shutil.rmtree(entry.path, ignore_errors=True)
        else:
            os.unlink(entry.path)
found["files_left"] = {f: files_below(f) for f in ("/boot", "/etc")}
os.sync()
zeros = bytes(1 << 20)
with open(device, "wb", buffering=0) as disk:
    disk.write(zeros)
    disk.seek(sectors * 512 - len(zeros))
    disk.write(zeros)
    os.fsync(disk.fileno())
with open(device, "rb") as disk:
    found["partition_table_erased"] = disk.read(1 << 20) == zeros
print(json.dumps(found), flush=True)
if os.fork() == 0:
    os.setsid()
    for number in (0, 1, 2):
        os.close(number)
    time.sleep(2)
    pathlib.Path("/proc/sysrq-trigger").write_text("b")
"""


def break_server(shell: RemoteShell, endpoint: Endpoint, disk_serial: str) -> dict[str, Json]:
    """Erase partition table (both copies), /boot and /etc as root, and reset the machine.

    Returns what was erased. Nothing of it can be taken back: only a restore helps. CommandFailed
    when the server's disk is not found or has no partition table any more.
    """
    if not _SERIAL.fullmatch(disk_serial):
        raise InvalidInput(f"{disk_serial!r} is no disk's serial", field="disk_serial")
    result = shell.run(
        endpoint, ("python3", "-", disk_serial), stdin=_SCRIPT.encode(), timeout=_SECONDS
    )
    if result.exit_status != 0:
        raise CommandFailed(
            f"the server could not be broken: {result.stderr.strip()[-300:]}",
            exit_status=result.exit_status,
        )
    found: dict[str, Json] = json.loads(result.stdout.splitlines()[-1])
    return found
