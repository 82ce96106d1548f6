"""What asyncssh and the network raise, said in our words."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager

import asyncssh

from managed.domain.errors import (
    EvidenceMissing,
    HostKeyChanged,
    InvalidInput,
    LoginRefused,
    ManagedError,
    ServerUnreachable,
)
from managed.drivers.ssh.commands import NotStarted, TooMuchOutput


def host_key_changed(address: str) -> HostKeyChanged:
    return HostKeyChanged(
        f"{address} showed another SSH host key than the pinned one",
        hint="Find out why before you pin a new key: a reinstalled server, or somebody between.",
        server=address,
    )


def login_refused(address: str) -> LoginRefused:
    return LoginRefused(
        f"{address} refused the login with our key",
        hint="Is our public key in the user's authorized_keys, and may that user log in?",
        server=address,
    )


def unreachable(address: str, reason: str) -> ServerUnreachable:
    return ServerUnreachable(f"{address} does not answer: {reason}", server=address)


def too_large(address: str, limit: int) -> EvidenceMissing:
    return EvidenceMissing(f"what {address} sent is larger than {limit} bytes", server=address)


@contextmanager
def translated(address: str) -> Iterator[None]:
    """Turn every failure of a connection into one of ours; `address` is how people know it."""
    try:
        yield
    except ManagedError:
        raise
    except (asyncssh.HostKeyNotVerifiable, asyncssh.KeyExchangeFailed) as error:
        # No key exchange: it no longer offers any key of the pinned kind.
        raise host_key_changed(address) from error
    except asyncssh.PermissionDenied as error:
        raise login_refused(address) from error
    except (ValueError, asyncssh.KeyImportError, asyncssh.KeyEncryptionError) as error:
        raise InvalidInput(f"an SSH key for {address} cannot be read", server=address) from error
    except TooMuchOutput as error:
        raise too_large(address, error.limit) from error
    except NotStarted as error:
        raise unreachable(address, str(error)) from error
    except TimeoutError as error:
        raise unreachable(address, "time is up") from error
    except (asyncssh.Error, OSError) as error:
        raise unreachable(address, network_reason(error)) from error


def network_reason(error: Exception) -> str:
    """Why nobody answers, as the system's own words for people: what asyncio and asyncssh make of
    them is for programmers.
    """
    if isinstance(error, OSError) and not isinstance(error, socket.gaierror) and error.errno:
        return os.strerror(error.errno)
    if isinstance(error, socket.gaierror):
        return str(error.strerror)
    return str(error) or type(error).__name__
