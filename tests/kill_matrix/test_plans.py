"""The matrix is whole: every victim at every boundary, and the table tells what came of each."""

from __future__ import annotations

from dataclasses import replace
from itertools import product

import pytest

from managed.domain.jobs import JobKind
from managed.workflows.registry import current_workflow
from tests.kill_matrix.boundaries import Boundary, Moment, boundaries_of
from tests.kill_matrix.plans import Carried, Kill, Killed, Plan, rotations, singles
from tests.kill_matrix.report import Circumstances, matrix, verdict
from tests.kill_matrix.victims import Victim
from tests.support.jobs import START

KINDS = (JobKind.PATCH, JobKind.BACKUP)
LAST = Kill(Boundary(JobKind.PATCH, Moment.AFTER, "forget_runs"), Victim.WORKER)


@pytest.mark.parametrize("kind", KINDS)
def test_every_step_of_the_workflow_has_its_boundaries_in_order(kind: JobKind) -> None:
    steps = [step.name for step in current_workflow(kind).steps]
    found = boundaries_of(kind, {steps[1]})
    assert [str(boundary) for boundary in found[:5]] == [
        f"before {steps[0]}",
        f"after {steps[0]}",
        f"before {steps[1]}",
        f"while {steps[1]}",
        f"after {steps[1]}",
    ]
    assert len(found) == 2 * len(steps) + 1
    assert str(found[-1]) == f"after {steps[-1]}"


@pytest.mark.parametrize("kind", KINDS)
def test_each_victim_dies_at_each_boundary_once(kind: JobKind) -> None:
    boundaries = boundaries_of(kind, ())
    kills = [kill for plan in rotations(boundaries) for kill in plan.kills]
    assert len(kills) == len(set(kills))
    assert {(kill.boundary, kill.victim) for kill in kills} == set(product(boundaries, Victim))


@pytest.mark.parametrize("kind", KINDS)
def test_one_job_sees_every_boundary_and_every_victim(kind: JobKind) -> None:
    boundaries = boundaries_of(kind, ())
    for plan in rotations(boundaries):
        assert [kill.boundary for kill in plan.kills] == boundaries
        assert {kill.victim for kill in plan.kills} == set(Victim)


def test_the_kills_of_a_job_can_be_carried_out_one_by_one() -> None:
    plan = rotations(boundaries_of(JobKind.PATCH, ()))[3]
    assert [one.kills[0] for one in singles(plan)] == list(plan.kills)


@pytest.mark.parametrize(
    ("killed", "problems", "told"),
    [
        (Killed(LAST, processes=1, seconds=2.4), [], "ok 2 s"),
        (Killed(LAST, processes=0, seconds=0.1), [], "-"),
        (Killed(LAST, processes=1, seconds=2.4), ["shop was installed 2 times"], "**fault**"),
        (Killed(LAST, processes=1), ["after 300 s not yet ended"], "**stuck**"),
        (Killed(LAST), ["failed"], "not reached"),
    ],
)
def test_the_table_calls_nothing_ok_that_is_not(
    killed: Killed, problems: list[str], told: str
) -> None:
    carried = Carried(Plan(JobKind.PATCH, (LAST,)), [killed], problems=problems)
    assert verdict(killed, carried) == told


def test_what_was_done_again_stands_beside_the_fault_and_counts_once() -> None:
    nobody = replace(LAST, victim=Victim.RUNNER)
    rest = [Killed(replace(LAST, victim=v), 1, seconds=1) for v in Victim if v is not nobody.victim]
    faulty = Carried(
        Plan(JobKind.PATCH, (LAST, nobody)),
        [*rest, Killed(nobody, processes=0, seconds=1)],
        problems=["shop was installed 2 times"],
    )
    again = Carried(Plan(JobKind.PATCH, (LAST,)), [Killed(LAST, processes=1, seconds=12)])
    told = matrix([faulty, again], Circumstances(START, "0123abc", 60, 1, 1))
    assert "| after forget_runs | **fault**; alone ok 12 s | **fault** |" in told
    assert "**1 of 2 jobs ended well. In 8 of 8 places there was something to kill.**" in told
    assert "shop was installed 2 times" in told
