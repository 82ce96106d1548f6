"""Every workflow that this deployment carries, old versions of parked jobs included."""

from __future__ import annotations

from managed.domain.jobs import JobKind
from managed.workflows import (
    backup,
    check,
    create,
    delete,
    enrol,
    harden,
    patch,
    power,
    rescue,
    restore,
    restore_files,
)
from managed.workflows.steps import Workflow

_ALL = (
    create.WORKFLOW,
    enrol.WORKFLOW,
    delete.WORKFLOW,
    power.WORKFLOW,
    check.WORKFLOW,
    patch.WORKFLOW,
    harden.WORKFLOW,
    backup.WORKFLOW,
    rescue.RESCUE,
    rescue.UNRESCUE,
    restore.WORKFLOW,
    restore_files.WORKFLOW,
)

WORKFLOWS = {(workflow.kind, workflow.version): workflow for workflow in _ALL}


def current_workflow(kind: JobKind) -> Workflow:
    """The newest version: what new jobs of this kind follow."""
    return max((w for w in _ALL if w.kind is kind), key=lambda workflow: workflow.version)
