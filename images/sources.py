"""Which Debian mirror to use: a setting, else the host's own, else mmdebstrap's default.

No mirror's name stands in the project.
"""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from urllib.parse import urlsplit

from images.errors import ImageError
from images.process import Report, run

DEBIAN_KEYRING = "/usr/share/keyrings/debian-archive-keyring.gpg"
TARGET_FORMAT = "$(ORIGIN)|$(LABEL)|$(REPO_URI)"
PROBE_SUITE = "trixie"


@dataclass(frozen=True)
class AptSources:
    """Where packages come from.

    mirror, security_mirror: base addresses without trailing slash, http or https.
    proxy: an apt proxy for the build alone, or None; it never ends up in an image.
    """

    mirror: str
    security_mirror: str
    proxy: str | None = None

    def __post_init__(self) -> None:
        addresses = {
            "The Debian mirror": self.mirror,
            "The Debian security mirror": self.security_mirror,
            "The apt proxy": self.proxy,
        }
        for name, address in addresses.items():
            if address is not None and not is_web_address(address):
                raise ImageError(f"{name} must be an http or https address, not {address!r}.")

    def main_line(self, suite: str) -> str:
        """The apt source line for `suite`'s main component, without updates and security."""
        return f"deb [signed-by={DEBIAN_KEYRING}] {self.mirror} {suite} main"


@dataclass(frozen=True)
class FoundMirrors:
    """What a search for mirrors found; None where nothing was found."""

    mirror: str | None = None
    security_mirror: str | None = None

    def completed_by(self, other: FoundMirrors) -> FoundMirrors:
        """These mirrors, with the gaps filled from `other`."""
        return FoundMirrors(
            self.mirror or other.mirror, self.security_mirror or other.security_mirror
        )


def is_web_address(address: str) -> bool:
    """Whether apt could use `address` as a plain http or https address, in one word."""
    parts = urlsplit(address)
    usable = parts.scheme in {"http", "https"} and bool(parts.netloc)
    return usable and not any(c.isspace() or c in "'\"\\;" for c in address)


def mirrors_of_index_targets(text: str) -> FoundMirrors:
    """The Debian mirrors among apt's index targets, printed in TARGET_FORMAT.

    Other distributions, third parties, and addresses such as file: or mirror+file: are passed over.
    """
    mirror = security = None
    for line in text.splitlines():
        origin, _, rest = line.partition("|")
        label, _, address = rest.partition("|")
        address = address.rstrip("/")
        if origin != "Debian" or not is_web_address(address):
            continue
        if label == "Debian":
            mirror = mirror or address
        elif label == "Debian-Security":
            security = security or address
    return FoundMirrors(mirror, security)


def mirrors_of_sources_list(text: str) -> FoundMirrors:
    """The Debian mirrors in a one-line-style sources.list, as mmdebstrap writes it."""
    mirror = security = None
    for address, suite in _entries(text):
        if suite.endswith("-security"):
            security = security or address
        else:
            mirror = mirror or address
    return FoundMirrors(mirror, security)


def _entries(text: str) -> Iterator[tuple[str, str]]:
    """Address and suite of each `deb` line."""
    for line in text.splitlines():
        words = line.split()
        if not words or words[0] != "deb":
            continue
        while len(words) > 1 and (words[1].startswith("[") or "=" in words[1]):
            del words[1]
        if len(words) >= 3 and is_web_address(words[1]):
            yield words[1].rstrip("/"), words[2]


def resolve_sources(
    mirror: str | None, security_mirror: str | None, proxy: str | None, report: Report
) -> AptSources:
    """The sources to build from: the given settings, completed from the host and mmdebstrap.

    Raises ImageError when a setting is no web address or no mirror can be found.
    """
    found = FoundMirrors(_clean(mirror), _clean(security_mirror))
    for search in (host_mirrors, mmdebstrap_mirrors):
        if found.mirror is None or found.security_mirror is None:
            found = found.completed_by(search(report))
    if found.mirror is None or found.security_mirror is None:
        raise ImageError(
            "No Debian mirror is known on this machine.",
            hint="Set MANAGED_DEBIAN_MIRROR and MANAGED_DEBIAN_SECURITY_MIRROR.",
        )
    return AptSources(found.mirror, found.security_mirror, _clean(proxy) or host_proxy())


def _clean(address: str | None) -> str | None:
    return address.strip().rstrip("/") or None if address else None


def host_mirrors(report: Report) -> FoundMirrors:
    """The mirrors that the host's apt uses for Debian; nothing when it has no apt or no Debian."""
    try:
        text = run(
            ("apt-get", "indextargets", "--format", TARGET_FORMAT),
            "asking apt for its mirrors",
            report,
        )
    except ImageError:
        return FoundMirrors()
    return mirrors_of_index_targets(text)


def mmdebstrap_mirrors(report: Report) -> FoundMirrors:
    """The mirrors that mmdebstrap would use by itself.

    It writes them into a new root before it asks the network for anything; a hook reads them
    there and ends the run by failing, so the failure is expected.
    """
    report("asking mmdebstrap for its default mirror")
    argv = (
        "mmdebstrap",
        "--quiet",
        "--mode=root",
        "--variant=custom",
        "--architectures=amd64",
        "--format=null",
        '--setup-hook=cat "$1/etc/apt/sources.list" >&2; exit 1',
        PROBE_SUITE,
        "-",
    )
    try:
        ended = subprocess.run(argv, check=False, capture_output=True, text=True, timeout=60)
    except (OSError, subprocess.TimeoutExpired):
        return FoundMirrors()
    return mirrors_of_sources_list(ended.stderr)


def host_proxy() -> str | None:
    """The http proxy of the host's apt configuration, if it has one."""
    try:
        ended = subprocess.run(
            ("apt-config", "shell", "proxy", "Acquire::http::Proxy"),
            check=False,
            capture_output=True,
            text=True,
            timeout=60,
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return proxy_of_shell_line(ended.stdout)


def proxy_of_shell_line(text: str) -> str | None:
    """The proxy in what `apt-config shell proxy …` prints; None for nothing or DIRECT."""
    value = text.strip().removeprefix("proxy=").strip("'").rstrip("/")
    return value if is_web_address(value) else None
