"""The root filesystem that cells share: one per release and recipe, built once by mmdebstrap."""

from __future__ import annotations

import fcntl
import hashlib
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from images.prerequisites import require_root, require_space, require_tools
from images.process import run
from images.sources import DEBIAN_KEYRING, AptSources
from managed.domain.errors import InvalidInput

Report = Callable[[str], None]
"""Takes a line that tells people what goes on."""

RELEASES: Final = {"debian-12": "bookworm", "debian-13": "trixie"}

_PACKAGES: Final = (
    "systemd",
    "systemd-sysv",
    "dbus",
    "openssh-server",
    "python3",
    "python3-apt",
    "sudo",
    "nftables",
    "ca-certificates",
    "curl",
    "iproute2",
    "cron",
    "procps",
    "kmod",
    "login",
    "passwd",
)

# A cell has no console to log in at, and no clock and network of its own to look after; timers
# that start apt by themselves would take its lock at times that no test chose.
_MASKED_UNITS: Final = (
    "console-getty.service",
    "getty@.service",
    "systemd-networkd.service",
    "systemd-networkd-wait-online.service",
    "systemd-resolved.service",
    "systemd-timesyncd.service",
    "apt-daily.timer",
    "apt-daily-upgrade.timer",
    "dpkg-db-backup.timer",
    "e2scrub_all.timer",
    "fstrim.timer",
)

_RECIPE_VERSION: Final = "1"
_BUILD_MEBIBYTES: Final = 1024


def sources_inside(sources: AptSources, suite: str) -> str:
    """sources.list of a cell: its root is built from the release alone, but apt inside also knows
    the security updates, so that real ones wait in every cell.
    """
    security = f"deb [signed-by={DEBIAN_KEYRING}] {sources.security_mirror} {suite}-security main"
    return f"{sources.main_line(suite)}\n{security}\n"


def root_recipe_hash(suite: str, sources: AptSources) -> str:
    """Names the recipe: another package list or another mirror makes another root."""
    recipe = (_RECIPE_VERSION, suite, *_PACKAGES, *_MASKED_UNITS, sources_inside(sources, suite))
    return hashlib.sha256("\n".join(recipe).encode()).hexdigest()[:12]


def cell_root_command(suite: str, target: str, sources_file: str) -> tuple[str, ...]:
    """mmdebstrap's argv; documentation and translations stay out."""
    excluded = ("/usr/share/doc/*", "/usr/share/man/*", "/usr/share/locale/*")
    return (
        "mmdebstrap",
        "--mode=root",
        "--variant=apt",
        '--aptopt=Acquire::Languages "none"',
        *(f"--dpkgopt=path-exclude={pattern}" for pattern in excluded),
        f"--include={','.join(_PACKAGES)}",
        suite,
        target,
        sources_file,
    )


def build_cell_root(
    state_dir: Path, release: str, sources: AptSources, report: Report = lambda _line: None
) -> Path:
    """The root filesystem for cells of this release; built when this recipe has none yet.

    Needs root. Takes about half a minute once; of several callers at a time one builds. Raises
    InvalidInput for an unknown release, ImageError or MirrorUnreachable when it can't be built.
    """
    suite = RELEASES.get(release)
    if suite is None:
        raise InvalidInput(f"no cells of {release!r}", hint=f"One of {', '.join(RELEASES)}.")
    require_root()
    roots = state_dir / "roots"
    roots.mkdir(parents=True, exist_ok=True)
    root = roots / f"{release}-{root_recipe_hash(suite, sources)}"
    with _lock(roots / ".lock"):
        if root.is_dir():
            return root
        require_tools({"mmdebstrap": "mmdebstrap"})
        require_space(roots, _BUILD_MEBIBYTES)
        building = roots / f".building-{root.name}"
        shutil.rmtree(building, ignore_errors=True)
        try:
            _build(suite, building, sources, report)
            building.rename(root)
        finally:
            shutil.rmtree(building, ignore_errors=True)
        return root


def _build(suite: str, target: Path, sources: AptSources, report: Report) -> None:
    sources_file = target.with_name(f"{target.name}.list")
    sources_file.write_text(sources.main_line(suite) + "\n")
    proxy = {"http_proxy": sources.proxy} if sources.proxy else None
    try:
        argv = cell_root_command(suite, str(target), str(sources_file))
        run(argv, f"building the root filesystem of {suite} cells", report, proxy)
    finally:
        sources_file.unlink()
    _adapt(target, sources_inside(sources, suite))


def _adapt(root: Path, apt_sources: str) -> None:
    """What all cells of this root share; what one cell has of its own is in its overlay."""
    for leftover in (root / "etc/apt/sources.list.d").iterdir():
        leftover.unlink()
    (root / "etc/apt/sources.list").write_text(apt_sources)
    for unit in _MASKED_UNITS:
        link = root / "etc/systemd/system" / unit
        link.unlink(missing_ok=True)
        link.symlink_to("/dev/null")
    for key in (root / "etc/ssh").glob("ssh_host_*"):
        key.unlink()
    (root / "etc/machine-id").write_text("")


@contextmanager
def _lock(path: Path) -> Iterator[None]:
    with path.open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
