"""Which job is killed where. One job carries one kill at each of its boundaries; over as many jobs
as there are victims, each victim dies at each boundary once.

A job that is killed a dozen times must still end well with its work done once; and because it has
to come to its next boundary in time after each kill, no later kill hides what an earlier one broke.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field

from managed.domain.jobs import JobKind
from tests.kill_matrix.boundaries import Boundary
from tests.kill_matrix.victims import Victim


@dataclass(frozen=True)
class Kill:
    boundary: Boundary
    victim: Victim


@dataclass(frozen=True)
class Plan:
    """One job of this kind with its kills, in the order of its boundaries."""

    kind: JobKind
    kills: tuple[Kill, ...]


@dataclass
class Killed:
    """What became of a kill: how many processes it ended (None: the job ended before it came
    there), and after how many seconds the job stood at its next boundary, or had ended.
    """

    kill: Kill
    processes: int | None = None
    killed_at: float = 0.0
    seconds: float | None = None

    def note_next(self) -> None:
        """The job has come to its next boundary, or to its end."""
        self.seconds = time.monotonic() - self.killed_at


@dataclass
class Carried:
    """A plan that was carried out: what became of each kill, and what was wrong in the end."""

    plan: Plan
    kills: list[Killed]
    job_id: str = ""
    seconds: float = 0.0
    problems: list[str] = field(default_factory=list)


def rotations(boundaries: Sequence[Boundary]) -> list[Plan]:
    """Each victim at each boundary once."""
    victims = tuple(Victim)
    return [
        Plan(
            boundaries[0].kind,
            tuple(
                Kill(boundary, victims[(place + turn) % len(victims)])
                for place, boundary in enumerate(boundaries)
            ),
        )
        for turn in range(len(victims))
    ]


def singles(plan: Plan) -> list[Plan]:
    """The same kills, one to a job: to find out which of them a job did not survive."""
    return [Plan(plan.kind, (kill,)) for kill in plan.kills]
