"""Build the images: `python -m images.build rescue|debian-12|debian-13|restic|all`."""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from images import operating_system, rescue, restic
from images.bootstrap import TOOLS
from images.prerequisites import require_root, require_space, require_tools
from images.process import Report
from images.sources import DEBIAN_KEYRING, AptSources, resolve_sources
from images.store import (
    BuiltImage,
    ImageName,
    build_directory,
    built_image,
    file_sha256,
    locked,
    publish,
    recipe_hash,
)
from managed.domain.errors import ManagedError, MissingRequirement

DEFAULT_OUTPUT = Path("var/images")


@dataclass(frozen=True)
class Recipe:
    """What an image depends on: the files whose content makes it, tools, and space in MiB."""

    files: Sequence[Path]
    tools: Mapping[str, str]
    space: int
    needs_root: bool


def recipe_of(name: ImageName) -> Recipe:
    """The recipe of an image."""
    if name is ImageName.RESTIC:
        return Recipe(restic.RECIPE_FILES, restic.TOOLS, restic.SPACE_MEBIBYTES, False)
    if name is ImageName.RESCUE:
        return Recipe(rescue.RECIPE_FILES, TOOLS, rescue.SPACE_MEBIBYTES, True)
    return Recipe(operating_system.RECIPE_FILES, TOOLS, operating_system.SPACE_MEBIBYTES, True)


def current_recipe_hash(name: ImageName) -> str:
    """The hash of the recipe as it stands now; mirror and proxy don't change an image."""
    return recipe_hash(recipe_of(name).files, {"name": name.value})


def build_image(
    name: ImageName,
    output: Path,
    sources: AptSources,
    report: Report,
    *,
    force: bool = False,
) -> BuiltImage:
    """The image under `output`, built now unless the same recipe has built it already.

    Builders of the same image wait for each other. An interrupted build leaves the earlier image.
    Raises MissingRequirement, MirrorUnreachable or ImageError.
    """
    output = output.resolve()
    with locked(name, output):
        present = up_to_date_image(name, output)
        if present is not None and not force:
            report(f"{name}: already built on {present.built_at:%Y-%m-%d %H:%M} UTC, used again")
            return present
        check_prerequisites(name, output)
        report(f"{name}: building from {sources.mirror}")
        image = _build(name, output, sources, lambda line: report(f"{name}: {line}"))
        report(f"{name}: built in {image.seconds:.0f} s")
        return image


def up_to_date_image(name: ImageName, output: Path) -> BuiltImage | None:
    """The image under `output` if the recipe as it stands now made it."""
    image = built_image(name, output)
    return image if image and image.recipe_hash == current_recipe_hash(name) else None


def check_prerequisites(name: ImageName, output: Path) -> None:
    """Raise MissingRequirement, with a hint, when this machine can't build the image."""
    recipe = recipe_of(name)
    if recipe.needs_root:
        require_root()
    require_tools(recipe.tools)
    if not Path(DEBIAN_KEYRING).exists():
        raise MissingRequirement(
            "Building images needs Debian's archive keys, which this machine does not have.",
            hint="Run: apt-get install debian-archive-keyring",
        )
    output.mkdir(parents=True, exist_ok=True)
    require_space(output, recipe.space)


def _build(name: ImageName, output: Path, sources: AptSources, report: Report) -> BuiltImage:
    started = time.monotonic()
    recipe = current_recipe_hash(name)
    with build_directory(name, output) as directory:
        work, artifacts = directory / "work", directory / "artifacts"
        work.mkdir()
        artifacts.mkdir()
        versions = _make(name, work, artifacts, sources, recipe, report)
        image = BuiltImage(
            name=name,
            directory=output / name.value,
            recipe_hash=recipe,
            built_at=datetime.now(UTC),
            seconds=time.monotonic() - started,
            mirror=sources.mirror,
            security_mirror=sources.security_mirror,
            versions=versions,
            sha256={file: file_sha256(artifacts / file) for file in name.artifacts},
        )
        publish(image, artifacts)
    return image


def _make(
    name: ImageName,
    work: Path,
    artifacts: Path,
    sources: AptSources,
    recipe: str,
    report: Report,
) -> dict[str, str]:
    if name is ImageName.RESTIC:
        return restic.build_restic(work, artifacts, sources, report)
    if name is ImageName.RESCUE:
        return rescue.build_rescue(work, artifacts, sources, recipe, report)
    return operating_system.build_operating_system(name, work, artifacts, sources, report)


def build_images(names: Sequence[ImageName], output: Path, report: Report, *, force: bool) -> None:
    """Build what is missing or out of date; ask for mirrors only if something is."""
    sources: AptSources | None = None
    for name in names:
        image = up_to_date_image(name, output)
        if image is not None and not force:
            report(f"{name}: already built on {image.built_at:%Y-%m-%d %H:%M} UTC, used again")
            continue
        check_prerequisites(name, output)
        sources = sources or resolve_sources(
            os.environ.get("MANAGED_DEBIAN_MIRROR"),
            os.environ.get("MANAGED_DEBIAN_SECURITY_MIRROR"),
            os.environ.get("MANAGED_APT_PROXY"),
            report,
        )
        build_image(name, output, sources, report, force=force)


def say(line: str) -> None:
    """Print one progress line at once."""
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m images.build", description=__doc__)
    parser.add_argument("image", choices=[*(name.value for name in ImageName), "all"])
    parser.add_argument("--output", type=Path, default=DEFAULT_OUTPUT, metavar="DIR")
    parser.add_argument("--force", action="store_true", help="build even if nothing changed")
    chosen = parser.parse_args(arguments)
    names = list(ImageName) if chosen.image == "all" else [ImageName(chosen.image)]
    try:
        build_images(names, chosen.output, say, force=chosen.force)
    except ManagedError as error:
        sys.stderr.write(f"{error} {error.hint}".rstrip() + "\n")
        return 1
    except KeyboardInterrupt:
        sys.stderr.write("Interrupted; nothing half-built was left.\n")
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
