"""The contract of Transfers, for the fake and for the real one on a cell."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from dataclasses import replace

import pytest

from managed.domain.connections import CommandResult, Endpoint
from managed.domain.errors import HostKeyChanged, LoginRefused, ServerUnreachable
from managed.drivers.fakes.shell import FakeServer, FakeShell
from managed.drivers.fakes.transfers import FakeTransfers
from managed.drivers.ssh.keys import new_key_pair
from managed.drivers.ssh.shell import SshShell
from managed.drivers.ssh.transfers import SshTransfers
from managed.lab.cells import Cell
from managed.ports import Transfers
from tests.support.waiting import wait_until

Reached = tuple[Transfers, Endpoint]
DIGEST = ("sh", "-c", "sha256sum >&2; exit 7")


def fake_server() -> Reached:
    host, login, shell = new_key_pair(), new_key_pair(), FakeShell()
    server = shell.add("127.0.0.1", 22, FakeServer(host.public_key, login.private_key))
    server.commands["sh"] = lambda _argv, given: CommandResult(
        7, "", f"{hashlib.sha256(given).hexdigest()}  -\n"
    )
    endpoint = Endpoint("127.0.0.1", 22, "root", host.public_key, login.private_key)
    return FakeTransfers(shell), endpoint


@pytest.fixture(params=["fake", pytest.param("real", marks=pytest.mark.cell)])
def reached(request: pytest.FixtureRequest) -> Reached:
    if request.param == "fake":
        return fake_server()
    return SshTransfers(), request.getfixturevalue("cell").endpoint


def test_all_that_comes_is_fed_and_how_it_ended_is_a_result(reached: Reached) -> None:
    transfers, endpoint = reached
    chunks = [os.urandom(300_000) for _ in range(8)]
    ended = transfers.send(endpoint, DIGEST, chunks, timeout=60)

    assert ended.exit_status == 7
    assert ended.stderr.split()[0] == hashlib.sha256(b"".join(chunks)).hexdigest()


def test_arguments_arrive_as_they_are(reached: Reached) -> None:
    transfers, endpoint = reached
    assert transfers.send(endpoint, ("true", "two words; 'quoted' $HOME"), (), timeout=60) == (
        CommandResult(0, "", "")
    )


def test_what_the_source_raises_goes_on(reached: Reached) -> None:
    transfers, endpoint = reached

    def breaking() -> Iterator[bytes]:
        yield b"half"
        raise ValueError("the source broke")

    with pytest.raises(ValueError, match="the source broke"):
        transfers.send(endpoint, ("cat",), breaking(), timeout=60)


def test_nobody_is_trusted_who_is_not_known(reached: Reached) -> None:
    transfers, endpoint = reached
    other = new_key_pair()
    for changed, error in (
        (replace(endpoint, host_key=other.public_key), HostKeyChanged),
        (replace(endpoint, private_key=other.private_key), LoginRefused),
        (replace(endpoint, port=1), ServerUnreachable),
    ):
        with pytest.raises(error):
            transfers.send(changed, ("true",), [b"x"], timeout=60)


@pytest.mark.cell
def test_a_command_that_ends_early_is_fed_no_more(cell: Cell) -> None:
    def endless() -> Iterator[bytes]:
        while True:
            yield bytes(100_000)

    command = ("sh", "-c", "head -c 10 >/dev/null; echo enough >&2; exit 1")
    ended = SshTransfers().send(cell.endpoint, command, endless(), timeout=60)
    assert (ended.exit_status, ended.stderr) == (1, "enough\n")


@pytest.mark.cell
def test_a_server_that_takes_nothing_is_given_up(cell: Cell) -> None:
    def endless() -> Iterator[bytes]:
        while True:
            yield bytes(1_000_000)

    with pytest.raises(ServerUnreachable, match="time is up"):
        SshTransfers().send(cell.endpoint, ("sleep", "601.25"), endless(), timeout=2)
    shell = SshShell()
    search = ("pgrep", "-f", "[s]leep 601.25")
    wait_until(
        lambda: shell.run(cell.endpoint, search).exit_status == 1,
        timeout=30,
        what="the command has ended there",
    )
