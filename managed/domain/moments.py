"""Which years are taken from outside, in dates and times."""

from __future__ import annotations

from typing import Final

YEARS: Final = range(2000, 2100)
"""There is nothing of other years, and the calendar's ends cannot be moved to another zone."""
