#!/usr/bin/env python3
"""Runs one script on a server so that neither script nor record depends on a connection.

runner.py start            the request as one JSON document on standard input
runner.py supervise <id>   what `start` makes run, under systemd or on its own
runner.py stop <id>        end the run's processes
runner.py forget <id>      remove the record of an ended run (exit status 75: it still runs)
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from typing import Any

from managed.server_scripts._run_records import (
    GIVEN_UP,
    RUNS,
    SECONDS_TO_END,
    SECONDS_TO_START,
    kill,
    living_supervisor,
    marked_processes,
    record_of,
    sync_directory,
    take_over,
    this_boot,
    wait_until,
    write_durably,
)
from managed.server_scripts._run_secrets import drop_secrets, put_secrets
from managed.server_scripts._run_supervisor import supervise

EXIT_RUNNING = 75
SECONDS_KEPT = 14 * 24 * 3600


def start() -> None:
    request = json.load(sys.stdin)
    run_id, secrets = request["run_id"], request.pop("secrets")
    request["has_secrets"] = bool(secrets)
    record = record_of(run_id)
    os.makedirs(RUNS, mode=0o700, exist_ok=True)
    if os.path.isdir(record):
        return
    sweep()
    starting = claim(record, request)
    if starting is None:
        return
    try:
        if secrets:
            put_secrets(run_id, secrets)
        spawn(run_id)
        took_over = wait_until(
            lambda: os.path.exists(os.path.join(record, "pid")), SECONDS_TO_START
        )
        if not took_over and take_over(record, GIVEN_UP):
            sys.exit("the supervisor of the run did not start in time")
    except BaseException:
        if take_over(record, GIVEN_UP):
            drop_secrets(run_id)
        raise
    finally:
        os.close(starting)


def sweep() -> None:
    """Remove what nobody has forgotten in weeks: records of runs that ended, well or not, and what
    a start or an end that was cut off left. A job that failed forgets none, and none lasts so long.
    """
    for name in os.listdir(RUNS):
        path = os.path.join(RUNS, name)
        with contextlib.suppress(OSError):
            is_old = time.time() - os.lstat(path).st_mtime > SECONDS_KEPT
            if is_old and os.path.isdir(path) and not runs(name, path):
                remove(path)


def claim(record: str, request: dict[str, Any]) -> int | None:
    """The open, locked `starting` of the new record; None when the run id is taken."""
    prepared = tempfile.mkdtemp(prefix=".prepared-", dir=RUNS)
    try:
        write_durably(os.path.join(prepared, "script"), request.pop("script"), 0o700)
        write_durably(os.path.join(prepared, "request.json"), json.dumps(request))
        write_durably(os.path.join(prepared, "boot_id"), this_boot() + "\n")
        write_durably(os.path.join(prepared, "log"), "")
        # Its block is there already when the disk is full at the end.
        write_durably(os.path.join(prepared, ".status"), "unknown\n")
        starting = os.open(os.path.join(prepared, "starting"), os.O_RDWR | os.O_CREAT, 0o600)
        fcntl.flock(starting, fcntl.LOCK_EX)
        sync_directory(prepared)
        os.rename(prepared, record)
        sync_directory(RUNS)
        return starting
    except OSError as error:
        shutil.rmtree(prepared, ignore_errors=True)
        if error.errno in (errno.ENOTEMPTY, errno.EEXIST):
            return None
        raise


def supervisor_command(run_id: str) -> list[str]:
    return [sys.executable, "-I", "-S", os.path.abspath(__file__), "supervise", run_id]


def systemd_command(run_id: str) -> list[str]:
    """systemd only supervises: it kills what is left behind, and what it thinks of the result is
    never asked. A child that runs out of memory is the script's business, not the unit's end.
    """
    properties = ("KillMode=mixed", "OOMPolicy=continue", "TimeoutStopSec=20", "IgnoreSIGPIPE=no")
    return [
        "systemd-run",
        "--quiet",
        "--collect",
        f"--unit=managed-run-{run_id}.service",
        f"--description=managed run {run_id}",
        *(f"--property={value}" for value in properties),
        *supervisor_command(run_id),
    ]


def spawn(run_id: str) -> None:
    if os.path.isdir("/run/systemd/system"):
        subprocess.run(systemd_command(run_id), stdin=subprocess.DEVNULL, check=True)
        return
    # Without systemd: a session of its own, adopted by process 1 when we end.
    subprocess.Popen(
        supervisor_command(run_id),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
        cwd="/",
    )


def runs(run_id: str, record: str) -> bool:
    if os.path.exists(os.path.join(record, "status")):
        return False
    return living_supervisor(record) is not None or bool(marked_processes(run_id))


def stop(run_id: str) -> None:
    record = record_of(run_id)
    if not os.path.isdir(record) or os.path.exists(os.path.join(record, "status")):
        return
    with contextlib.suppress(OSError):
        write_durably(os.path.join(record, "stop"), "")
    if take_over(record, GIVEN_UP):
        drop_secrets(run_id)
    supervisor = living_supervisor(record)
    kill([supervisor] if supervisor else marked_processes(run_id), signal.SIGTERM)
    if wait_until(lambda: not runs(run_id, record), SECONDS_TO_END + 5):
        return

    def killed() -> bool:
        supervisor = living_supervisor(record)
        kill(marked_processes(run_id) + ([supervisor] if supervisor else []), signal.SIGKILL)
        return not runs(run_id, record)

    if not wait_until(killed, SECONDS_TO_END):
        sys.exit("processes of the run do not end")


def forget(run_id: str) -> None:
    record = record_of(run_id)
    if not os.path.isdir(record):
        return
    if runs(run_id, record):
        sys.exit(EXIT_RUNNING)
    remove(record)
    drop_secrets(run_id)


def remove(record: str) -> None:
    """Take the record away in one step; whoever looks for it finds all of it or nothing."""
    forgotten = tempfile.mkdtemp(prefix=".forgotten-", dir=RUNS)
    with contextlib.suppress(FileNotFoundError):
        os.rename(record, forgotten)
    shutil.rmtree(forgotten)


def main(arguments: list[str]) -> None:
    os.umask(0o077)
    actions = {"supervise": supervise, "stop": stop, "forget": forget}
    if arguments == ["start"]:
        start()
    elif len(arguments) == 2 and arguments[0] in actions:
        actions[arguments[0]](arguments[1])
    else:
        sys.exit("usage: runner.py start | supervise <id> | stop <id> | forget <id>")


if __name__ == "__main__":
    main(sys.argv[1:])
