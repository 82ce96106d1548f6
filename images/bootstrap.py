"""Make a Debian root filesystem with mmdebstrap, and pack one as squashfs."""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from images.process import Report, run
from images.sources import AptSources

TOOLS = {
    "mmdebstrap": "mmdebstrap",
    "mksquashfs": "squashfs-tools",
    "unshare": "util-linux",
    "setpriv": "util-linux",
    "chroot": "coreutils",
}
# Without documentation and translations a server installs in half the files; licences stay.
DPKG_OPTIONS = (
    "path-exclude=/usr/share/doc/*",
    "path-include=/usr/share/doc/*/copyright",
    "path-exclude=/usr/share/info/*",
    "path-exclude=/usr/share/man/*",
    "path-exclude=/usr/share/locale/*",
    "path-include=/usr/share/locale/locale.alias",
    "force-unsafe-io",
)
# A killed builder takes mmdebstrap, its children and its mounts with it: the kernel ends
# `unshare` when we die, that ends the process namespace, and mounts live in a namespace as well.
CONTAINED = (
    *("setpriv", "--pdeathsig", "KILL", "--"),
    *("unshare", "--mount", "--propagation", "private"),
    *("--pid", "--fork", "--kill-child", "--mount-proc", "--"),
)


@dataclass(frozen=True)
class Bootstrap:
    """What goes into a root filesystem.

    debconf: answers, one `package question type value` line each, given before any package asks.
    initramfs: whether installing a kernel makes an initramfs.
    """

    suite: str
    packages: Sequence[str]
    debconf: Sequence[str] = field(default_factory=tuple)
    initramfs: bool = True

    @property
    def environment(self) -> dict[str, str]:
        """Variables for the package scripts."""
        return {} if self.initramfs else {"INITRD": "No"}


def bootstrap_command(
    bootstrap: Bootstrap, sources: AptSources, root: Path, debconf_file: Path | None
) -> tuple[str, ...]:
    """The argv that makes `root` (which must not exist) from the release's main component alone."""
    argv = [*CONTAINED, "mmdebstrap", "--mode=root", "--variant=essential", "--format=directory"]
    argv += ["--architectures=amd64", '--aptopt=APT::Install-Recommends "false"']
    argv += ['--aptopt=Acquire::Retries "3"']
    if sources.proxy is not None:
        argv.append(f'--aptopt=Acquire::http::Proxy "{sources.proxy}"')
    argv += [f"--dpkgopt={option}" for option in DPKG_OPTIONS]
    if debconf_file is not None:
        argv.append(f'--essential-hook=chroot "$1" debconf-set-selections < {debconf_file}')
    argv.append(f"--include={','.join(bootstrap.packages)}")
    argv += [bootstrap.suite, str(root), sources.main_line(bootstrap.suite)]
    return tuple(argv)


def make_root(bootstrap: Bootstrap, sources: AptSources, root: Path, report: Report) -> None:
    """Make the root filesystem and take out what only the build needed.

    root: a path without spaces that does not exist yet; its parent is ours.
    Raises MirrorUnreachable or ImageError.
    """
    debconf_file = None
    if bootstrap.debconf:
        debconf_file = root.with_name("debconf-selections")
        debconf_file.write_text("\n".join(bootstrap.debconf) + "\n", encoding="utf-8")
    run(
        bootstrap_command(bootstrap, sources, root, debconf_file),
        f"installing {len(bootstrap.packages)} chosen packages of Debian {bootstrap.suite}",
        report,
        bootstrap.environment,
    )
    remove_traces_of_build(root)


def remove_traces_of_build(root: Path) -> None:
    """Take out of a new root what belongs to the build, or must be each server's own."""
    for name in ("etc/apt/apt.conf.d/99mmdebstrap", "etc/dpkg/dpkg.cfg.d/99mmdebstrap"):
        (root / name).unlink(missing_ok=True)
    (root / "etc/apt/sources.list").write_text("", encoding="utf-8")
    for key in (root / "etc/ssh").glob("ssh_host_*"):
        key.unlink()
    (root / "etc/machine-id").write_text("", encoding="utf-8")
    (root / "var/lib/dbus/machine-id").unlink(missing_ok=True)
    hostname = root / "etc/hostname"
    hostname.write_text("localhost\n", encoding="utf-8")
    hostname.chmod(0o644)
    (root / "etc/resolv.conf").unlink(missing_ok=True)
    (root / "etc/resolv.conf").write_text("", encoding="utf-8")
    for pattern in ("var/log/*.log", "var/log/apt/*", "var/cache/debconf/*-old"):
        for path in root.glob(pattern):
            path.unlink()


def in_root(root: Path, argv: Sequence[str], what: str, report: Report) -> str:
    """Run a program inside the root and return its output."""
    return run(("chroot", str(root), *argv), what, report)


def package_versions(root: Path, packages: Sequence[str], report: Report) -> dict[str, str]:
    """The installed versions of some packages, by package name."""
    text = in_root(
        root,
        ("dpkg-query", "--show", "--showformat", "${Package} ${Version}\\n", *packages),
        "reading package versions",
        report,
    )
    return dict(line.split(" ", 1) for line in text.splitlines() if " " in line)


def lay_over(tree: Path, root: Path) -> None:
    """Copy a recipe's files into a root, owned by root; whether a file is executable is kept."""
    for path in sorted(tree.rglob("*")):
        target = root / path.relative_to(tree)
        if path.is_dir():
            target.mkdir(exist_ok=True)
            continue
        target.unlink(missing_ok=True)
        shutil.copyfile(path, target)
        target.chmod(0o755 if os.access(path, os.X_OK) else 0o644)


def squashfs_command(
    root: Path, target: Path, compression: Sequence[str], exclude: Sequence[str] = ()
) -> tuple[str, ...]:
    """The argv that packs `root` with all ownership, extended attributes and capabilities.

    exclude: paths relative to the root to leave out.
    """
    argv = ["mksquashfs", str(root), str(target), "-noappend", "-no-progress", "-xattrs"]
    argv += compression
    if exclude:
        argv += ["-e", *exclude]
    return tuple(argv)


def pack(
    root: Path,
    target: Path,
    compression: Sequence[str],
    report: Report,
    exclude: Sequence[str] = (),
) -> None:
    """Pack `root` into the squashfs file `target`."""
    run(squashfs_command(root, target, compression, exclude), f"packing {target.name}", report)
