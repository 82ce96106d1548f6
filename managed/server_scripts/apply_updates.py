#!/usr/bin/env python3
"""Installs the distribution's updates on the server that it runs on, and leaves the evidence.

Input: {"only_security": bool, "time_limit": seconds}. No stage is begun after the time limit, but
none is interrupted either: packages half installed are worse than a late end.

A run after a crash goes on where that one was: dpkg's interrupted work is finished first, and the
package versions before the crash stay the ones that are reported as "before". Packages are never
removed; what could only be upgraded by a removal is kept back and named.

One run at a time: beside one that is still at work another one ends at once. Between its stages
the package lock is free, and waiting for that alone would mix the two.

result.json: lists, pending, packages_before, packages_after, kept_back, held, warnings, reboot,
outdated_processes, stages; `managed.domain.packages` reads it.
"""

from __future__ import annotations

import fcntl
import json
import os
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from managed.server_scripts._apt import KEEP_CONFIGURATION, UPGRADE, Apt
from managed.server_scripts._packages import (
    STATE_FILE,
    audit_of_packages,
    damaged_packages,
    installed_packages,
    is_security,
    package_indexes,
    releases,
)
from managed.server_scripts._reboot import outdated_processes, reboot_state
from managed.server_scripts._run import (
    ScriptFailed,
    emit,
    run_directory,
    run_script,
    say,
    utc_now_text,
    write_atomically,
)

STATE_IS_OLD = 24 * 3600
LOCK_FILE = Path("/var/lib/managed/patch.lock")


def main(given: Mapping[str, Any]) -> tuple[int, dict[str, Any]]:
    with the_only_run():
        return apply_updates(given)


def apply_updates(given: Mapping[str, Any]) -> tuple[int, dict[str, Any]]:
    """Do it all. A failure keeps the evidence gathered so far beside its error."""
    os.umask(0o022)  # maintainer scripts make files that everybody must be able to read
    only_security = bool(given.get("only_security"))
    apt = Apt(run_directory(), only_security, int(given.get("time_limit") or 0))
    result: dict[str, Any] = {
        "only_security": only_security,
        "started_at": utc_now_text(),
        "packages_before": packages_before(),
        "stages": apt.stages,
    }
    status = 0
    try:
        install_updates(apt, result)
        prove_updates(apt, result)
    except ScriptFailed as failure:
        status = 1
        say(f"failed: {failure.message}")
        result["error"] = {"code": failure.code, "detail": failure.message, "hint": failure.hint}
    result["packages_after"] = installed_packages()
    result["reboot"] = reboot_state(result["packages_before"], result["packages_after"])
    result["outdated_processes"] = outdated_processes()
    if status == 0:
        STATE_FILE.unlink(missing_ok=True)
    return status, {**result, "finished_at": utc_now_text()}


def install_updates(apt: Apt, result: dict[str, Any]) -> None:
    """Finish what was interrupted, then download and install all that waits."""
    configure = ["dpkg", "--configure", "--pending", *KEEP_CONFIGURATION]
    apt.stage("finish interrupted work", configure, may_fail=True)
    apt.stage("fetch package lists", apt.get("--error-on=any", "update"))
    result["lists"] = {"updated_at": utc_now_text(), "releases": releases()}
    unpack_damaged_again(apt)
    # Without names: with names, apt mends no others, and those that need each other not at all.
    apt.stage("repair packages", apt.get("--fix-broken", "install"))
    pending = apt.simulated(*UPGRADE)
    result["pending"] = pending
    emit("patch_pending", updates=len(pending), security=sum(u["security"] for u in pending))
    if pending:
        of = len(pending)
        apt.stage("download", apt.get("--download-only", *UPGRADE), progress_of=of)
        apt.stage("install", apt.get("--no-download", *UPGRADE), progress_of=of)


def unpack_damaged_again(apt: Apt) -> None:
    """What was killed in mid-unpacking is unpacked from the archive again, by dpkg itself: of a
    version that did not change, apt only asks dpkg to configure it, which dpkg refuses.
    """
    damaged = damaged_packages()
    if not damaged:
        return
    with tempfile.TemporaryDirectory(dir=run_directory()) as directory:
        download = ["env", f"--chdir={directory}", *apt.get("download", *damaged)]
        apt.stage("download half unpacked packages", download)
        files = sorted(str(file) for file in Path(directory).glob("*.deb"))
        unpack = ["dpkg", "--auto-deconfigure", *KEEP_CONFIGURATION, "--unpack", *files]
        apt.stage("unpack them again", unpack)


def prove_updates(apt: Apt, result: dict[str, Any]) -> None:
    """Look whether it is so; ScriptFailed when something still waits or is half done."""
    apt.stage("check dependencies", apt.get("check"))
    left = {update["name"] for update in apt.simulated(*UPGRADE)}
    result["held"], result["kept_back"] = apt.not_upgraded(left)
    result["warnings"] = [
        *(f"{name} is on hold and was not upgraded" for name in result["held"]),
        *(
            f"{name} is kept back: its upgrade would remove other packages"
            for name in result["kept_back"]
        ),
    ]
    if result["only_security"] and not any(map(is_security, package_indexes())):
        result["warnings"].append("the server has no source of security updates")
    if left:
        raise ScriptFailed("still waiting: " + ", ".join(sorted(left)))
    audit = audit_of_packages()
    if audit:
        raise ScriptFailed(f"dpkg is not content: {audit[:500]}")
    of = len(result["pending"])
    emit("patch_progress", done=of, of=of, percent=100, phase="done")


@contextmanager
def the_only_run() -> Iterator[None]:
    """ScriptFailed while another run is at work. The lock is this process's alone, and goes with
    it: programs that it starts do not inherit it.
    """
    LOCK_FILE.parent.mkdir(mode=0o700, exist_ok=True)
    with open(os.open(LOCK_FILE, os.O_WRONLY | os.O_CREAT, 0o600), "w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise ScriptFailed(
                "an earlier run of updates is still at work on this server",
                "still-running",
                "Ask again when it has ended; its processes can be seen on the server.",
            ) from error
        yield


def packages_before() -> dict[str, str]:
    """The versions before this patch; before an interrupted one if it began less than a day ago."""
    try:
        state = json.loads(STATE_FILE.read_text())
        if 0 <= time.time() - state["at"] < STATE_IS_OLD:
            say("an earlier run was interrupted: going on with it")
            return {str(name): str(version) for name, version in state["packages"].items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        pass
    packages = installed_packages()
    STATE_FILE.parent.mkdir(mode=0o700, exist_ok=True)
    state = {"at": time.time(), "packages": packages}
    write_atomically(STATE_FILE, json.dumps(state).encode())
    return packages


if __name__ == "__main__":
    run_script(main)
