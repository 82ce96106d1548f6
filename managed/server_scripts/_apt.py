"""Runs apt-get and dpkg on a server: unattended, after waiting for others, progress shown."""

from __future__ import annotations

import fcntl
import os
import re
import selectors
import subprocess
import time
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

from managed.server_scripts._packages import security_preferences, simulated_updates
from managed.server_scripts._run import (
    Progress,
    ScriptFailed,
    emit,
    program_environment,
    run_program,
    say,
    write_atomically,
)

LOCKS = ("/var/lib/dpkg/lock-frontend", "/var/lib/dpkg/lock", "/var/lib/apt/lists/lock")
LOCK_WAIT = 900
UPGRADE = ("upgrade", "--with-new-pkgs")
SECONDS_BETWEEN_LOOKS = 1.0
LOCK_MESSAGES = ("Could not get lock", "is locked by another process", "Unable to acquire the dpkg")
PACKAGE_ENVIRONMENT = {
    "DEBIAN_FRONTEND": "noninteractive",
    "DEBIAN_PRIORITY": "critical",
    "NEEDRESTART_MODE": "a",
    "APT_LISTCHANGES_FRONTEND": "none",
    "UCF_FORCE_CONFFOLD": "1",
}
KEEP_CONFIGURATION = ("--force-confdef", "--force-confold")
APT_SETTINGS = (
    *(f"Dpkg::Options::={option}" for option in KEEP_CONFIGURATION),
    "Dpkg::Use-Pty=0",
    "Acquire::Retries=3",
    "Acquire::http::Timeout=60",
    "Acquire::https::Timeout=60",
    "APT::Get::Assume-Yes=true",
    "APT::Get::Remove=false",
)
STATUS = re.compile(
    r"^(dlstatus|pmstatus|pmerror|pmconffile):([^:]*(?::[a-z0-9]+)?):([\d.]+):(.*)$"
)


class Apt:
    """Our way of running apt-get and dpkg; keeps how each stage ended. `directory` is where files
    for apt may be put, `lock_wait` for how many seconds others may hold the package lock.
    """

    def __init__(
        self,
        directory: Path,
        only_security: bool,
        time_limit: int = 0,
        lock_wait: int = LOCK_WAIT,
    ) -> None:
        self.began = time.monotonic()
        self.time_limit = time_limit
        self.lock_wait = lock_wait
        self.stages: list[dict[str, Any]] = []
        settings = (f"DPkg::Lock::Timeout={lock_wait}", *APT_SETTINGS)
        self.options = [word for setting in settings for word in ("-o", setting)]
        if only_security:
            preferences = directory / "preferences"
            write_atomically(preferences, security_preferences().encode(), mode=0o644)
            self.options += ["-o", f"Dir::Etc::Preferences={preferences}"]

    def get(self, *arguments: str) -> list[str]:
        return ["apt-get", *self.options, *arguments]

    def stage(
        self, name: str, command: Sequence[str], *, progress_of: int = 0, may_fail: bool = False
    ) -> None:
        """Run one command to its end; again when somebody else took the package lock before us.

        Raises ScriptFailed for any status but 0 (unless it may fail, because a later stage
        decides), and before a stage that would begin after the time limit.
        """
        if self.time_limit and time.monotonic() - self.began >= self.time_limit:
            raise ScriptFailed(f"the time limit was over before {name!r}", "deadline-exceeded")
        say(f"== {name}")
        emit("patch_stage", stage=name)
        began = time.monotonic()
        while True:
            wait_for_locks(self.lock_wait)
            status, tail = run_shown(command, PackageProgress(progress_of))
            locked = any(message in tail for message in LOCK_MESSAGES)
            if status == 0 or not locked or time.monotonic() - began > self.lock_wait:
                break
        seconds = round(time.monotonic() - began, 1)
        self.stages.append({"name": name, "exit_status": status, "seconds": seconds})
        if status != 0 and not may_fail:
            raise ScriptFailed(f"{name} ended with status {status}: {tail[-1500:].strip()}")

    def simulated(self, *arguments: str) -> list[dict[str, Any]]:
        """What apt-get would install or upgrade if it might remove packages for that."""
        wait_for_locks(self.lock_wait)
        command = self.get("--simulate", "-o", "APT::Get::Remove=true", *arguments)
        printed = run_program(command, environment=PACKAGE_ENVIRONMENT)
        return simulated_updates(printed)

    def not_upgraded(self, left: Collection[str]) -> tuple[list[str], list[str]]:
        """What stays back though there is a newer version, beside what is `left` to upgrade: names
        that are held, and names whose upgrade would remove other packages.
        """
        # With -y apt refuses to change what is on hold; this only asks what it would do.
        asked = ("--ignore-hold", "--allow-change-held-packages", "dist-upgrade")
        possible = {update["name"] for update in self.simulated(*asked)}
        held = possible & set(run_program(["apt-mark", "showhold"]).split())
        return sorted(held), sorted(possible - held - set(left))


class PackageProgress:
    """Turns apt's status lines into patch_progress events: packages done of all that change."""

    def __init__(self, of: int) -> None:
        self.of = of
        self.done: set[str] = set()
        self.rest = b""
        self.events = Progress("patch_progress")

    def read(self, descriptor: int) -> bool:
        """Take what has come through the descriptor and tell it; False when nothing more comes."""
        chunk = os.read(descriptor, 65536)
        self.rest += chunk
        *lines, self.rest = self.rest.split(b"\n")
        percent, phase = 0.0, ""
        for line in lines:
            match = STATUS.match(line.decode(errors="replace").strip())
            if match:
                kind, package, share, text = match.groups()
                percent, phase = float(share), "download" if kind == "dlstatus" else "install"
                if text.startswith("Installed "):
                    self.done.add(package)
        if phase and self.of:
            done = min(len(self.done), self.of)
            self.events.show(done=done, of=self.of, percent=round(percent), phase=phase)
        return bool(chunk)


class ShownOutput:
    """Shows what a program prints, line by line, and keeps the end of it."""

    def __init__(self) -> None:
        self.tail: list[str] = []
        self.rest = b""

    def read(self, descriptor: int) -> bool:
        """Take what has come through the descriptor; False when nothing more comes."""
        chunk = os.read(descriptor, 65536)
        *lines, self.rest = (self.rest + chunk).split(b"\n")
        for line in lines:
            self.show(line)
        return bool(chunk)

    def end(self) -> None:
        """Show a last line that was not ended."""
        if self.rest:
            self.show(self.rest)
            self.rest = b""

    def show(self, line: bytes) -> None:
        text = line.decode(errors="replace").rstrip()
        say(text)
        self.tail = [*self.tail[-39:], text]


def run_shown(command: Sequence[str], progress: PackageProgress) -> tuple[int, str]:
    """Run a command, show what it prints, tell its progress; gives its status and last output.

    Both of its pipes are emptied as they fill: apt writes two status lines a second during a
    download and prints nothing, and it would wait for ever in front of a full pipe. A daemon that
    it started may keep the pipes open; the end of the command itself is enough.
    """
    reader, writer = os.pipe()
    output = ShownOutput()
    arguments = list(command)
    if arguments[0] == "apt-get":
        arguments[1:1] = ["-o", f"APT::Status-Fd={writer}"]
    with (
        selectors.DefaultSelector() as pipes,
        subprocess.Popen(
            arguments,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            pass_fds=(writer,),
            env=program_environment(PACKAGE_ENVIRONMENT),
        ) as process,
    ):
        os.close(writer)
        pipes.register(reader, selectors.EVENT_READ, progress.read)
        if process.stdout is not None:
            pipes.register(process.stdout, selectors.EVENT_READ, output.read)
        while pipes.get_map():
            ready = pipes.select(timeout=SECONDS_BETWEEN_LOOKS)
            for pipe in (key for key, _ in ready if not key.data(key.fd)):
                pipes.unregister(pipe.fileobj)
            if not ready and process.poll() is not None:
                break
    os.close(reader)
    output.end()
    return process.returncode, "\n".join(output.tail)


def wait_for_locks(seconds: float) -> None:
    """Wait until nobody else works with packages; `dpkg` and `apt-get update` would not wait."""
    deadline = time.monotonic() + seconds
    told = False
    while any(is_locked(path) for path in LOCKS):
        if not told:
            say("another package manager is at work: waiting for it")
            told = True
        if time.monotonic() > deadline:
            raise ScriptFailed(
                f"the package lock was not free within {seconds:.0f} s", "unavailable"
            )
        time.sleep(1)


def is_locked(path: str) -> bool:
    """Does another process hold dpkg's or apt's (POSIX) lock?"""
    try:
        descriptor = os.open(path, os.O_RDWR)
    except FileNotFoundError:
        return False
    try:
        fcntl.lockf(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return True
    finally:
        os.close(descriptor)
    return False
