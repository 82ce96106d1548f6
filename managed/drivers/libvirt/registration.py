"""Is this a node? Asked once, when it is registered, so that a wrong address or folder is refused
then and not by the first server's job.
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Final

from managed.domain.errors import HypervisorUnavailable, InvalidInput
from managed.drivers.processes import with_parent_death_signal

CONNECT_SECONDS: Final = 15.0
_LONGEST_ANSWER: Final = 500
# Both run a program of the address's choice on this machine.
_RUNS_A_PROGRAM: Final = re.compile(r"^qemu\+ext:|[?&;]command=", re.IGNORECASE)

# libvirt knows no time limit for connecting, and a thread that hangs in it cannot be ended.
_CONNECT: Final = """
import sys, libvirt
libvirt.registerErrorHandler(lambda _context, _error: None, None)
try:
    libvirt.open(sys.stdin.read()).getCapabilities()
except libvirt.libvirtError as error:
    sys.exit(str(error))
"""


def check_node(uri: str, storage_dir: str, connect_seconds: float = CONNECT_SECONDS) -> None:
    """Returns when libvirt answers at `uri` and disks can be kept in `storage_dir`.

    InvalidInput for a folder that is none or cannot be written, and for an address that would run
    a program here; HypervisorUnavailable when libvirt does not answer within `connect_seconds`.
    """
    if _RUNS_A_PROGRAM.search(uri):
        raise InvalidInput(
            "this libvirt address would run a program on the service's machine",
            hint="Use a local address, ssh or tls, without the parameter command.",
            field="libvirt_uri",
        )
    _check_directory(storage_dir)
    _check_libvirt(uri, connect_seconds)


def _check_directory(storage_dir: str) -> None:
    path = Path(storage_dir)
    if not path.is_absolute() or str(path) != os.path.normpath(storage_dir):
        raise _bad_directory("is not an absolute path in its plain form", storage_dir)
    if not path.is_dir():
        raise _bad_directory("is no folder that can be reached from here", storage_dir)
    try:
        with tempfile.TemporaryFile(dir=path, prefix=".managed-"):
            pass
    except OSError as error:
        raise _bad_directory(f"cannot be written: {error.strerror}", storage_dir) from error


def _bad_directory(what: str, storage_dir: str) -> InvalidInput:
    return InvalidInput(
        f"the storage folder {storage_dir} {what}",
        hint="Name an existing folder that both the service and the node's libvirt can write to"
        " under this path.",
        field="storage_dir",
    )


def _check_libvirt(uri: str, connect_seconds: float) -> None:
    # A session of its own: without a terminal ssh cannot ask anybody for a password.
    child = subprocess.Popen(
        with_parent_death_signal((sys.executable, "-c", _CONNECT)),
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        start_new_session=True,
        text=True,
        errors="replace",
    )
    try:
        _, said = child.communicate(uri, timeout=connect_seconds)
    except subprocess.TimeoutExpired:
        said = f"no answer within {connect_seconds:.0f} s"
        os.killpg(child.pid, signal.SIGKILL)
        child.wait()
    if child.returncode != 0:
        raise HypervisorUnavailable(
            f"libvirt at {uri} does not answer: {said.strip()[-_LONGEST_ANSWER:]}",
            hint="Try it on the service's machine: virsh --connect with this address.",
            retry_after=5.0,
            uri=uri,
        )
