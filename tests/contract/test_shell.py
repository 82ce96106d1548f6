"""The contract of RemoteShell, for the fake and for the real one on a cell."""

from __future__ import annotations

import os
import socket
import stat
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from managed.domain.connections import Endpoint
from managed.domain.errors import (
    EvidenceMissing,
    HostKeyChanged,
    LoginRefused,
    NotFound,
    ServerUnreachable,
)
from managed.drivers.fakes.shell import FakeServer, FakeShell
from managed.drivers.ssh.keys import new_key_pair
from managed.drivers.ssh.shell import SshShell
from managed.lab.cells import Cell, start_cell, stop_cell
from managed.ports import RemoteShell
from tests.support.cells import StartCell
from tests.support.waiting import wait_until

Reached = tuple[RemoteShell, Endpoint]


def fake_server() -> Reached:
    host, login, shell = new_key_pair(), new_key_pair(), FakeShell()
    shell.add("127.0.0.1", 22, FakeServer(host.public_key, login.private_key))
    return shell, Endpoint("127.0.0.1", 22, "root", host.public_key, login.private_key)


@pytest.fixture(params=["fake", pytest.param("real", marks=pytest.mark.cell)])
def reached(request: pytest.FixtureRequest) -> Reached:
    if request.param == "fake":
        return fake_server()
    return SshShell(), request.getfixturevalue("cell").endpoint


def test_arguments_arrive_as_they_are(reached: Reached) -> None:
    shell, endpoint = reached
    text = "two words, 'quotes', $HOME; *\n\\"
    assert shell.run(endpoint, ["printf", "%s", text]).stdout == text


def test_a_failing_command_is_a_result(reached: Reached) -> None:
    shell, endpoint = reached
    assert shell.run(endpoint, ["false"]).exit_status == 1
    assert shell.run(endpoint, ["no-such-program"]).exit_status == 127


def test_input_reaches_the_command_whole(reached: Reached) -> None:
    shell, endpoint = reached
    text = "äöü\0\r\n" * 300_000
    assert shell.run(endpoint, ["cat"], stdin=text.encode()).stdout == text


def test_output_that_is_no_utf8_is_decoded_with_replacement(reached: Reached) -> None:
    shell, endpoint = reached
    assert shell.run(endpoint, ["cat"], stdin=b"a\xffb").stdout == "a\N{REPLACEMENT CHARACTER}b"


def test_a_file_comes_back_as_it_was_written(reached: Reached) -> None:
    shell, endpoint = reached
    content = bytes(range(256)) * 5000
    shell.write_file(endpoint, "/root/some file", b"earlier", 0o600)
    shell.write_file(endpoint, "/root/some file", content, 0o640)
    assert shell.read_file(endpoint, "/root/some file") == content


def test_a_missing_file_is_not_found(reached: Reached) -> None:
    shell, endpoint = reached
    with pytest.raises(NotFound):
        shell.read_file(endpoint, "/root/no-such-file")


def test_more_than_the_limit_is_not_kept(reached: Reached) -> None:
    shell, endpoint = reached
    shell.write_file(endpoint, "/root/large", b"x" * 3_000_000, 0o600)
    with pytest.raises(EvidenceMissing, match="larger than 2999999"):
        shell.read_file(endpoint, "/root/large", limit=2_999_999)
    assert len(shell.read_file(endpoint, "/root/large", limit=3_000_000)) == 3_000_000


def test_another_host_key_is_refused(reached: Reached) -> None:
    shell, endpoint = reached
    with pytest.raises(HostKeyChanged):
        shell.run(replace(endpoint, host_key=new_key_pair().public_key), ["true"])


def test_a_wrong_login_key_is_refused(reached: Reached) -> None:
    shell, endpoint = reached
    with pytest.raises(LoginRefused):
        shell.run(replace(endpoint, private_key=new_key_pair().private_key), ["true"])


def test_nobody_listening_is_unreachable(reached: Reached) -> None:
    shell, endpoint = reached
    with pytest.raises(ServerUnreachable):
        shell.boot_id(replace(endpoint, port=1))
    with pytest.raises(ServerUnreachable):
        shell.host_key(endpoint.address, 1)


def test_a_command_that_takes_too_long_is_unreachable(reached: Reached) -> None:
    shell, endpoint = reached
    with pytest.raises(ServerUnreachable):
        shell.run(endpoint, ["sleep", "31.4159"], timeout=0.5)
    assert shell.run(endpoint, ["true"]).exit_status == 0


def test_the_shown_host_key_is_the_pinned_one(reached: Reached) -> None:
    shell, endpoint = reached
    assert shell.host_key(endpoint.address, endpoint.port) == endpoint.host_key


def test_the_boot_id_stays_during_a_boot(reached: Reached) -> None:
    shell, endpoint = reached
    assert len(shell.boot_id(endpoint)) == 36
    assert shell.boot_id(endpoint) == shell.boot_id(endpoint)


# ---------------------------------------------------------------- only the real one can show these


@pytest.mark.cell
def test_a_command_that_took_too_long_is_killed_on_the_server(cell: Cell) -> None:
    shell = SshShell()
    with pytest.raises(ServerUnreachable):
        shell.run(cell.endpoint, ["sleep", "27.1828"], timeout=0.5)
    search = ["pgrep", "-f", "[s]leep 27.1828"]
    wait_until(
        lambda: shell.run(cell.endpoint, search).exit_status == 1, timeout=20, what="it is gone"
    )


@pytest.mark.cell
def test_big_output_comes_whole(cell: Cell) -> None:
    result = SshShell().run(cell.endpoint, ["head", "-c", "50000000", "/dev/zero"])
    assert len(result.stdout) == 50_000_000


@pytest.mark.cell
def test_a_written_file_has_its_mode_and_leaves_nothing_beside_it(cell: Cell) -> None:
    shell = SshShell()
    shell.run(cell.endpoint, ["mkdir", "-p", "/root/written"])
    shell.write_file(cell.endpoint, "/root/written/file", b"content", 0o604)
    directory = cell.root_dir / "root/written"
    assert [entry.name for entry in directory.iterdir()] == ["file"]
    assert stat.S_IMODE((directory / "file").stat().st_mode) == 0o604


@pytest.mark.cell
def test_a_host_key_of_another_kind_is_a_changed_one(cell: Cell) -> None:
    rsa = (Path(__file__).parent / "data" / "rsa_host_key.pub").read_text().strip()
    with pytest.raises(HostKeyChanged):
        SshShell().boot_id(replace(cell.endpoint, host_key=rsa))


@pytest.mark.cell
def test_more_commands_at_a_time_than_sessions_allowed(cell: Cell) -> None:
    shell, statuses = SshShell(), []

    def one() -> None:
        statuses.append(shell.run(cell.endpoint, ["sleep", "0.2"]).exit_status)

    threads = [threading.Thread(target=one) for _ in range(25)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert statuses == [0] * 25


@pytest.mark.cell
def test_a_forked_child_opens_a_connection_of_its_own(cell: Cell) -> None:
    shell = SshShell()
    boot_id = shell.boot_id(cell.endpoint)
    child = os.fork()
    if child == 0:
        try:
            os._exit(0 if shell.boot_id(cell.endpoint) == boot_id else 1)
        finally:
            os._exit(2)
    assert os.waitpid(child, 0)[1] == 0
    assert shell.boot_id(cell.endpoint) == boot_id


@pytest.mark.cell
def test_a_held_connection_that_a_reboot_cut_is_replaced(start_test_cell: StartCell) -> None:
    shell, rebooted = SshShell(), start_test_cell()
    before = shell.boot_id(rebooted.endpoint)
    stop_cell(rebooted)
    with pytest.raises(ServerUnreachable):
        shell.boot_id(rebooted.endpoint)
    start_cell(rebooted.directory.parents[1], rebooted.base_root, rebooted.name)
    assert shell.boot_id(rebooted.endpoint) != before


@pytest.fixture
def silent_server() -> Iterator[Endpoint]:
    """Takes connections and says nothing."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        keys = new_key_pair()
        port = listener.getsockname()[1]
        yield Endpoint("127.0.0.1", port, "root", keys.public_key, keys.private_key)


@pytest.mark.integration
def test_a_server_that_says_nothing_is_unreachable_in_time(silent_server: Endpoint) -> None:
    started = time.monotonic()
    with pytest.raises(ServerUnreachable):
        SshShell().run(silent_server, ["true"], timeout=1)
    assert time.monotonic() - started < 5


def test_fresh_login_tells_the_same_boot_over_a_connection_of_its_own(reached: Reached) -> None:
    shell, endpoint = reached
    assert shell.fresh_login(endpoint) == shell.boot_id(endpoint)
    stranger = replace(endpoint, private_key=new_key_pair().private_key)
    with pytest.raises(LoginRefused):
        shell.fresh_login(stranger)
