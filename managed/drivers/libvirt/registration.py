"""Is this a node? Asked once, when it is registered, so that a wrong address or folder is refused
then and not by the first server's job.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Final
from urllib.parse import parse_qsl, urlsplit

from managed.domain.errors import HypervisorUnavailable, InvalidInput
from managed.drivers.processes import with_parent_death_signal

CONNECT_SECONDS: Final = 15.0
_LONGEST_ANSWER: Final = 500
# What an address may hold. Much of the rest runs a program of the address's choice on this machine
# (the transport ext, the parameter command), trusts whoever answers (no_verify), or opens another
# driver than the one that is meant (name, the path /embed).
_SCHEMES: Final = frozenset({"qemu", "qemu+unix", "qemu+ssh", "qemu+tls", "qemu+tcp"})
_PARAMETERS: Final = frozenset({"keyfile", "mode", "no_tty", "pkipath", "socket"})
_PATHS: Final = frozenset({"/system", "/session"})

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

    InvalidInput for a folder that is none or cannot be written, and for an address with a part that
    is not taken; HypervisorUnavailable when libvirt does not answer within `connect_seconds`.
    """
    refusal = address_refusal(uri)
    if refusal is not None:
        raise InvalidInput(
            f"this libvirt address is not taken: {refusal}",
            hint="Such as qemu:///system, qemu+ssh://root@node/system or qemu+tls://node/system;"
            f" the parameters {', '.join(sorted(_PARAMETERS))} are known.",
            field="libvirt_uri",
        )
    _check_directory(storage_dir)
    _check_libvirt(uri, connect_seconds)


def address_refusal(uri: str) -> str | None:
    """Why this libvirt address is not taken, or None. Names of parameters are compared as libvirt
    reads them, which decodes percent signs and takes ";" for "&".
    """
    if not uri.isascii() or not uri.isprintable():
        return "it has characters that have no place in an address"
    try:
        parts = urlsplit(uri)
        login, host = parts.username or "", parts.hostname or ""
        parameters = parse_qsl(parts.query.replace(";", "&"), keep_blank_values=True)
    except ValueError as error:
        return str(error)
    unknown = sorted({name for name, _ in parameters} - _PARAMETERS)
    if parts.scheme not in _SCHEMES:
        return f"the transport of {parts.scheme} is unknown, or could run a program here"
    if parts.path not in _PATHS or parts.fragment:
        return "it has to end in /system or /session"
    if unknown:
        return f"the parameter {unknown[0]} is unknown, or could run a program here"
    if login.startswith("-") or host.startswith("-"):
        return "login and host may not look like an option"
    return None


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
