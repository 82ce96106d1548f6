"""What the breaking of a server refuses, in a cell; the main job's test shows that it works."""

from __future__ import annotations

import pytest

from managed.domain.errors import CommandFailed
from managed.drivers.ssh.shell import SshShell
from managed.lab.breakage import break_server
from managed.lab.cells import Cell

pytestmark = pytest.mark.cell


def test_without_the_disk_of_that_serial_nothing_is_erased(cell: Cell) -> None:
    shell = SshShell()
    with pytest.raises(CommandFailed, match="0 disks have the serial srv-nowhere"):
        break_server(shell, cell.endpoint, "srv-nowhere")
    assert shell.run(cell.endpoint, ("test", "-s", "/etc/passwd")).exit_status == 0
