"""The last step of workflows with detached runs: their records are taken off the server."""

from __future__ import annotations

from managed.domain.errors import LeaseLost, ManagedError
from managed.domain.runs import run_id_for
from managed.workflows.steps import Done, Outcome, StepContext, StepFunction


def forget_runs(*steps: str) -> StepFunction:
    """A step that forgets the runs of these steps, whose results are on record. What the job was
    for is done: a record that stays is a warning and no failure.
    """

    def forget(context: StepContext) -> Outcome:
        warnings: list[str] = []
        for step in steps:
            for number in range(1, context.job.run_number(step) + 1):
                run_id = run_id_for(context.job.job_id, step, number)
                try:
                    context.world.runs.forget(context.endpoint, run_id)
                except LeaseLost:
                    raise
                except ManagedError as error:
                    warnings.append(f"the record of run {run_id} stays: {error.message}")
        return Done(warnings=warnings)

    return forget
