"""Built images on disk: `<output>/<name>/` with the artifacts and `image.json`.

An image appears whole, by a rename, or not at all. `image.json` records the hash of the recipe
that made it, and the sha256 of each artifact.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from pathlib import Path

RECORD_NAME = "image.json"


class ImageName(StrEnum):
    """The images that exist; the value is the directory's name and the word on the command line."""

    RESCUE = "rescue"
    DEBIAN_12 = "debian-12"
    DEBIAN_13 = "debian-13"
    RESTIC = "restic"

    @property
    def artifacts(self) -> tuple[str, ...]:
        """The files that the image consists of."""
        if self is ImageName.RESCUE:
            return ("vmlinuz", "vmlinux", "initrd.img", "root.squashfs")
        if self is ImageName.RESTIC:
            return ("restic",)
        return ("root.squashfs",)


@dataclass(frozen=True)
class BuiltImage:
    """An image that is whole on disk.

    directory: absolute. sha256: artifact name to hex digest. seconds: how long the build took.
    mirror, security_mirror: where its packages came from.
    versions: package or release names of interest to their versions.
    """

    name: ImageName
    directory: Path
    recipe_hash: str
    built_at: datetime
    seconds: float
    mirror: str
    security_mirror: str
    versions: Mapping[str, str]
    sha256: Mapping[str, str]

    def path(self, artifact: str) -> Path:
        """The absolute path of one artifact; KeyError when the image has no such artifact."""
        if artifact not in self.sha256:
            raise KeyError(artifact)
        return self.directory / artifact

    def as_json(self) -> dict[str, object]:
        """The record, without the directory: an output folder may be moved."""
        return {
            "name": self.name.value,
            "recipe_hash": self.recipe_hash,
            "built_at": self.built_at.isoformat(),
            "seconds": round(self.seconds, 1),
            "mirror": self.mirror,
            "security_mirror": self.security_mirror,
            "versions": dict(self.versions),
            "sha256": dict(self.sha256),
        }


def built_image(name: ImageName, output: Path) -> BuiltImage | None:
    """The image under `output` whatever recipe made it; None when it is missing or not whole."""
    directory = output.resolve() / name.value
    try:
        record = json.loads((directory / RECORD_NAME).read_text(encoding="utf-8"))
        image = BuiltImage(
            name=ImageName(record["name"]),
            directory=directory,
            recipe_hash=record["recipe_hash"],
            built_at=datetime.fromisoformat(record["built_at"]),
            seconds=record["seconds"],
            mirror=record["mirror"],
            security_mirror=record["security_mirror"],
            versions=record["versions"],
            sha256=record["sha256"],
        )
    except (OSError, ValueError, KeyError, TypeError):
        return None
    whole = image.name is name and all(
        artifact in image.sha256 and (directory / artifact).is_file() for artifact in name.artifacts
    )
    return image if whole else None


def recipe_hash(files: Sequence[Path], settings: Mapping[str, str]) -> str:
    """The hex sha256 over files (name, mode, content; folders are walked) and settings."""
    digest = hashlib.sha256(json.dumps(settings, sort_keys=True).encode())
    for start in files:
        found = sorted(p for p in start.rglob("*") if p.is_file()) if start.is_dir() else [start]
        for path in found:
            executable = os.access(path, os.X_OK)
            name = path.relative_to(start.parent).as_posix()
            content = hashlib.sha256(path.read_bytes()).hexdigest()
            digest.update(f"{name}\0{executable}\0{content}\n".encode())
    return digest.hexdigest()


def file_sha256(path: Path) -> str:
    """The hex sha256 of one file."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


@contextmanager
def locked(name: ImageName, output: Path) -> Iterator[None]:
    """Hold the right to build one image; a second builder waits for the first."""
    output.mkdir(parents=True, exist_ok=True)
    with (output / f".{name.value}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


@contextmanager
def build_directory(name: ImageName, output: Path) -> Iterator[Path]:
    """An empty directory beside the finished images, removed at the end if it is still there.

    What a killed build left behind is removed first; so call it with the lock held only.
    """
    prefix = f".{name.value}.partial-"
    for leftover in output.glob(f"{prefix}*"):
        shutil.rmtree(leftover)
    directory = Path(tempfile.mkdtemp(prefix=prefix, dir=output))
    directory.chmod(0o755)
    try:
        yield directory
    finally:
        shutil.rmtree(directory, ignore_errors=True)


def publish(image: BuiltImage, finished: Path) -> None:
    """Put the directory `finished` at the image's place, its record included, by renames."""
    record = finished / RECORD_NAME
    record.write_text(json.dumps(image.as_json(), indent=2) + "\n", encoding="utf-8")
    for path in finished.iterdir():
        with path.open("rb") as stream:
            os.fsync(stream.fileno())
    if image.directory.exists():
        with tempfile.TemporaryDirectory(prefix=".old-", dir=image.directory.parent) as old:
            image.directory.rename(Path(old) / image.name.value)
            finished.rename(image.directory)
    else:
        finished.rename(image.directory)
