"""What every bench says at its end."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Mapping, Sequence


def say(line: str) -> None:
    """A line for people."""
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


def report(
    bench: str,
    product: Mapping[str, object],
    rival: Mapping[str, object],
    ratio: float | None,
    goal: str,
    met: bool,
) -> None:
    """The last line, for programs. `ratio` is product ÷ rival of the figure that the goal names."""
    line = {
        "bench": bench,
        "product": product,
        "rival": rival,
        "ratio": ratio,
        "goal": goal,
        "met": met,
    }
    say(json.dumps(line))


def percentile(values: Sequence[float], share: float) -> float:
    """The smallest of the values that so many of them (0 to 1) do not exceed."""
    ranked = sorted(values)
    return ranked[max(0, -int(-len(ranked) * share // 1) - 1)]


def machine() -> dict[str, object]:
    """What else a number depends on: how many processors there are, and how busy they were."""
    return {"processors": os.cpu_count(), "load": round(os.getloadavg()[0], 1)}
