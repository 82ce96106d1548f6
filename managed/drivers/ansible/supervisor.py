"""Runs ansible-playbook so that nothing of it outlives the worker that wanted it.

    python -m managed.drivers.ansible.supervisor SOCKET DIRECTORY COMMAND…

It connects to the worker's socket and works only after a "go": by then the worker has recorded
this process. The connection is also its lifeline. When it closes, or the parent dies, everything
below is killed: ansible's forks sit in sessions of their own, so a signal to the process group
would miss them; as their reaper this process finds them. When the worker died, the private
DIRECTORY (with the server's key) is removed too.
"""

from __future__ import annotations

import ctypes
import os
import select
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Sequence
from types import FrameType
from typing import Final, NoReturn

from managed.drivers import processes

NOT_STARTED: Final = 97
ENDED_EARLY: Final = 98

_PR_SET_PDEATHSIG: Final = 1
_PR_SET_CHILD_SUBREAPER: Final = 36
_GO: Final = b"go"


class _ToldToEnd(Exception):
    pass


def main(arguments: Sequence[str]) -> int:
    socket_path, directory, *command = arguments
    parent = os.getppid()
    signal.signal(signal.SIGTERM, _end)
    _prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
    _prctl(_PR_SET_CHILD_SUBREAPER, 1)
    status = NOT_STARTED
    try:
        with socket.socket(socket.AF_UNIX) as lifeline:
            lifeline.connect(socket_path)
            if lifeline.recv(len(_GO)) == _GO:
                status = ENDED_EARLY
                status = _run(command, lifeline)
    except (_ToldToEnd, OSError):
        pass
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        processes.kill_until_none(_below, timeout=10)
        if os.getppid() != parent:
            shutil.rmtree(directory, ignore_errors=True)
    return status


def _run(command: Sequence[str], lifeline: socket.socket) -> int:
    """Run the command until it ends by itself; ENDED_EARLY when the lifeline closed first."""
    identity = processes.identity_of(os.getpid())
    if identity is None:
        return NOT_STARTED
    environment = {**os.environ, processes.MARK_VARIABLE: identity.mark}
    environment.pop("PYTHONPATH", None)
    child = subprocess.Popen(processes.with_parent_death_signal(command), env=environment)
    handle = os.pidfd_open(child.pid)
    poller = select.poll()
    poller.register(handle, select.POLLIN)
    poller.register(lifeline, select.POLLIN)
    ready = {descriptor for descriptor, _ in poller.poll()}
    os.close(handle)
    return child.wait() if lifeline.fileno() not in ready else ENDED_EARLY


def _below() -> Sequence[int]:
    return processes.descendants(os.getpid(), processes.running_processes())


def _end(_number: int, _frame: FrameType | None) -> NoReturn:
    raise _ToldToEnd


def _prctl(option: int, value: int) -> None:
    library = ctypes.CDLL(None, use_errno=True)
    if library.prctl(option, value, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "prctl")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
