"""The restic program from Debian 13's package, fetched with an apt of its own.

It needs no root and leaves the host's apt alone. The binary asks for nothing newer than glibc 2.34,
so it runs on Debian 12 and Ubuntu 24.04 too; their own packages are too old.
"""

from __future__ import annotations

import re
import shutil
from pathlib import Path

from images.errors import ImageError
from images.process import Report, run
from images.sources import AptSources

RECIPE_FILES = (Path(__file__),)
SPACE_MEBIBYTES = 300
TOOLS = {"apt-get": "apt", "dpkg-deb": "dpkg"}
SUITE = "trixie"
OLDEST_USABLE = (0, 18)
DIRECTORIES = ("lists/partial", "cache/archives/partial")


def apt_options(directory: Path, proxy: str | None) -> tuple[str, ...]:
    """The options that make apt-get work in `directory` alone, for amd64."""
    settings = {
        "APT::Architecture": "amd64",
        "APT::Architectures": "amd64",
        "APT::Sandbox::User": "root",
        "Acquire::Languages": "none",
        "Acquire::Retries": "3",
        "Dir::Etc::SourceList": str(directory / "sources.list"),
        "Dir::Etc::SourceParts": "/dev/null",
        "Dir::Etc::Preferences": "/dev/null",
        "Dir::Etc::PreferencesParts": "/dev/null",
        "Dir::State::Lists": str(directory / "lists"),
        "Dir::State::Status": str(directory / "status"),
        "Dir::Cache": str(directory / "cache"),
    }
    if proxy is not None:
        settings["Acquire::http::Proxy"] = proxy
    return tuple(word for key, value in settings.items() for word in ("-o", f"{key}={value}"))


def parsed_version(text: str) -> tuple[int, int, int]:
    """The version that `restic version` prints, as numbers; ImageError when there is none."""
    match = re.match(r"restic (\d+)\.(\d+)\.(\d+)", text)
    if match is None:
        raise ImageError(f"restic did not say its version, but: {text[:80]!r}")
    major, minor, patch = (int(part) for part in match.groups())
    return major, minor, patch


def build_restic(
    work: Path, artifacts: Path, sources: AptSources, report: Report
) -> dict[str, str]:
    """Fetch the package and take the program out of it; return its version.

    work: an empty directory for what is thrown away afterwards.
    Raises MirrorUnreachable, or ImageError when the mirror's restic is older than 0.18.
    """
    for name in DIRECTORIES:
        (work / name).mkdir(parents=True)
    (work / "status").touch()
    (work / "sources.list").write_text(sources.main_line(SUITE) + "\n", encoding="utf-8")
    apt = ("apt-get", *apt_options(work, sources.proxy))
    run((*apt, "update", "--error-on=any"), "reading Debian's package list", report)
    run((*apt, "download", "restic"), "fetching the restic package", report, directory=work)
    package = next(work.glob("restic_*.deb"))
    run(("dpkg-deb", "--extract", str(package), str(work / "tree")), "unpacking restic", report)
    program = artifacts / "restic"
    shutil.copyfile(work / "tree/usr/bin/restic", program)
    program.chmod(0o755)
    version = parsed_version(run((str(program), "version"), "asking restic its version", report))
    if version < OLDEST_USABLE:
        raise ImageError(
            f"The mirror offers restic {'.'.join(map(str, version))}; 0.18 or newer is needed."
        )
    return {"restic": ".".join(map(str, version))}
