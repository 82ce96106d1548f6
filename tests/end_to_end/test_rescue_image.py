"""The rescue image in a real virtual machine of 256 MB, without KVM."""

from __future__ import annotations

import contextlib
import io
import shlex
import socket
import subprocess
import sys
import tarfile
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from images.build import DEFAULT_OUTPUT, current_recipe_hash
from images.rescue import RESCUE_COMMAND_LINE, SERIAL_CONFIGURATION, SERIAL_ROOT
from images.store import BuiltImage, ImageName, built_image
from managed.drivers.libvirt.domain_xml import EMULATED_KERNEL_OPTIONS
from managed.lab.ports import free_port

pytestmark = [pytest.mark.vm, pytest.mark.timeout(420)]

MEBIBYTE = 1024 * 1024
SECONDS_TO_BOOT = 90.0
SECONDS_TO_POWER_OFF = 60.0
COMMAND_LINE = " ".join((RESCUE_COMMAND_LINE, *EMULATED_KERNEL_OPTIONS))
REPOSITORY = Path(__file__).resolve().parents[2]


@dataclass(frozen=True)
class Machine:
    """A running QEMU with a rescue session inside."""

    process: subprocess.Popen[bytes]
    port: int
    directory: Path
    started: float

    @property
    def console(self) -> str:
        log = self.directory / "console.log"
        return log.read_text(errors="replace") if log.exists() else ""

    def ssh(
        self, command: str, *, timeout: float = 60.0, forward: str | None = None
    ) -> subprocess.CompletedProcess[str]:
        """Run a shell command in the session, with the pinned host key and the session's key."""
        options = {
            "UserKnownHostsFile": str(self.directory / "known_hosts"),
            "GlobalKnownHostsFile": "/dev/null",
            "StrictHostKeyChecking": "yes",
            "IdentitiesOnly": "yes",
            "BatchMode": "yes",
            "ConnectTimeout": "10",
            "ExitOnForwardFailure": "yes",
        }
        argv = ["ssh", "-F", "none", "-p", str(self.port), "-i", str(self.directory / "client")]
        argv += [word for key, value in options.items() for word in ("-o", f"{key}={value}")]
        if forward is not None:
            argv += ["-R", forward]
        argv += ["root@127.0.0.1", command]
        return subprocess.run(argv, capture_output=True, text=True, timeout=timeout, check=False)

    def wait_for_login(self) -> float:
        """Seconds from power-on until a command ran; fails the test when the machine ends."""
        while time.monotonic() - self.started < SECONDS_TO_BOOT:
            # Connections from before sshd listens come back to it later and cost it seconds.
            if "managed-rescue: sshd listens" not in self.console:
                with contextlib.suppress(subprocess.TimeoutExpired):
                    self.process.wait(0.1)
            elif self.ssh("true").returncode == 0:
                return time.monotonic() - self.started
            assert self.process.poll() is None, self.console
        pytest.fail(f"no login within {SECONDS_TO_BOOT} s:\n{self.console}")


def make_key(path: Path) -> str:
    subprocess.run(
        ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "test", "-f", str(path)], check=True
    )
    return path.with_name(f"{path.name}.pub").read_text()


def configuration_disk(members: dict[str, bytes]) -> bytes:
    """A tar archive padded with zeros to whole MiB."""
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as archive:
        for name, content in members.items():
            entry = tarfile.TarInfo(name)
            entry.size, entry.mode = len(content), 0o600
            archive.addfile(entry, io.BytesIO(content))
    data = stream.getvalue()
    return data + b"\0" * (-len(data) % MEBIBYTE)


def disk(path: Path, serial: str, *, read_only: bool) -> list[str]:
    mode = "on" if read_only else "off"
    drive = f"if=none,id={serial},file={path},format=raw,readonly={mode}"
    return ["-drive", drive, "-device", f"virtio-blk-pci,drive={serial},serial={serial}"]


def start(image: BuiltImage, directory: Path, configuration: Path | None) -> Machine:
    """Power on a machine with the rescue image and one empty disk of 1 GiB."""
    scratch = directory / "scratch.raw"
    with scratch.open("wb") as stream:
        stream.truncate(1024 * MEBIBYTE)
    port = free_port()
    argv = ["qemu-system-x86_64", "-machine", "q35", "-accel", "tcg,thread=multi"]
    argv += ["-cpu", "Westmere", "-smp", "1", "-m", "256", "-display", "none"]
    argv += ["-nodefaults", "-no-user-config"]
    argv += ["-serial", f"file:{directory / 'console.log'}", "-no-reboot"]
    argv += ["-kernel", str(image.path("vmlinux")), "-initrd", str(image.path("initrd.img"))]
    argv += ["-append", COMMAND_LINE, "-device", "virtio-rng-pci"]
    argv += disk(image.path("root.squashfs"), SERIAL_ROOT, read_only=True)
    if configuration is not None:
        argv += disk(configuration, SERIAL_CONFIGURATION, read_only=True)
    argv += disk(scratch, "scratch", read_only=False)
    argv += ["-netdev", f"user,id=net,hostfwd=tcp:127.0.0.1:{port}-:22"]
    argv += ["-device", "virtio-net-pci,netdev=net"]
    return Machine(subprocess.Popen(argv), port, directory, time.monotonic())


def stop(machine: Machine) -> None:
    if machine.process.poll() is None:
        machine.process.kill()
    machine.process.wait()


@pytest.fixture(scope="module")
def image() -> BuiltImage:
    image = built_image(ImageName.RESCUE, REPOSITORY / DEFAULT_OUTPUT)
    if image is None:
        pytest.fail("The rescue image is not built: run python -m images.build rescue")
    return image


@pytest.fixture(scope="module")
def machine(image: BuiltImage, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Machine]:
    directory = tmp_path_factory.mktemp("rescue")
    host_key = make_key(directory / "host")
    client_key = make_key(directory / "client")
    configuration = directory / "configuration.raw"
    configuration.write_bytes(
        configuration_disk(
            {
                "ssh_host_ed25519_key": (directory / "host").read_bytes(),
                "authorized_keys": client_key.encode(),
                "network.env": b"MODE=dhcp HOSTNAME=rescued\n",
            }
        )
    )
    machine = start(image, directory, configuration)
    kind, key = host_key.split()[:2]
    (directory / "known_hosts").write_text(f"[127.0.0.1]:{machine.port} {kind} {key}\n")
    try:
        seconds = machine.wait_for_login()
        sys.stdout.write(f"\npower-on to the first command over SSH: {seconds:.1f} s\n")
        settled = machine.ssh(
            "until [ -e /run/managed-rescue/devices-ready ]; do usleep 100000; done"
        )
        assert settled.returncode == 0, settled.stderr
        yield machine
    finally:
        stop(machine)


def test_the_image_is_the_recipe_as_it_stands(machine: Machine, image: BuiltImage) -> None:
    release = machine.ssh("cat /etc/managed-rescue-release").stdout.strip()
    assert release == image.recipe_hash == current_recipe_hash(ImageName.RESCUE)


def test_another_host_key_is_refused(machine: Machine) -> None:
    other = make_key(machine.directory / "other").split()
    known = machine.directory / "known_hosts"
    right = known.read_text()
    known.write_text(f"[127.0.0.1]:{machine.port} {other[0]} {other[1]}\n")
    try:
        refused = machine.ssh("true")
    finally:
        known.write_text(right)
    assert refused.returncode == 255
    assert "HOST IDENTIFICATION HAS CHANGED" in refused.stderr


def test_the_tools_of_a_rescue_are_there(machine: Machine) -> None:
    tools = (
        "sgdisk sfdisk parted lvm mdadm cryptsetup restic grub-install grub-mkconfig mkfs.ext4 "
        "mkfs.xfs mkfs.btrfs mkfs.vfat efibootmgr rsync zstd tar getfattr getfacl python3 curl nft"
    )
    found = machine.ssh(f"for tool in {tools}; do command -v $tool >/dev/null || echo $tool; done")
    assert (found.returncode, found.stdout) == (0, ""), found
    assert machine.ssh("restic version").stdout.startswith("restic 0.18.")
    boot_loaders = machine.ssh("ls -d /usr/lib/grub/i386-pc /usr/lib/grub/x86_64-efi")
    assert boot_loaders.returncode == 0, boot_loaders.stderr


def test_the_session_fits_into_256_megabytes(machine: Machine) -> None:
    lines = machine.ssh("grep -E '^(MemTotal|MemAvailable):' /proc/meminfo").stdout.splitlines()
    total, available = (int(line.split()[1]) for line in lines)
    assert total < 256 * 1024
    assert available > 90 * 1024


def test_disks_have_names_by_serial_and_the_network_an_address(machine: Machine) -> None:
    names = machine.ssh("ls /dev/disk/by-id").stdout.split()
    assert {"virtio-managed-rescue", "virtio-managed-config", "virtio-scratch"} <= set(names)
    assert "10.0.2.15/24" in machine.ssh("ip -4 address show dev eth0").stdout
    assert machine.ssh("hostname").stdout.strip() == "rescued"
    assert machine.ssh("ip route").stdout.startswith("default via 10.0.2.2")


def test_partitions_volumes_raid_luks_and_filesystems_work_on_a_disk(machine: Machine) -> None:
    script = """
    set -eux
    disk=/dev/disk/by-id/virtio-scratch
    sgdisk -n 1:0:+300M -n 2:0:+100M -n 3:0:+100M -n 4:0:+100M -n 5:0:0 $disk
    udevadm settle
    pvcreate -q $disk-part1
    vgcreate -q spare $disk-part1
    lvcreate -q -y -L 100M -n data spare
    mkfs.ext4 -q /dev/spare/data
    mount /dev/spare/data /mnt/target
    echo kept > /mnt/target/file
    umount /mnt/target
    vgchange -an spare
    vgchange -ay spare
    mount /dev/spare/data /mnt/target
    grep kept /mnt/target/file
    umount /mnt/target
    vgchange -an spare
    yes | mdadm --create /dev/md/spare --level=1 --raid-devices=2 $disk-part2 $disk-part3
    mdadm --stop /dev/md/spare
    mdadm --assemble /dev/md/spare $disk-part2 $disk-part3
    mdadm --stop /dev/md/spare
    echo word | cryptsetup luksFormat -q --pbkdf pbkdf2 --pbkdf-force-iterations 1000 $disk-part4 -
    echo word | cryptsetup open --key-file - $disk-part4 spare-secret
    test -b /dev/mapper/spare-secret
    cryptsetup close spare-secret
    for kind in xfs btrfs vfat; do
        wipefs -q -a $disk-part5
        case $kind in xfs) mkfs.xfs -q $disk-part5 ;; *) mkfs.$kind $disk-part5 >/dev/null ;; esac
        mount $disk-part5 /mnt/target
        echo kept > /mnt/target/file
        umount /mnt/target
    done
    udevadm settle
    ls /dev/disk/by-uuid
    """
    ended = machine.ssh(f"sh -c {shlex.quote(script)}", timeout=200)
    assert ended.returncode == 0, ended.stderr[-3000:]


def test_a_unix_socket_of_ours_can_be_reached_from_the_session(machine: Machine) -> None:
    path = machine.directory / "gateway.sock"
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen()
        listener.settimeout(60)

        def answer() -> None:
            try:
                connection, _ = listener.accept()
            except TimeoutError:
                return
            with connection:
                connection.recv(4096)
                connection.sendall(b"HTTP/1.0 200 OK\r\nContent-Length: 5\r\n\r\nhello")

        thread = threading.Thread(target=answer, daemon=True)
        thread.start()
        remote = "/run/managed-rescue/gateway.sock"
        ended = machine.ssh(
            f"curl -s --unix-socket {remote} http://gateway/", forward=f"{remote}:{path}"
        )
        thread.join(timeout=60)
    assert ended.stdout == "hello", ended.stderr


# Runs last: the module's machine is gone afterwards.
def test_poweroff_ends_the_machine(machine: Machine) -> None:
    machine.ssh("poweroff")
    assert machine.process.wait(SECONDS_TO_POWER_OFF) == 0


def test_without_a_configuration_disk_it_says_so_and_powers_off(
    image: BuiltImage, tmp_path: Path
) -> None:
    machine = start(image, tmp_path, None)
    try:
        machine.process.wait(SECONDS_TO_BOOT)
        assert "managed-rescue: no disk has the serial managed-config" in machine.console
    finally:
        stop(machine)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"\0" * MEBIBYTE, "has no ssh_host_ed25519_key"),
        (
            configuration_disk(
                {
                    "ssh_host_ed25519_key": b"broken\n",
                    "authorized_keys": b"none\n",
                    "network.env": b"MODE=dhcp\n",
                }
            ),
            "sshd does not accept the host key",
        ),
    ],
    ids=["empty", "broken host key"],
)
def test_with_a_broken_configuration_disk_it_says_so_and_powers_off(
    image: BuiltImage, tmp_path: Path, content: bytes, message: str
) -> None:
    configuration = tmp_path / "configuration.raw"
    configuration.write_bytes(content)
    machine = start(image, tmp_path, configuration)
    try:
        machine.process.wait(SECONDS_TO_BOOT)
        assert message in machine.console
    finally:
        stop(machine)
