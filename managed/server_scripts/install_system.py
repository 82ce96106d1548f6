#!/usr/bin/env python3
"""Install an operating system on a server's own disk, from inside a rescue session.

Input (one JSON argument): disk_serial, image_serial, layout (see disk_layout_documents),
hostname, authorized_keys (lines), apt_sources (content of /etc/apt/sources.list), apt_proxy (may
be empty), network {"mode": "dhcp", "dns": [addresses, may be empty]}, timezone (may be empty),
kernel_options (words for the kernel's command line, may be empty).

Result: host_key (the new server's public ed25519 line, to be pinned), seconds. Started again
after an interruption it begins anew: nothing on the disk is kept.
"""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from managed.domain.disk_layout_documents import parsed_layout
from managed.domain.disk_layouts import fstab_text, layout_for_disk
from managed.domain.errors import ManagedError
from managed.server_scripts._boot_loader import (
    in_target,
    install_boot_loader,
    kernel_filesystems,
)
from managed.server_scripts._disk import (
    TARGET,
    disk_size,
    disk_with_serial,
    make_filesystems,
    mount_layout,
    partition_disk,
    release_disk,
    unmount_below,
)
from managed.server_scripts._run import ScriptFailed, Stopwatch, emit, run_program, run_script

NETWORK_FILE = "etc/systemd/network/20-managed.network"
NETWORK_DHCP = "[Match]\nName=en* eth*\n\n[Network]\nDHCP=yes\n"
RANDOM_SEED_SIZE = 512
KEY_TYPES = ("ed25519", "ecdsa")
# Read after the image's own files, which set what this one adds to (the order is that of bytes).
NODE_GRUB_SETTINGS = "etc/default/grub.d/60-managed-node.cfg"
KERNEL_OPTION = re.compile(r"[A-Za-z0-9_.,:=-]+")


def write(place: str, text: str, mode: int = 0o644) -> None:
    """Write a file of the new system; whatever was there, a link included, is replaced."""
    path = TARGET / place
    path.parent.mkdir(parents=True, exist_ok=True)
    path.unlink(missing_ok=True)
    path.write_text(text, encoding="utf-8")
    path.chmod(mode)


def copy_image(serial: str) -> None:
    """Unpack the image's root, with owners, links and attributes, onto the mounted disk."""
    device = disk_with_serial(serial)
    run_program(("unsquashfs", "-quiet", "-no-progress", "-f", "-d", str(TARGET), str(device)))


def configure(wanted: dict[str, Any], fstab: str) -> None:
    """Everything that makes this installation this server."""
    hostname = wanted["hostname"]
    write("etc/fstab", fstab)
    write("etc/hostname", f"{hostname}\n")
    write("etc/hosts", f"127.0.0.1 localhost\n127.0.1.1 {hostname}\n::1 localhost ip6-localhost\n")
    write("etc/machine-id", "", 0o444)
    write("etc/apt/sources.list", wanted["apt_sources"])
    if wanted.get("apt_proxy"):
        write("etc/apt/apt.conf.d/01proxy", f'Acquire::http::Proxy "{wanted["apt_proxy"]}";\n')
    configure_network(wanted["network"])
    configure_timezone(wanted.get("timezone", ""))
    configure_kernel(wanted.get("kernel_options", ()))
    (TARGET / "root/.ssh").mkdir(mode=0o700, exist_ok=True)
    write("root/.ssh/authorized_keys", "\n".join(wanted["authorized_keys"]) + "\n", 0o600)
    seed = TARGET / "var/lib/systemd/random-seed"
    seed.parent.mkdir(parents=True, exist_ok=True)
    seed.write_bytes(os.urandom(RANDOM_SEED_SIZE))
    seed.chmod(0o600)


def configure_network(network: dict[str, Any]) -> None:
    """DHCP on whatever the network card is called; name servers as given, or as used here."""
    if network["mode"] != "dhcp":
        raise ScriptFailed(f"network mode {network['mode']!r} is unknown", "not-supported")
    write(NETWORK_FILE, NETWORK_DHCP)
    servers = network.get("dns") or []
    text = "".join(f"nameserver {server}\n" for server in servers)
    write("etc/resolv.conf", text or Path("/etc/resolv.conf").read_text(encoding="ascii"))


def configure_timezone(timezone: str) -> None:
    if not timezone:
        return
    if not (TARGET / "usr/share/zoneinfo" / timezone).is_file():
        raise ScriptFailed(f"there is no time zone {timezone}", "invalid-input")
    write("etc/timezone", f"{timezone}\n")
    (TARGET / "etc/localtime").unlink(missing_ok=True)
    (TARGET / "etc/localtime").symlink_to(f"/usr/share/zoneinfo/{timezone}")


def configure_kernel(options: Sequence[str]) -> None:
    """What this node wants kernels to be started with, for update-grub now and later."""
    unfit = [option for option in options if not KERNEL_OPTION.fullmatch(option)]
    if unfit:
        raise ScriptFailed(f"{unfit[0]!r} is no kernel option", "invalid-input")
    if options:
        line = f'GRUB_CMDLINE_LINUX="$GRUB_CMDLINE_LINUX {" ".join(options)}"\n'
        write(NODE_GRUB_SETTINGS, line)


def make_host_keys() -> str:
    """New SSH host keys; the public ed25519 line comes back. RSA is left out: making such a key
    takes long without KVM, and nobody needs it.
    """
    for kind in KEY_TYPES:
        path = f"/etc/ssh/ssh_host_{kind}_key"
        for old in (TARGET / path[1:], TARGET / f"{path[1:]}.pub"):
            old.unlink(missing_ok=True)
        run_program(("ssh-keygen", "-q", "-t", kind, "-N", "", "-C", "", "-f", f"{TARGET}{path}"))
    public = (TARGET / "etc/ssh/ssh_host_ed25519_key.pub").read_text(encoding="ascii")
    return " ".join(public.split()[:2])


def answer_grub_questions(serial: str) -> None:
    """Tell grub-pc's future updates which disk to write to: by serial, for names can change."""
    disk = f"/dev/disk/by-id/virtio-{serial}"
    answers = (
        f"grub-pc grub-pc/install_devices multiselect {disk}\n"
        "grub-pc grub-pc/install_devices_empty boolean false\n"
    )
    in_target("debconf-set-selections", stdin=answers)


def install(wanted: dict[str, Any]) -> tuple[int, dict[str, Any]]:
    watch = Stopwatch()
    disk = disk_with_serial(wanted["disk_serial"])
    try:
        layout = layout_for_disk(parsed_layout(wanted["layout"]), disk_size(disk))
    except ManagedError as error:
        raise ScriptFailed(error.message, error.code, error.hint) from error
    release_disk(disk)
    try:
        emit("install_step", name="partitions")
        partition_disk(disk, layout)
        make_filesystems(disk, layout)
        mount_layout(disk, layout)
        watch.lap("partitions")
        emit("install_step", name="files")
        copy_image(wanted["image_serial"])
        watch.lap("files")
        configure(wanted, fstab_text(layout))
        host_key = make_host_keys()
        watch.lap("configuration")
        emit("install_step", name="boot_loader")
        with kernel_filesystems():
            answer_grub_questions(wanted["disk_serial"])
            install_boot_loader(disk, layout)
            in_target("update-grub")
        watch.lap("boot_loader")
        os.sync()
    finally:
        unmount_below(TARGET)
    watch.lap("unmount")
    return 0, {"host_key": host_key, "disk": str(disk), "seconds": watch.seconds}


if __name__ == "__main__":
    run_script(install)
