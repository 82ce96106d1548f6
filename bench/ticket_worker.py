"""The product's Celery worker, whose patch does nothing: `celery -A bench.ticket_worker worker`.
What is measured is the way to a job's first step, not the step.
"""

from __future__ import annotations

from dataclasses import replace

from celery import Celery

from bench.bench_worker import nothing
from managed.domain.jobs import JobKind
from managed.workflows.registry import WORKFLOWS, current_workflow
from managed.workflows.steps import Step
from workers.app import app as product_app

_patch = current_workflow(JobKind.PATCH)
WORKFLOWS[JobKind.PATCH, _patch.version] = replace(_patch, steps=(Step("nothing", nothing),))
app: Celery = product_app
