"""A data directory that is being replaced: its old files beside it, and the way back.

What is there tells how far a load has come, after a kill as well. `<path>.before-load` exists only
while a load is unfinished; it holds the old files, and what is at `path` then is incomplete.
`<path>.discarded` is rubbish on its way out, whoever made it.
"""

from __future__ import annotations

import os
import shutil
import stat
import time
from collections.abc import Sequence
from pathlib import Path

from managed.server_scripts._database_processes import end_processes_in, processes_in
from managed.server_scripts._run import ScriptFailed, run_program

SPACE_BESIDE_THE_DUMP = 256 << 20
SECONDS_TO_STOP = 60.0


class DataDirectory:
    def __init__(self, path: Path) -> None:
        self.path = path
        self.aside = path.with_name(f"{path.name}.before-load")
        self.discarded = path.with_name(f"{path.name}.discarded")

    @property
    def is_unfinished(self) -> bool:
        return self.aside.exists()

    @property
    def old_files(self) -> Path:
        """Where the files of before are now."""
        return self.aside if self.is_unfinished else self.path

    def limitation(self) -> str | None:
        """Why it can't be moved aside, or None."""
        if os.path.ismount(self.old_files):
            return f"{self.path} is a filesystem of its own and can't be moved aside"
        return None

    def require_space(self, dump_size: int) -> None:
        """ScriptFailed when the new files clearly find no room beside the old ones."""
        status = os.statvfs(self.path.parent)
        rubbish = [self.discarded, *([self.path] if self.is_unfinished else [])]
        free = status.f_bavail * status.f_frsize + sum(map(directory_size, rubbish))
        needed = needed_space(dump_size)
        if free < needed:
            raise ScriptFailed(
                f"{free >> 20} MiB are free for {self.path}, at least {needed >> 20} MiB are"
                f" needed to load its dump beside its old files"
            )

    def require_unused(self) -> None:
        """ScriptFailed when somebody still works on the files; they get time to end."""
        deadline = time.monotonic() + SECONDS_TO_STOP
        while pids := processes_in(self.path):
            if time.monotonic() > deadline:
                raise ScriptFailed(f"processes {pids} still work on {self.path}")
            time.sleep(0.05)

    def move_aside(self) -> None:
        """The old files stay whole beside a new, empty directory of the same owner."""
        owner = self.path.stat()
        self.path.rename(self.aside)
        self.path.mkdir(mode=0o700)
        os.chown(self.path, owner.st_uid, owner.st_gid)
        sync_directory(self.path.parent)

    def put_back(self) -> None:
        """Undo an unfinished load: only the old files count. Quick; `clear` ends it."""
        if not self.is_unfinished:
            return
        if self.path.exists():
            end_processes_in(self.path)
            shutil.rmtree(self.discarded, ignore_errors=True)
            self.path.rename(self.discarded)
        self.aside.rename(self.path)
        sync_directory(self.path.parent)

    def keep_new(self) -> None:
        """The load is done: what is at `path` is right, the files of before are rubbish."""
        if self.is_unfinished:
            shutil.rmtree(self.discarded, ignore_errors=True)
            self.aside.rename(self.discarded)
            sync_directory(self.path.parent)
        self.clear()

    def clear(self) -> None:
        if self.discarded.exists():
            shutil.rmtree(self.discarded)

    def take_over(self, names: Sequence[str]) -> None:
        """Copy these of the old files into the new directory, as they are."""
        for name in names:
            (self.path / name).unlink(missing_ok=True)
            run_program(("cp", "-a", "--", str(self.aside / name), str(self.path)))

    def take_over_mode(self) -> None:
        """Until now only the owner could enter the new directory."""
        self.path.chmod(stat.S_IMODE(self.aside.stat().st_mode))


def needed_space(dump_size: int) -> int:
    """The least that loading takes: data are no smaller than their dump, but for rare cases, and
    a new data directory and its log have a size of their own.
    """
    return dump_size + SPACE_BESIDE_THE_DUMP


def directory_size(path: Path) -> int:
    """Bytes on the disk; 0 when there is none."""
    total = 0
    for directory, _, names in os.walk(path):
        for name in names:
            total += os.lstat(os.path.join(directory, name)).st_blocks * 512
    return total


def sync_directory(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
