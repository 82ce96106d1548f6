"""A server installed, backed up, destroyed and restored, with nothing but QEMU, SSH and restic.

One story, because each part takes minutes without KVM: what the installer made boots; what the
backup recorded is complete; what the restore laid down equals it and boots again, by BIOS and,
where the firmware is installed, by EFI.
"""

from __future__ import annotations

import contextlib
import gzip
import json
import os
import socket
import subprocess
import sys
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from managed.domain.disk_layout_documents import layout_as_json, parsed_layout
from managed.domain.disk_layouts import default_layout
from managed.domain.manifests import EntryKind, parsed_manifest
from tests.end_to_end.plain_vm import (
    DIE_WITH_PARENT,
    IMAGES,
    RUN_DIRECTORY,
    Keys,
    Vm,
    free_port,
    rescue_vm,
    server_vm,
    wait_until,
)

pytestmark = [pytest.mark.vm, pytest.mark.long, pytest.mark.timeout(3600)]

SERIAL = "srv-baremetal"
DISK_SIZE = 8 << 30
SOCKET = "/run/managed/gateway.sock"
REPOSITORY = f"rest:http+unix://{SOCKET}:/account/"
SECRETS = {"RESTIC_PASSWORD": "only-for-this-test"}
RESTIC = IMAGES / "restic" / "restic"
EFI_CODE = Path("/usr/share/OVMF/OVMF_CODE_4M.fd")
EFI_VARIABLES = Path("/usr/share/OVMF/OVMF_VARS_4M.fd")

ODD_FILES = r"""
import os
os.makedirs("/srv/odd/sub")
os.chdir("/srv/odd")
def write(name, content):
    with open(name, "wb") as file:
        file.write(content)
write("a", b"linked\n")
os.link("a", "b")
os.link("a", "sub/z")
os.symlink("a", "link")
os.symlink("/nowhere/at all", "dangling")
os.mkfifo("pipe", 0o640)
os.mknod("null", 0o600 | 0o020000, os.makedev(1, 3))
write("setuid", b"#!/bin/sh\n")
os.chown("setuid", 1234, 2345)
os.chmod("setuid", 0o6755)
write(b"new\nline", b"x")
write(b"latin-\xe9", b"y")
write(b"latin-\xe8", b"z")
write("star*[q]?\\", b"q")
write("\u00fcml\ufffdut", b"u")
with open("sparse", "wb") as file:
    file.truncate(64 << 20)
    file.seek(32 << 20)
    file.write(b"island")
os.setxattr("a", "user.bytes", b"\x00\xff\n")
write("capable", b"cap")
os.setxattr("capable", "security.capability", bytes.fromhex("0100000200200000" + "00" * 12))
write("acl", b"acl")
acl = "0200000001000600ffffffff02000600d204000004000400ffffffff10000600ffffffff20000400ffffffff"
os.setxattr("acl", "system.posix_acl_access", bytes.fromhex(acl))
os.chmod("sub", 0o2775)
os.utime("setuid", ns=(1, 981173106123456789))
os.sync()
"""

FINGERPRINT = r"""
import hashlib, json, os, stat
found = []
for directory, names, files in sorted(os.walk(b"/srv/odd")):
    for name in sorted(names + files):
        path = os.path.join(directory, name)
        s = os.lstat(path)
        content = b""
        if stat.S_ISREG(s.st_mode):
            content = open(path, "rb").read()
        elif stat.S_ISLNK(s.st_mode):
            content = os.readlink(path)
        attributes = sorted(os.listxattr(path, follow_symlinks=False))
        values = [os.getxattr(path, a, follow_symlinks=False).hex() for a in attributes]
        found.append([path.hex(), s.st_mode, s.st_uid, s.st_gid, s.st_nlink, s.st_mtime_ns,
            s.st_rdev, hashlib.sha256(content).hexdigest(), attributes, values])
linked = len({os.stat("/srv/odd/" + n).st_ino for n in ("a", "b", "sub/z")})
blocks = os.stat("/srv/odd/sparse").st_blocks * 512 < 1 << 20
print(json.dumps([found, linked, blocks]))
"""


@dataclass(frozen=True)
class Place:
    """Where this story's files are, and the gateway that stands in for the real one."""

    directory: Path
    keys: Keys
    disk: Path
    gateway_port: int


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    for file in (IMAGES / "rescue/vmlinux", IMAGES / "debian-12/root.squashfs", RESTIC):
        if not file.exists():
            pytest.fail(f"{file} is missing: build the images first")
    disk = tmp_path / "disk.qcow2"
    argv = ("qemu-img", "create", "-q", "-f", "qcow2", str(disk), str(DISK_SIZE))
    subprocess.run(argv, check=True)
    with gateway(tmp_path) as port:
        yield Place(tmp_path, Keys(tmp_path).make(), disk, port)


@contextlib.contextmanager
def gateway(directory: Path) -> Iterator[int]:
    """A restic repository behind rclone on the loopback."""
    port, repository = free_port(), directory / "repository"
    rclone = Path(sys.executable).with_name("rclone")
    address = ("--addr", f"127.0.0.1:{port}", "--append-only")
    process = subprocess.Popen(
        (*DIE_WITH_PARENT, str(rclone), "serve", "restic", *address, str(repository)),
        stderr=subprocess.DEVNULL,
    )
    try:
        wait_until(lambda: is_open(port), 30, "rclone listens")
        create = (str(RESTIC), "--repo", f"rest:http://127.0.0.1:{port}/account/", "init")
        subprocess.run(create, check=True, env={**os.environ, **SECRETS}, capture_output=True)
        yield port
    finally:
        process.terminate()
        process.wait(20)


def is_open(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def test_a_server_is_installed_backed_up_destroyed_and_restored(place: Place) -> None:
    host_key = installed(place)
    with server_vm(place.directory, place.keys, place.disk, SERIAL, host_key) as vm:
        check_new_server(vm)
        vm.run("python3 -", ODD_FILES.encode())
        before = json.loads(vm.run("python3 -", FINGERPRINT.encode()))
        backup = backed_up(place, vm)
        destroy(vm)
    result = restored(place, backup["snapshot_id"])
    check_restore(place, result)
    with server_vm(place.directory, place.keys, place.disk, SERIAL, host_key) as vm:
        assert vm.run("systemctl is-system-running --wait").strip() == "running"
        assert vm.run("test -e /sys/firmware/efi || echo bios").strip() == "bios"
        assert json.loads(vm.run("python3 -", FINGERPRINT.encode())) == before
        assert before[1:] == [1, True]
        vm.shut_down()
    if EFI_CODE.exists():
        boots_by_efi(place, host_key)


def installed(place: Place) -> str:
    """The server's own host key, after Debian was installed on the empty disk."""
    layout = default_layout(DISK_SIZE, lambda: str(uuid.uuid4()))
    wanted = {
        "disk_serial": SERIAL,
        "image_serial": "managed-image",
        "layout": layout_as_json(layout),
        "hostname": "web1",
        "authorized_keys": [place.keys.public("client")],
        "apt_sources": "# none in this test\n",
        "apt_proxy": "",
        "network": {"mode": "dhcp", "dns": []},
        "timezone": "Europe/Berlin",
    }
    with rescue_vm(place.directory, place.keys, place.disk, SERIAL, "debian-12") as vm:
        vm.script("install_system", {**wanted, "image_serial": "absent"}, accepted=(1,))
        result, _ = vm.script("install_system", wanted)
        vm.shut_down()
    return str(result["host_key"])


def check_new_server(vm: Vm) -> None:
    assert vm.run("systemctl is-system-running --wait").strip() == "running"
    assert vm.run("hostname").strip() == "web1"
    assert vm.run("findmnt -no FSTYPE /boot/efi").strip() == "vfat"
    assert vm.run("date +%Z").strip() in {"CET", "CEST"}
    assert len(vm.run("cat /etc/machine-id").strip()) == 32


def backed_up(place: Place, vm: Vm) -> dict[str, Any]:
    """The backup's result; its manifest and layout are copied into the test's directory."""
    vm.run("mkdir -p -m 700 /usr/local/lib/managed")
    install = "cat > /usr/local/lib/managed/restic && chmod 755 /usr/local/lib/managed/restic"
    vm.run(install, RESTIC.read_bytes())
    wanted = {"repository": REPOSITORY, "restic": "", "hostname": "web1", "tags": ["job:test"]}
    with vm.reverse_socket(SOCKET, place.gateway_port):
        result, log = vm.script("take_backup", wanted, SECRETS)
    assert result["complete"], result
    assert result["warnings"] == []
    assert '"event": "backup_progress"' in log
    for name in ("manifest.jsonl.gz", "layout.json"):
        argv = (*vm.ssh_command(), f"cat {RUN_DIRECTORY}/{name}")
        content = subprocess.run(argv, check=True, capture_output=True).stdout
        (place.directory / name).write_bytes(content)
    assert vm.run(f"ls {RUN_DIRECTORY}").split() == [
        "input",
        "layout.json",
        "manifest.jsonl.gz",
        "result.json",
        "script",
    ]
    return result


def destroy(vm: Vm) -> None:
    """Beyond booting: partition table, boot loader, /boot and /etc are gone."""
    vm.run(
        "umount /boot/efi; rm -rf /boot /srv; sync; rm -rf /etc; sync;"
        " dd if=/dev/zero of=/dev/vda bs=1M count=140 conv=fsync 2>/dev/null"
    )
    vm.end()


def restored(place: Place, snapshot: str) -> dict[str, Any]:
    """The restore's result, from its third try: the first has a damaged manifest, the second is
    killed in the middle of its work, the third is to end well all the same.
    """
    layout = json.loads((place.directory / "layout.json").read_text())["layout"]
    manifest = (place.directory / "manifest.jsonl.gz").read_bytes()
    wanted = {
        "disk_serial": SERIAL,
        "layout": layout,
        "repository": REPOSITORY,
        "restic": "",
        "snapshot": snapshot,
        "manifest": "/run/manifest.jsonl.gz",
    }
    with rescue_vm(place.directory, place.keys, place.disk, SERIAL) as vm:
        vm.run("cat > /run/manifest.jsonl.gz", manifest[: len(manifest) // 2])
        result, _ = vm.script("restore_system", wanted, SECRETS, accepted=(1,))
        assert result["error"]["code"] == "evidence-missing"
        vm.run("cat > /run/manifest.jsonl.gz", manifest)
        with vm.reverse_socket(SOCKET, place.gateway_port):
            interrupt(vm, wanted)
            result, log = vm.script("restore_system", wanted, SECRETS)
        assert '"event": "restore_progress"' in log
        assert vm.run("grep -c /mnt/target /proc/self/mounts || true").strip() == "0"
        vm.shut_down()
    return result


def interrupt(vm: Vm, wanted: dict[str, Any]) -> None:
    """Start a restore and kill it, and all that it started, once files arrive."""
    vm.start_script("restore_system", wanted, SECRETS)
    wait_until(lambda: vm.look("ls /mnt/target/usr"), 600, "the first files are restored", 2.0)
    vm.run("kill -9 -- -$(cat /run/test.pid)")


def check_restore(place: Place, result: dict[str, Any]) -> None:
    """Everything was compared, and what was rewritten belongs to the boot loader."""
    with gzip.open(place.directory / "manifest.jsonl.gz", "rt", encoding="ascii") as lines:
        entries = {entry.path: entry for entry in parsed_manifest(lines)}
    assert result["checked"] == len(entries)
    assert entries["/srv/odd/latin-\udce9"].kind is EntryKind.FILE
    rewritten = [item["path"] for item in result["rewritten"]]
    assert all(path.startswith("/boot/grub") for path in rewritten)
    assert result["equal"] == len(entries) - len(rewritten)
    assert any("i386-pc" in phrase for phrase in result["written_outside_files"])
    document = json.loads((place.directory / "layout.json").read_text())
    assert parsed_layout(document["layout"]).disk_size == DISK_SIZE


def boots_by_efi(place: Place, host_key: str) -> None:
    """The same disk under EFI firmware with empty variables, as on a new machine."""
    variables = place.directory / "efi_variables.fd"
    variables.write_bytes(EFI_VARIABLES.read_bytes())
    firmware = (
        *("-drive", f"if=pflash,format=raw,readonly=on,file={EFI_CODE}"),
        *("-drive", f"if=pflash,format=raw,file={variables}"),
    )
    with server_vm(place.directory, place.keys, place.disk, SERIAL, host_key, firmware) as vm:
        assert vm.run("test -e /sys/firmware/efi && echo efi").strip() == "efi"
        vm.shut_down()
