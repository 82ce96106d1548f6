"""Types that several ports share."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import datetime

from managed.domain.errors import Json

Emit = Callable[[str, Mapping[str, Json]], None]
"""Takes an event's static name and its data; data never holds a secret."""

RegisterChild = Callable[[int], None]
"""Takes the process group that begins to work for a step, so that whoever takes the job over can
end it. It may raise, as when the lease is lost: then the group is ended at once.
"""

Clock = Callable[[], datetime]
"""The present moment, timezone-aware."""

Stopwatch = Callable[[], float]
"""Seconds since some moment. They run on evenly, whatever is done to the clock."""
