"""Root filesystems of the operating systems that a rescue session installs on a server's disk."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from images.bootstrap import Bootstrap, in_root, lay_over, make_root, pack, package_versions
from images.process import Report
from images.sources import AptSources
from images.store import ImageName

RECIPE = Path(__file__).parent / "recipes" / "operating_system"
RECIPE_FILES = (RECIPE, Path(__file__), Path(__file__).with_name("bootstrap.py"))
SPACE_MEBIBYTES = 2000

SUITES: Mapping[ImageName, str] = {
    ImageName.DEBIAN_12: "bookworm",
    ImageName.DEBIAN_13: "trixie",
}

PACKAGES = (
    # the system
    *("systemd", "systemd-sysv", "libpam-systemd", "dbus", "udev", "kmod", "tzdata"),
    *("systemd-timesyncd", "cron", "logrotate", "init", "netbase", "procps"),
    # packages
    *("apt", "ca-certificates", "debian-archive-keyring", "gpgv", "python3-apt"),
    # people and programs
    *("openssh-server", "sudo", "python3", "curl", "less", "nano"),
    # the network
    *("iproute2", "iputils-ping", "nftables"),
    # disks and boot
    *("e2fsprogs", "fdisk", "zstd", "initramfs-tools", "linux-image-cloud-amd64"),
    *("grub-pc", "grub-pc-bin", "grub-efi-amd64-bin", "grub2-common"),
)
VERSIONS_OF_INTEREST = ("systemd", "openssh-server", "linux-image-cloud-amd64", "grub-pc")

# grub-pc must neither ask nor touch the build host's disks; the installer answers for the server.
DEBCONF = (
    "grub-pc grub-pc/install_devices multiselect",
    "grub-pc grub-pc/install_devices_empty boolean true",
    "grub-pc grub-pc/timeout string 0",
    "grub-pc grub2/linux_cmdline_default string",
    "tzdata tzdata/Areas select Etc",
    "tzdata tzdata/Zones/Etc select UTC",
)
SERVICES = ("systemd-networkd.service", "systemd-timesyncd.service", "nftables.service")

# Unpacked once per installation, so a quick level; larger blocks suit reading it from end to end.
COMPRESSION = ("-comp", "zstd", "-Xcompression-level", "3", "-b", "256K")


def build_operating_system(
    name: ImageName, work: Path, artifacts: Path, sources: AptSources, report: Report
) -> dict[str, str]:
    """Build `root.squashfs` of one operating system; return the versions of interest.

    It comes from the release's main component alone, so that the security updates of the day are
    really waiting on a new server. work: an empty directory for what is thrown away afterwards.
    """
    root = work / "root"
    bootstrap = Bootstrap(SUITES[name], PACKAGES, DEBCONF, initramfs=False)
    make_root(bootstrap, sources, root, report)
    report("writing the system's own files")
    lay_over(RECIPE / "root", root)
    enable = ("systemctl", "enable", *SERVICES)
    in_root(root, enable, "enabling services", report)
    kernel = next((root / "boot").glob("vmlinuz-*")).name.removeprefix("vmlinuz-")
    create = ("update-initramfs", "-c", "-k", kernel)
    in_root(root, create, "making the initramfs", report)
    versions = package_versions(root, VERSIONS_OF_INTEREST, report)
    release = (root / "etc/debian_version").read_text(encoding="ascii").strip()
    pack(root, artifacts / "root.squashfs", COMPRESSION, report)
    return {"debian": release, "kernel": kernel, **versions}
