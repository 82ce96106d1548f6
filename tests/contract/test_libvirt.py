"""What only the real driver has: the guest that comes up, the probe, the private daemon."""

from __future__ import annotations

import os
import signal
import socket
import stat
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import libvirt
import pytest

from managed.domain.connections import CommandResult, Endpoint, KeyPair
from managed.domain.errors import ManagedError
from managed.domain.secrets import Secret
from managed.domain.servers import PowerState, ServerSpec
from managed.drivers.libvirt import Acceleration, LibvirtHypervisor
from managed.drivers.libvirt.acceleration import PROBE_TIME_LIMIT
from managed.drivers.libvirt.disks import change_of_snapshots, create_point_command
from managed.drivers.ssh.keys import new_key_pair
from managed.drivers.ssh.shell import SshShell
from managed.lab.libvirtd import PrivateLibvirtd
from managed.ports import RescueBoot
from tests.support.hypervisors import LibvirtRig, libvirt_rig, new_rescue, new_spec
from tests.support.waiting import wait_until

pytestmark = pytest.mark.vm
needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root has a private daemon")


@pytest.fixture(scope="module")
def rig(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LibvirtRig]:
    with libvirt_rig(tmp_path_factory.mktemp("node"), Acceleration.TCG) as made:
        yield made


@pytest.fixture
def spec(rig: LibvirtRig) -> Iterator[ServerSpec]:
    made = new_spec()
    rig.hypervisor.create_server(made)
    yield made
    rig.hypervisor.destroy_server(made.server_id)


def session_with(host: KeyPair, login: KeyPair, spec: ServerSpec) -> RescueBoot:
    files = {
        "ssh_host_ed25519_key": host.private_key,
        "authorized_keys": Secret(f"{login.public_key}\n"),
        "network.env": Secret(f"MODE=dhcp\nMAC={spec.mac}\n"),
    }
    return RescueBoot("session", 256, files, image="debian-12")


def guest_process(spec: ServerSpec) -> int | None:
    """The QEMU process of a server, whatever libvirt knows of it."""
    for entry in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            words = (entry / "cmdline").read_bytes().split(b"\0")
            if f"guest=managed-{spec.server_id},debug-threads=on".encode() in words:
                return int(entry.name)
    return None


def test_rescue_comes_up_with_the_pinned_key_and_all_disks(
    rig: LibvirtRig, spec: ServerSpec
) -> None:
    node, host, login = rig.hypervisor, new_key_pair(), new_key_pair()
    node.boot_rescue_image(spec.server_id, session_with(host, login, spec))
    port = spec.forwards[0].host_port
    endpoint = Endpoint("127.0.0.1", port, "root", host.public_key, login.private_key)
    answers: list[CommandResult] = []

    def answered() -> bool:
        with suppress(ManagedError):
            serials = ["sh", "-c", "cat /sys/block/vd*/serial; cat /sys/block/vda/size"]
            answers.append(SshShell().run(endpoint, serials, timeout=5))
        return bool(answers)

    # QEMU keeps connections from before the guest listens and delivers them all at once.
    wait_until(
        lambda: "managed-rescue: network" in node.console_tail(spec.server_id),
        timeout=120,
        what="the session has its network",
    )
    wait_until(answered, timeout=60, what="SSH answers in rescue")
    for serial in (spec.disk_serial, "managed-rescue", "managed-config", "managed-image"):
        assert serial in answers[0].stdout
    assert answers[0].stdout.endswith(f"{spec.disk_gib * 1024**3 // 512}\n")
    with suppress(ManagedError):
        SshShell().run(endpoint, ["reboot"], timeout=5)
    wait_until(
        lambda: node.power_state(spec.server_id) is PowerState.STOPPED,
        timeout=30,
        what="the reboot ends the session",
    )


def test_the_host_key_is_on_the_configuration_disk_only(rig: LibvirtRig, spec: ServerSpec) -> None:
    host, login = new_key_pair(), new_key_pair()
    rig.hypervisor.boot_rescue_image(spec.server_id, session_with(host, login, spec))
    configuration = rig.node.configuration_disk(spec.server_id)
    assert stat.S_IMODE(configuration.stat().st_mode) == 0o600
    secret = host.private_key.reveal().encode()
    assert secret in configuration.read_bytes()
    process = guest_process(spec)
    line = secret.splitlines()[2]
    assert line not in Path(f"/proc/{process}/cmdline").read_bytes()
    assert line.decode() not in rig.definition(spec.server_id)
    rig.hypervisor.end_rescue(spec.server_id, "session")
    assert not configuration.exists()


def test_a_guest_that_dies_leaves_a_stopped_server_and_no_leftover_after_the_next_call(
    rig: LibvirtRig, spec: ServerSpec
) -> None:
    node = rig.hypervisor
    node.boot_rescue_image(spec.server_id, new_rescue())
    process = guest_process(spec)
    assert process is not None
    os.kill(process, signal.SIGKILL)
    wait_until(
        lambda: node.power_state(spec.server_id) is PowerState.STOPPED, timeout=30, what="stopped"
    )
    node.start(spec.server_id)
    assert not rig.node.configuration_disk(spec.server_id).exists()
    assert "managed-rescue" not in rig.definition(spec.server_id)


def test_a_server_boots_with_its_node_if_it_was_started_last(
    rig: LibvirtRig, spec: ServerSpec
) -> None:
    node = rig.hypervisor
    assert not starts_with_node(rig, spec)
    for off in (
        node.shut_down,
        node.power_off,
        lambda server_id: node.boot_rescue_image(server_id, new_rescue()),
    ):
        node.start(spec.server_id)
        assert starts_with_node(rig, spec)
        off(spec.server_id)
        assert not starts_with_node(rig, spec)


def starts_with_node(rig: LibvirtRig, spec: ServerSpec) -> bool:
    connection = libvirt.open(rig.node.uri)
    try:
        return bool(connection.lookupByUUIDString(spec.server_id).autostart())
    finally:
        connection.close()


def test_a_change_of_restore_points_that_was_killed_is_put_right(
    rig: LibvirtRig, spec: ServerSpec
) -> None:
    node, disk = rig.hypervisor, rig.node.disk(spec.server_id)
    # Small clusters mean much to write, and so time to kill it in.
    disk.unlink()
    qemu_img("create", "-q", "-f", "qcow2", "-o", "cluster_size=1024", str(disk), "2G")
    fill = ["qemu-io", "-f", "qcow2", "-c", "write -q -P 17 0 64M", str(disk)]
    subprocess.run(fill, check=True, timeout=120)
    command = create_point_command(disk, "before")
    with suppress(InterruptedError), change_of_snapshots(disk):
        change = subprocess.Popen(command)
        with suppress(subprocess.TimeoutExpired):
            change.wait(timeout=0.03)
        change.kill()
        change.wait()
        raise InterruptedError
    assert disk.with_suffix(".changing").exists()
    node.start(spec.server_id)
    node.power_off(spec.server_id)
    qemu_img("check", "-q", "-f", "qcow2", str(disk))
    assert rig.disk_holds(spec.server_id, 17)
    assert not disk.with_suffix(".changing").exists()


def qemu_img(*arguments: str) -> None:
    """Raises also when a check finds so much as leaked space."""
    subprocess.run(["qemu-img", *arguments], check=True, timeout=120)


def test_a_creation_that_was_killed_between_definition_and_disk_is_completed(
    rig: LibvirtRig, spec: ServerSpec
) -> None:
    rig.node.disk(spec.server_id).unlink()
    rig.hypervisor.create_server(spec)
    assert rig.disk_holds(spec.server_id, 0)


def test_a_disk_without_a_server_is_never_overwritten(rig: LibvirtRig) -> None:
    spec = new_spec()
    disk = rig.node.disk(spec.server_id)
    disk.write_bytes(b"somebody's")
    with pytest.raises(ManagedError):
        rig.hypervisor.create_server(spec)
    assert disk.read_bytes() == b"somebody's"
    assert rig.hypervisor.power_state(spec.server_id) is PowerState.ABSENT
    rig.hypervisor.destroy_server(spec.server_id)
    assert not disk.exists()


def test_the_probe_ends_within_its_bound_and_is_remembered(tmp_path: Path) -> None:
    with libvirt_rig(tmp_path, Acceleration.AUTO) as rig:
        # The first connection makes the daemon ask QEMU what it can do, which is not the probe.
        rig.hypervisor.rescue_sessions()
        started = time.monotonic()
        found = rig.hypervisor.capabilities()
        assert time.monotonic() - started < PROBE_TIME_LIMIT + 15
        assert found.time_scale == (1.0 if found.accelerated else 6.0)
        assert list(rig.node.console_dir.glob("*")) == []
        memory = rig.node.state_dir / "acceleration.json"
        written = memory.stat().st_mtime_ns
        assert LibvirtHypervisor(rig.node).capabilities() == found
        assert memory.stat().st_mtime_ns == written
        spec = new_spec()
        rig.hypervisor.create_server(spec)
        rig.hypervisor.start(spec.server_id)
        kind = "kvm" if found.accelerated else "qemu"
        assert f"type='{kind}'" in rig.definition(spec.server_id)
        rig.hypervisor.destroy_server(spec.server_id)


@needs_root
def test_two_labs_do_not_see_each_other(rig: LibvirtRig, spec: ServerSpec, tmp_path: Path) -> None:
    before = set(Path("/etc/libvirt").rglob("*"))
    rig.hypervisor.start(spec.server_id)
    with libvirt_rig(tmp_path, Acceleration.TCG) as other:
        assert other.hypervisor.power_state(spec.server_id) is PowerState.ABSENT
    assert rig.hypervisor.power_state(spec.server_id) is PowerState.RUNNING
    assert set(Path("/etc/libvirt").rglob("*")) == before, "nothing is left among the host's own"


@needs_root
def test_servers_survive_a_killed_daemon_and_end_with_the_lab(tmp_path: Path) -> None:
    with libvirt_rig(tmp_path, Acceleration.TCG) as rig:
        daemon = rig.daemon
        assert daemon is not None
        spec = new_spec()
        rig.hypervisor.create_server(spec)
        rig.hypervisor.start(spec.server_id)
        kill_daemon(daemon)
        assert guest_process(spec) is not None
        with still_listening(daemon.directories.socket):
            assert daemon.start() == rig.node.uri
        assert rig.hypervisor.power_state(spec.server_id) is PowerState.RUNNING
        kill_daemon(daemon)
        daemon.stop_everything()
        assert guest_process(spec) is None
        assert not daemon.directories.runtime.exists()
        daemon.start()
        assert rig.hypervisor.power_state(spec.server_id) is PowerState.STOPPED


@contextmanager
def still_listening(path: Path) -> Iterator[None]:
    """As a killed daemon's socket does until its last thread is gone."""
    path.unlink()
    with socket.socket(socket.AF_UNIX) as dying:
        dying.bind(str(path))
        dying.listen()
        yield


def kill_daemon(daemon: PrivateLibvirtd) -> None:
    process = int((daemon.directories.runtime / "managed-libvirtd.pid").read_text())
    os.kill(process, signal.SIGKILL)
    wait_until(lambda: not daemon.is_running(), timeout=10, what="the daemon is dead")


@needs_root
def test_starting_a_running_daemon_uses_it(rig: LibvirtRig) -> None:
    assert rig.daemon is not None
    id_file = rig.daemon.directories.runtime / "managed-libvirtd.pid"
    before = id_file.read_text()
    assert PrivateLibvirtd(rig.daemon.directories.state).start() == rig.node.uri
    assert id_file.read_text() == before
    libvirt.open(rig.node.uri).close()
