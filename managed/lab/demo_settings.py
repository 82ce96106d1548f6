"""The settings that the demo runs with: those of an installation of its own."""

from __future__ import annotations

from typing import Final

from managed.settings import Settings

# What says how this machine builds and runs things. All else names an installation's database,
# bucket, broker, keys or sockets, and the environment's may be a production's.
_OF_THIS_MACHINE: Final = frozenset(
    {
        "acceleration",
        "apt_proxy",
        "debian_mirror",
        "debian_security_mirror",
        "lab_apt_proxy",
        "listen_port",
        "log_format",
        "log_level",
        "restic",
    }
)


def demo_settings(settings: Settings) -> Settings:
    """Everything in the folder demo/state of `settings`, with its images; nothing else of it."""
    usual = {
        name: field.default
        for name, field in Settings.model_fields.items()
        if name not in _OF_THIS_MACHINE
    }
    own = {"state_dir": settings.state / "demo" / "state", "images_dir": settings.images}
    return settings.model_copy(update={**usual, **own})
