"""Reads what dpkg and apt say of packages; shared by scripts on Debian's family."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from managed.server_scripts._run import run_program

LISTS = Path("/var/lib/apt/lists")
# The versions before a patch, from its beginning to its good end.
STATE_FILE = Path("/var/lib/managed/patch.json")
SECURITY_ONLY = """\
Package: *
Pin: release l=Debian-Security
Pin-Priority: 990

Package: *
Pin: release a=*-security
Pin-Priority: 990

Package: *
Pin: release a=now
Pin-Priority: 100

Package: *
Pin: release a=*
Pin-Priority: 50

"""
SIMULATED = re.compile(r"^Inst (\S+) (?:\[(\S+)\] )?\((\S+) (.*?) \[[^]]*\]\)")


def installed_packages() -> dict[str, str]:
    columns = "${binary:Package}\\t${Version}\\t${db:Status-Status}\\n"
    return parsed_packages(run_program(["dpkg-query", "--show", "--showformat", columns]))


def parsed_packages(printed: str) -> dict[str, str]:
    """Name to version of every package of which files are on the disk."""
    rows = (line.split("\t") for line in printed.splitlines())
    return {row[0]: row[1] for row in rows if row[2] not in ("not-installed", "config-files")}


def damaged_packages() -> list[str]:
    """Packages whose unpacking was interrupted, so that only another installation mends them."""
    columns = "${binary:Package}\\t${db:Status-Eflag}\\n"
    printed = run_program(["dpkg-query", "--show", "--showformat", columns])
    rows = (line.split("\t") for line in printed.splitlines())
    return [row[0] for row in rows if row[1] == "reinstreq"]


def audit_of_packages() -> str:
    """What `dpkg --audit` complains of; empty when all packages are whole."""
    return run_program(["dpkg", "--audit"], accepted=(0, 1)).strip()


def simulated_updates(printed: str) -> list[dict[str, Any]]:
    """Read the "Inst" lines of apt-get --simulate; `before` is empty for a new package."""
    found = []
    for line in printed.splitlines():
        match = SIMULATED.match(line)
        if match:
            name, before, after, origins = match.groups()
            found.append(
                {
                    "name": name,
                    "before": before or "",
                    "after": after,
                    "security": is_security(origins),
                    "origin": origins,
                }
            )
    return found


def is_security(origins: str) -> bool:
    """Origins as apt prints them, such as "Debian-Security:12/oldstable-security"."""
    return any(
        origin.startswith("Debian-Security:") or origin.endswith("-security")
        for origin in re.split(r",\s*", origins)
    )


def security_preferences() -> str:
    """Pins that let only security updates (and what they newly depend on) through, followed by
    the server's own preferences, which stay in force for the packages that they name.
    """
    own = Path("/etc/apt/preferences")
    return SECURITY_ONLY + (own.read_text() if own.is_file() else "")


def releases() -> list[dict[str, str]]:
    """The release files that the lists come from, with the dates that they state."""
    found = []
    for path in sorted(LISTS.glob("*Release")):
        head = path.read_bytes()[:65536].decode(errors="replace")
        dates = dict(re.findall(r"^(Date|Valid-Until): (.+)$", head, re.MULTILINE))
        found.append(
            {
                "name": path.name,
                "date": dates.get("Date", ""),
                "valid_until": dates.get("Valid-Until", ""),
            }
        )
    return found


def package_indexes() -> list[str]:
    """The origin of each package list that apt has now, as apt prints origins; none where a server
    has no sources. A release file that does not state a part of it leaves the part's name there.
    """
    origin = "$(LABEL):$(VERSION)/$(SUITE)"
    command = ["apt-get", "indextargets", "--format", origin, "Identifier: Packages"]
    return run_program(command).splitlines()
