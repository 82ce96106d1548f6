"""Having the images that the demo needs, built once and used again."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from images.build import build_image, up_to_date_image
from images.sources import resolve_sources
from images.store import ImageName
from managed.settings import Settings

NEEDED: Final = (ImageName.RESTIC, ImageName.RESCUE, ImageName.DEBIAN_12)


def build_missing_images(settings: Settings, say: Callable[[str], None]) -> None:
    """Build what is missing or out of date; says what it does."""
    missing = [name for name in NEEDED if up_to_date_image(name, settings.images) is None]
    if not missing:
        say("images: built earlier")
        return
    sources = resolve_sources(
        settings.debian_mirror, settings.debian_security_mirror, settings.apt_proxy or None, say
    )
    for name in missing:
        say(f"building the image {name.value}")
        build_image(name, settings.images, sources, say)
