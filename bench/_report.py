"""What every benchmark says at its end."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from dataclasses import asdict, dataclass

from managed.domain.errors import Json


@dataclass(frozen=True)
class Comparison:
    """The product's figures and the rival's, measured in the same run. `ratio` is the product's
    share of the rival's; the goal is met when it is not above `goal`.
    """

    bench: str
    product: Mapping[str, Json]
    rival: Mapping[str, Json]
    ratio: float
    goal: float

    @property
    def met(self) -> bool:
        return self.ratio <= self.goal


def say(line: str) -> None:
    """A line for people."""
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


def report(comparison: Comparison) -> None:
    """The last line, for programs."""
    say(json.dumps({**asdict(comparison), "met": comparison.met}))


def percentile(values: list[float], share: float) -> float:
    """The smallest of the values that so many of them (0 to 1) do not exceed."""
    ranked = sorted(values)
    return ranked[max(0, -int(-len(ranked) * share // 1) - 1)]
