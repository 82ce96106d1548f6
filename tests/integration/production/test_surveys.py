"""A real clock that is killed while a window opens: no survey and no job is lost or done twice."""

from __future__ import annotations

import signal

import pytest
from sqlalchemy import select

from managed.domain.jobs import JobStatus
from managed.lab.cells import Cell
from managed.storage.database import writing
from managed.storage.tables import servers
from tests.support.parts import SECONDS, Parts
from tests.support.surveyed_servers import open_patch_window
from tests.support.waiting import wait_until

pytestmark = [pytest.mark.integration, pytest.mark.cell, pytest.mark.timeout(400)]


def test_a_clock_that_is_killed_between_survey_and_job_has_a_successor_that_starts_it(
    installed: Parts, cell: Cell
) -> None:
    installation = installed.installation
    window = open_patch_window(installation)
    server_id = window.add(cell)
    # Lets rows in that refer to the server, and keeps its next job out.
    held = select(servers.c.id).with_for_update(key_share=True)
    with writing(installation.database) as connection:
        connection.execute(held.where(servers.c.id == server_id))
        first = installed.clock()
        wait_until(lambda: window.survey(server_id), timeout=SECONDS, what="it is surveyed")
        first.process.send_signal(signal.SIGKILL)
        first.process.wait()
    survey = window.survey(server_id)
    assert survey is not None
    assert survey.finding.outcome.starts_a_job
    assert installation.queue.find() == []

    installed.clock()

    wait_until(installation.queue.find, timeout=SECONDS, what="the job is stored")
    (job,) = installation.queue.find()
    assert (job.run_key, job.status) == (window.opening.run_key, JobStatus.QUEUED)
    assert window.survey(server_id) == survey, "it was not asked again"
