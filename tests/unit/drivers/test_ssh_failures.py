"""Why a server does not answer, for people."""

from __future__ import annotations

import errno
import socket

import asyncssh
import pytest

from managed.domain.errors import ServerUnreachable
from managed.drivers.ssh.failures import translated


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (
            ConnectionRefusedError(errno.ECONNREFUSED, "Connect call failed ('192.0.2.7', 22)"),
            "shop does not answer: Connection refused",
        ),
        (OSError(errno.EHOSTUNREACH, "x"), "shop does not answer: No route to host"),
        (
            socket.gaierror(socket.EAI_NONAME, "Name or service not known"),
            "shop does not answer: Name or service not known",
        ),
        (asyncssh.ConnectionLost("gone"), "shop does not answer: gone"),
        (OSError("Multiple exceptions"), "shop does not answer: Multiple exceptions"),
        (ConnectionResetError(), "shop does not answer: ConnectionResetError"),
        (TimeoutError(), "shop does not answer: time is up"),
    ],
)
def test_the_reason_is_in_the_systems_words(error: Exception, said: str) -> None:
    with pytest.raises(ServerUnreachable) as raised, translated("shop"):
        raise error
    assert raised.value.message == said
