"""The rescue image: a kernel, a tiny initramfs and one read-only root for all sessions."""

from __future__ import annotations

import shutil
from pathlib import Path

from images.bootstrap import (
    Bootstrap,
    in_root,
    lay_over,
    make_root,
    pack,
    package_versions,
)
from images.initramfs import (
    Entry,
    cpio_archive,
    directory,
    insmod_order,
    regular_file,
    symlink,
    uncompressed_module,
    vmlinux_of,
)
from images.process import Report
from images.sources import AptSources

RECIPE = Path(__file__).parent / "recipes" / "rescue"
RECIPE_FILES = (
    RECIPE,
    Path(__file__),
    Path(__file__).with_name("bootstrap.py"),
    Path(__file__).with_name("initramfs.py"),
)
SPACE_MEBIBYTES = 1500

# The kernel's command line for a rescue session. It holds no secret and no address. A panic
# reboots, which ends the session. All the rest saves time without KVM; a session runs one trusted
# user's work, for some minutes, so the protections that it leaves out protect nobody.
RESCUE_COMMAND_LINE = (
    "console=ttyS0 quiet panic=1 mitigations=off nokaslr tsc=reliable no_timer_check audit=0 "
    "lsm=capability cryptomgr.notests rcupdate.rcu_expedited=1"
)

SERIAL_ROOT = "managed-rescue"
SERIAL_CONFIGURATION = "managed-config"

PACKAGES = (
    # the session itself
    *("openssh-server", "busybox-static", "udev", "kmod", "iproute2", "procps"),
    *("python3", "curl", "ca-certificates", "nftables", "linux-image-cloud-amd64"),
    # disks and filesystems
    *("fdisk", "gdisk", "parted", "lvm2", "mdadm", "cryptsetup-bin", "thin-provisioning-tools"),
    *("e2fsprogs", "xfsprogs", "btrfs-progs", "dosfstools", "squashfs-tools", "util-linux"),
    # boot loaders
    *("grub2-common", "grub-pc-bin", "grub-efi-amd64-bin", "efibootmgr"),
    # files
    *("restic", "rsync", "tar", "zstd", "xz-utils", "attr", "acl"),
)
VERSIONS_OF_INTEREST = ("restic", "openssh-server", "python3", "linux-image-cloud-amd64")

EARLY_MODULES = ("virtio_pci", "virtio_blk", "squashfs", "overlay", "virtio_net", "virtio_rng")
EARLY_APPLETS = ("sh", "mount", "mkdir", "insmod", "usleep", "switch_root", "poweroff", "echo")
POWER_APPLETS = ("init", "poweroff", "reboot", "halt")

# Fastest to boot without KVM among those tried, see images/README.md.
COMPRESSION = ("-comp", "lz4", "-b", "64K")


def build_rescue(
    work: Path, artifacts: Path, sources: AptSources, recipe_hash: str, report: Report
) -> dict[str, str]:
    """Build the rescue image's files into `artifacts`; return the versions of interest.

    work: an empty directory for what is thrown away afterwards.
    """
    root = work / "root"
    make_root(Bootstrap("trixie", PACKAGES, initramfs=False), sources, root, report)
    versions = package_versions(root, VERSIONS_OF_INTEREST, report)
    report("writing the rescue image's own files")
    kernel = next((root / "boot").glob("vmlinuz-*"))
    release = kernel.name.removeprefix("vmlinuz-")
    shutil.copyfile(kernel, artifacts / "vmlinuz")
    (artifacts / "vmlinux").write_bytes(vmlinux_of(kernel.read_bytes()))
    store_modules_uncompressed(root, release, report)
    (artifacts / "initrd.img").write_bytes(cpio_archive(initramfs_entries(root, release)))
    prepare_root(root, recipe_hash)
    exclude = ["boot", "var/lib/apt/lists", "var/cache/apt", "usr/share/doc", "etc/ssh/moduli"]
    pack(root, artifacts / "root.squashfs", COMPRESSION, report, exclude)
    return {"kernel": release, **versions}


def store_modules_uncompressed(root: Path, release: str, report: Report) -> None:
    """Unpack all kernel modules in place: without KVM, unpacking on each load is slow."""
    modules = root / "usr/lib/modules" / release
    for path in [p for p in modules.rglob("*.ko.*") if p.is_file()]:
        path.with_suffix("").write_bytes(uncompressed_module(path))
        path.unlink()
    in_root(root, ("depmod", release), "indexing kernel modules", report)


def initramfs_entries(root: Path, release: str) -> list[Entry]:
    """The initramfs: busybox, the modules that reach the root disk, and our /init."""
    modules = root / "usr/lib/modules" / release
    order = insmod_order(
        (modules / "modules.dep").read_text(encoding="ascii"),
        (modules / "modules.builtin").read_text(encoding="ascii"),
        EARLY_MODULES,
    )
    names = [Path(path).name for path in order]
    entries = [directory(name) for name in ("bin", "dev", "proc", "sys", "lower", "top", "modules")]
    entries += [directory("root"), Entry("dev/console", 0o020600, device=(5, 1))]
    entries.append(regular_file("bin/busybox", (root / "usr/bin/busybox").read_bytes(), 0o755))
    entries += [symlink(f"bin/{applet}", "busybox") for applet in EARLY_APPLETS]
    entries += [
        regular_file(f"modules/{name}", (modules / path).read_bytes())
        for name, path in zip(names, order, strict=True)
    ]
    entries.append(regular_file("modules/order", ("\n".join(names) + "\n").encode()))
    entries.append(regular_file("init", (RECIPE / "initramfs-init").read_bytes(), 0o755))
    return entries


def prepare_root(root: Path, recipe_hash: str) -> None:
    """Turn a plain Debian root into the rescue root."""
    lay_over(RECIPE / "root", root)
    for applet in POWER_APPLETS:
        link = root / "usr/sbin" / applet
        link.unlink(missing_ok=True)
        link.symlink_to("../bin/busybox")
    mounts = root / "etc/mtab"
    mounts.unlink(missing_ok=True)
    mounts.symlink_to("/proc/self/mounts")
    (root / "etc/managed-rescue-release").write_text(f"{recipe_hash}\n", encoding="utf-8")
    (root / "mnt/target").mkdir()
