#!/usr/bin/env python3
"""Says what a patch would find to do on the server that it runs on: one JSON document, on the last
line of what it prints. Changes nothing but the package lists, which it fetches anew.

Usage: survey_updates.py '{"only_security": bool}'

apt-get is asked with the settings and pins of apply_updates.py, so that both see the same. Nobody
is waited for: what cannot be found out now is left out, and `error` says why.

`managed.domain.surveys` reads what it prints: only_security, unfinished_patch, damaged, audit,
reboot, lists, pending, held, kept_back, error.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from managed.server_scripts._apt import PACKAGE_ENVIRONMENT, UPGRADE, Apt, wait_for_locks
from managed.server_scripts._packages import (
    STATE_FILE,
    audit_of_packages,
    damaged_packages,
    installed_packages,
    is_security,
    package_indexes,
    releases,
)
from managed.server_scripts._reboot import reboot_state
from managed.server_scripts._run import ScriptFailed, run_program, say, utc_now_text

LOCK_PATIENCE = 15


def main(arguments: Sequence[str]) -> int:
    given = json.loads(arguments[0]) if arguments else {}
    os.umask(0o022)  # the lists are for everybody to read
    with tempfile.TemporaryDirectory(prefix="managed-survey-") as directory:
        found = survey(Path(directory), bool(given.get("only_security")))
    say(json.dumps(found))
    return 0


def survey(directory: Path, only_security: bool) -> dict[str, Any]:
    """All that can be found out; `directory` is for files of ours."""
    found: dict[str, Any] = {"only_security": only_security}
    apt = Apt(directory, only_security, lock_wait=LOCK_PATIENCE)
    try:
        wait_for_locks(LOCK_PATIENCE)
        look_at_packages(found)
        look_for_updates(apt, found)
    except ScriptFailed as failure:
        found["error"] = {"code": failure.code, "detail": failure.message}
    return found


def look_at_packages(found: dict[str, Any]) -> None:
    """What is to be mended or ended by a reboot, whatever updates there are."""
    packages = installed_packages()
    found["unfinished_patch"] = STATE_FILE.exists()
    found["damaged"] = damaged_packages()
    found["audit"] = audit_of_packages().splitlines()
    found["reboot"] = reboot_state(packages, packages)


def look_for_updates(apt: Apt, found: dict[str, Any]) -> None:
    try:
        run_program(apt.get("--error-on=any", "update"), environment=PACKAGE_ENVIRONMENT)
    except ScriptFailed as failure:
        said = f"the package lists could not be fetched: {failure.message}"
        raise ScriptFailed(said, failure.code) from failure
    indexes = package_indexes()
    found["lists"] = {
        "updated_at": utc_now_text(),
        "indexes": len(indexes),
        "security_indexes": sum(map(is_security, indexes)),
        "releases": releases(),
    }
    pending = apt.simulated(*UPGRADE)
    held, kept_back = apt.not_upgraded([update["name"] for update in pending])
    found.update(pending=pending, held=held, kept_back=kept_back)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
