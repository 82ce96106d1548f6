"""The processes of a cell: all those of its control group, whoever is their parent by now."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path
from typing import IO, Final

from managed.domain.errors import CommandFailed

_CGROUPS: Final = Path("/sys/fs/cgroup")
_PARENT: Final = "managed-cells"
_SECONDS_TO_END: Final = 20.0

# Two containers started from one control group would share their payload group and end each other,
# so a shell enters the cell's own group first; all that it starts is born there.
_ENTER: Final = (
    "groups=$1; loop=$2; shift 2; "
    'for group in $groups; do echo $$ >"$group/cgroup.procs" || exit 1; done; '
    'exec setsid --fork sh -c "$loop" cell "$@"'
)
# nspawn ends with 133 when the container asked for a reboot, and leaves starting it again to the
# service manager: here to this loop.
_LOOP: Final = 'while :; do "$@"; [ $? -eq 133 ] || exit 0; done'


def launch(group: str, argv: Sequence[str], output: IO[bytes]) -> None:
    """Run `argv` in this control group, detached from us; again whenever it asks for a reboot."""
    paths = _group_paths(group)
    for path in paths:
        path.mkdir(parents=True, exist_ok=True)
    names = " ".join(str(path) for path in paths)
    subprocess.run(
        ("sh", "-c", _ENTER, "cell", names, _LOOP, *argv),
        stdin=subprocess.DEVNULL,
        stdout=output,
        stderr=subprocess.STDOUT,
        check=True,
        timeout=30,
    )


def process_ids(group: str) -> set[int]:
    """The processes of this group and of all groups below it."""
    found: set[int] = set()
    for path in _group_paths(group):
        # os.walk passes over groups that vanish meanwhile; Path.glob does not.
        for directory, _below, _files in os.walk(path):
            try:
                found.update(map(int, Path(directory, "cgroup.procs").read_text().split()))
            except OSError:
                continue
    return found


def end_all(group: str) -> None:
    """Kill every process of the group and remove it; none is fine. Raises CommandFailed when
    something survives.
    """
    deadline = time.monotonic() + _SECONDS_TO_END
    _freeze(group)
    while True:
        for process_id in process_ids(group):
            _send(process_id, signal.SIGKILL)
        for path in _group_paths(group):
            _remove_tree(path)
        if not any(path.exists() for path in _group_paths(group)):
            return
        if time.monotonic() > deadline:
            raise CommandFailed(f"processes of the control group {group} do not end")
        time.sleep(0.02)


def _freeze(group: str) -> None:
    """Stop every process, so that none lives to see another killed: at a power failure nobody
    writes down how its child ended.
    """
    frozen: set[int] = set()
    while new := process_ids(group) - frozen:
        for process_id in new:
            _send(process_id, signal.SIGSTOP)
        frozen |= new


def _send(process_id: int, number: signal.Signals) -> None:
    try:
        os.kill(process_id, number)
    except ProcessLookupError:
        return


def _remove_tree(path: Path) -> None:
    """rmdir a group and those below it, deepest first, as far as they are empty."""
    if not path.exists():
        return
    below = [Path(directory) for directory, _names, _files in os.walk(path, topdown=False)]
    for directory in below:
        try:
            directory.rmdir()
        except OSError:
            continue


def _group_paths(group: str) -> list[Path]:
    """The group's directory in every hierarchy that systemd may use to track processes: one on a
    unified host, two on a hybrid one.
    """
    if (_CGROUPS / "cgroup.controllers").exists():
        return [_CGROUPS / _PARENT / group]
    named = [_CGROUPS / hierarchy for hierarchy in ("systemd", "unified")]
    return [hierarchy / _PARENT / group for hierarchy in named if hierarchy.is_dir()]
