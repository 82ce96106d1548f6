from __future__ import annotations

import pytest

from managed.domain.connections import Endpoint
from managed.domain.errors import InvalidInput
from managed.domain.secrets import Secret
from managed.drivers.ssh.shell import SshShell
from managed.lab.breakage import break_server


@pytest.mark.parametrize("serial", ["", "sr v", "srv-'; reboot", "x" * 21])
def test_what_is_no_serial_reaches_no_server(serial: str) -> None:
    endpoint = Endpoint("127.0.0.1", 1, "root", "ssh-ed25519 AAAA", Secret("none"))
    with pytest.raises(InvalidInput):
        break_server(SshShell(), endpoint, serial)
