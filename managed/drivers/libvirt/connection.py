"""The connection to libvirt: opened when needed, opened again when lost; errors translated."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from threading import RLock
from typing import Any

import libvirt

from managed.domain.errors import (
    HypervisorError,
    HypervisorUnavailable,
    ManagedError,
    MissingRequirement,
    NotFound,
)

_CONNECTION_DOMAINS = frozenset({libvirt.VIR_FROM_RPC, libvirt.VIR_FROM_REMOTE})
_CONNECTION_CODES = frozenset(
    {libvirt.VIR_ERR_NO_CONNECT, libvirt.VIR_ERR_INVALID_CONN, libvirt.VIR_ERR_AUTH_FAILED}
)


def translated(error: libvirt.libvirtError, uri: str) -> ManagedError:
    """The error of ours that says what libvirt's says."""
    code, text = error.get_error_code(), error.get_error_message() or str(error)
    if error.get_error_domain() in _CONNECTION_DOMAINS or code in _CONNECTION_CODES:
        return HypervisorUnavailable(
            f"libvirt at {uri} does not answer: {text}", retry_after=5.0, uri=uri
        )
    if code == libvirt.VIR_ERR_NO_DOMAIN:
        return NotFound("There is no such server on this node", uri=uri)
    if "host forwarding rule" in text:
        return HypervisorError(
            "A port of the node that should lead to the server is taken",
            hint="End what listens there, or create the server with another port.",
            reason=text,
        )
    return HypervisorError(f"libvirt refused or failed: {text}", libvirt_code=code)


class Connection:
    """One shared connection per process; safe to use from several threads."""

    def __init__(self, uri: str) -> None:
        self._uri = uri
        self._lock = RLock()
        self._opened: Any = None
        self._process = 0
        # libvirt prints every error to standard error otherwise.
        libvirt.registerErrorHandler(lambda _context, _error: None, None)

    @contextmanager
    def use(self) -> Iterator[Any]:
        """The libvirt connection, known to answer now.

        What libvirt or the file system raise in the block comes out as an error of ours.
        """
        try:
            yield self._answering()
        except libvirt.libvirtError as error:
            raise translated(error, self._uri) from error
        except PermissionError as error:
            raise MissingRequirement(
                f"This process may not use {error.filename}",
                hint="Run as the user that the node's directories belong to.",
            ) from error
        except OSError as error:
            raise HypervisorError(f"A file of the node could not be used: {error}") from error

    def close(self) -> None:
        with self._lock:
            if self._opened is not None and self._process == os.getpid():
                self._opened.close()
            self._opened = None

    def _answering(self) -> Any:
        with self._lock:
            # A connection inherited over fork shares its socket with the parent: leave it alone.
            if self._process != os.getpid():
                self._opened, self._process = None, os.getpid()
            if self._opened is not None:
                try:
                    self._opened.getLibVersion()
                except libvirt.libvirtError:
                    self._opened = None
            if self._opened is None:
                self._opened = libvirt.open(self._uri)
            return self._opened
