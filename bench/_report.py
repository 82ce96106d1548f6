"""The last line that every bench prints: one JSON object."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Mapping


def report(
    bench: str,
    product: Mapping[str, object],
    rival: Mapping[str, object],
    ratio: float | None,
    goal: str,
    met: bool,
) -> None:
    """Print it. `ratio` says how many times as good the product is as its rival, in the measure
    that the goal names.
    """
    line = {
        "bench": bench,
        "product": product,
        "rival": rival,
        "ratio": ratio,
        "goal": goal,
        "met": met,
    }
    sys.stdout.write(json.dumps(line) + "\n")


def machine() -> dict[str, object]:
    """What else a number depends on: how many processors there are, and how busy they were."""
    return {"processors": os.cpu_count(), "load": round(os.getloadavg()[0], 1)}
