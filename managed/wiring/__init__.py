"""Puts the parts together: the only place that picks drivers."""

from managed.wiring.from_settings import gateway_to_run, mail_settings
from managed.wiring.installation import Installation, open_installation, prepare_installation
from managed.wiring.records import utc_now

__all__ = [
    "Installation",
    "gateway_to_run",
    "mail_settings",
    "open_installation",
    "prepare_installation",
    "utc_now",
]
