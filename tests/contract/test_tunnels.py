"""The contract of Tunnels, for the fake and for the real one on a cell."""

from __future__ import annotations

import signal
import socketserver
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from managed.domain.connections import Endpoint
from managed.domain.errors import (
    CommandFailed,
    HostKeyChanged,
    InvalidInput,
    LoginRefused,
    ServerUnreachable,
)
from managed.drivers.fakes.shell import FakeServer, FakeShell
from managed.drivers.fakes.tunnels import FakeTunnel, FakeTunnels
from managed.drivers.ssh.keys import new_key_pair
from managed.drivers.ssh.shell import SshShell
from managed.drivers.ssh.tunnels import OpenTunnel, SshTunnels
from managed.lab.cells import Cell
from managed.ports import TunnelHandle, Tunnels
from tests.support.cells import StartCell
from tests.support.waiting import wait_until

REMOTE = "/run/managed/gateway.sock"

ASK = """
import socket, sys
connection = socket.socket(socket.AF_UNIX)
connection.connect(sys.argv[1])
connection.sendall(sys.argv[2].encode())
connection.shutdown(socket.SHUT_WR)
print(connection.makefile().read())
"""


@dataclass
class Stage:
    tunnels: Tunnels
    endpoint: Endpoint
    cut: Callable[[TunnelHandle], None]


def cut_fake(handle: TunnelHandle) -> None:
    assert isinstance(handle, FakeTunnel)
    handle.cut()


def cut_real(handle: TunnelHandle) -> None:
    assert isinstance(handle, OpenTunnel)
    handle.process.kill()


def real_stage(cell: Cell) -> Stage:
    return Stage(SshTunnels(SshShell()), cell.endpoint, cut_real)


@pytest.fixture(params=["fake", pytest.param("real", marks=pytest.mark.cell)])
def stage(request: pytest.FixtureRequest) -> Stage:
    if request.param == "real":
        return real_stage(request.getfixturevalue("cell"))
    host, login, shell = new_key_pair(), new_key_pair(), FakeShell()
    shell.add("127.0.0.1", 22, FakeServer(host.public_key, login.private_key))
    endpoint = Endpoint("127.0.0.1", 22, "root", host.public_key, login.private_key)
    return Stage(FakeTunnels(shell), endpoint, cut_fake)


class Shout(socketserver.StreamRequestHandler):
    def handle(self) -> None:
        self.wfile.write(self.rfile.read().upper())


@pytest.fixture
def local_socket(tmp_path: Path) -> Iterator[str]:
    """A server that shouts back what it hears."""
    path = str(tmp_path / "here.sock")
    with socketserver.ThreadingUnixStreamServer(path, Shout) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield path
        server.shutdown()
        thread.join()


def ask(endpoint: Endpoint, text: str) -> str:
    """Talk through the tunnel, from the server."""
    command = ["python3", "-c", ASK, REMOTE, text]
    return SshShell().run(endpoint, command, timeout=20).stdout.strip()


def test_a_tunnel_is_open_until_it_is_left(stage: Stage, local_socket: str) -> None:
    with stage.tunnels.reverse_socket(stage.endpoint, REMOTE, local_socket) as tunnel:
        assert tunnel.is_open
    assert not tunnel.is_open


def test_a_lost_connection_shows_and_can_be_opened_again(stage: Stage, local_socket: str) -> None:
    with stage.tunnels.reverse_socket(stage.endpoint, REMOTE, local_socket) as tunnel:
        stage.cut(tunnel)
        wait_until(lambda: not tunnel.is_open, timeout=10, what="the tunnel is closed")
        with stage.tunnels.reverse_socket(stage.endpoint, REMOTE, local_socket) as second:
            assert second.is_open


def test_failures_are_told_apart(stage: Stage, local_socket: str) -> None:
    other = new_key_pair()
    for endpoint, error in (
        (replace(stage.endpoint, host_key=other.public_key), HostKeyChanged),
        (replace(stage.endpoint, private_key=other.private_key), LoginRefused),
        (replace(stage.endpoint, port=1), ServerUnreachable),
    ):
        opening = stage.tunnels.reverse_socket(endpoint, REMOTE, local_socket)
        with pytest.raises(error):
            opening.__enter__()


def test_a_path_that_ssh_would_read_otherwise_is_refused(stage: Stage) -> None:
    opening = stage.tunnels.reverse_socket(stage.endpoint, REMOTE, "/tmp/a:b")
    with pytest.raises(InvalidInput):
        opening.__enter__()


# ---------------------------------------------------------------- only the real one can show these


@pytest.mark.cell
def test_data_flows_both_ways_also_after_a_reconnect(cell: Cell, local_socket: str) -> None:
    tunnels = SshTunnels(SshShell())
    with tunnels.reverse_socket(cell.endpoint, REMOTE, local_socket) as first:
        assert ask(cell.endpoint, "hello") == "HELLO"
        first.process.kill()
        first.process.wait()
        with tunnels.reverse_socket(cell.endpoint, REMOTE, local_socket):
            assert ask(cell.endpoint, "again") == "AGAIN"


@pytest.mark.cell
def test_an_older_connection_that_dies_late_does_no_harm(cell: Cell, local_socket: str) -> None:
    """As after a network failure that the server notices long after us."""
    tunnels = SshTunnels(SshShell())
    with tunnels.reverse_socket(cell.endpoint, REMOTE, local_socket) as old:
        old.process.send_signal(signal.SIGSTOP)
        with tunnels.reverse_socket(cell.endpoint, REMOTE, local_socket):
            sessions = SshShell().run(cell.endpoint, ["pgrep", "-c", "sshd"]).stdout
            old.process.kill()
            wait_until(
                lambda: SshShell().run(cell.endpoint, ["pgrep", "-c", "sshd"]).stdout != sessions,
                timeout=20,
                what="the server has dropped the old connection",
            )
            assert ask(cell.endpoint, "still there") == "STILL THERE"


@pytest.mark.cell
def test_the_socket_is_only_roots(cell: Cell, local_socket: str) -> None:
    with SshTunnels(SshShell()).reverse_socket(cell.endpoint, REMOTE, local_socket):
        command = ["stat", "-c", "%U %a", REMOTE, "/run/managed"]
        assert SshShell().run(cell.endpoint, command).stdout == "root 600\nroot 700\n"


@pytest.mark.cell
def test_keys_are_gone_as_soon_as_the_tunnel_is_open(cell: Cell, local_socket: str) -> None:
    with SshTunnels(SshShell()).reverse_socket(cell.endpoint, REMOTE, local_socket) as tunnel:
        arguments = Path(f"/proc/{tunnel.process.pid}/cmdline").read_text().split("\0")
    (known_hosts,) = (word for word in arguments if word.startswith("-oUserKnownHostsFile="))
    assert not Path(known_hosts.partition("=")[2]).parent.exists()


@pytest.mark.cell
def test_a_server_that_refuses_forwarding_says_so(
    start_test_cell: StartCell, local_socket: str
) -> None:
    shell, cell = SshShell(), start_test_cell()
    shell.write_file(
        cell.endpoint, "/etc/ssh/sshd_config.d/01-no.conf", b"DisableForwarding yes\n", 0o644
    )
    shell.run(cell.endpoint, ["systemctl", "restart", "ssh"])
    opening = SshTunnels(shell).reverse_socket(cell.endpoint, REMOTE, local_socket)
    with pytest.raises(CommandFailed, match="refuses to forward"):
        opening.__enter__()


OPEN_AND_REPORT = """
import sys, threading
from pathlib import Path
from managed.drivers.ssh.shell import SshShell
from managed.drivers.ssh.tunnels import SshTunnels
from managed.lab.cells import load_cell

cell = load_cell(Path(sys.argv[1]), sys.argv[2])
tunnel = SshTunnels(SshShell()).reverse_socket(cell.endpoint, sys.argv[3], "/nowhere")

def open_it():
    print(tunnel.__enter__().process.pid, flush=True)

thread = threading.Thread(target=open_it)
thread.start()
thread.join()
sys.stdin.read()
"""


@pytest.mark.cell
def test_ssh_dies_with_its_worker_and_not_with_the_thread_that_opened_it(cell: Cell) -> None:
    state_dir = str(cell.directory.parents[1])
    with subprocess.Popen(
        [sys.executable, "-c", OPEN_AND_REPORT, state_dir, cell.name, REMOTE],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as worker:
        assert worker.stdout is not None
        ssh = int(worker.stdout.readline())
        assert Path(f"/proc/{ssh}/comm").read_text() == "ssh\n"
        assert not has_ended(ssh)
        worker.kill()
        wait_until(lambda: has_ended(ssh), timeout=10, what="ssh is gone")


def has_ended(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().split()[2] in "ZX"
    except (FileNotFoundError, ProcessLookupError):
        return True
