"""A real clock that is killed while a window opens: no survey and no job is lost or done twice. One
whose nodes hang ends when it is told to.
"""

from __future__ import annotations

import signal
import socket
import uuid
from contextlib import ExitStack
from datetime import timedelta

import pytest
from sqlalchemy import select

from managed.domain.connections import Endpoint
from managed.domain.jobs import JobKind, JobStatus
from managed.domain.questions import PowerIs
from managed.domain.servers import Node
from managed.drivers.ssh.keys import new_key_pair
from managed.lab.cells import Cell
from managed.storage.database import writing
from managed.storage.leases import LeasedJobs
from managed.storage.tables import servers
from managed.wiring import Installation, utc_now
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


def test_a_clock_whose_nodes_hang_ends_when_it_is_told_to(installed: Parts) -> None:
    """One hangs while it is asked for a survey, another while the poller asks it for a job."""
    installation = installed.installation
    window = open_patch_window(installation)
    with ExitStack() as held:
        first, second = (
            held.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(2)
        )
        keys = new_key_pair()
        endpoint = Endpoint("127.0.0.1", 1, "root", keys.public_key, keys.private_key)
        window.add_server("surveyed", endpoint, hung_node(installation, first))
        server_id = window.add_server("stopping", endpoint, hung_node(installation, second))
        ask_for_its_power(installation, server_id)

        clock = installed.clock()
        for listener in (first, second):
            listener.settimeout(SECONDS)
            held.enter_context(listener.accept()[0])
        clock.ask_to_stop()

        assert clock.process.wait(20) == 0


def hung_node(installation: Installation, listener: socket.socket) -> str:
    """Its libvirtd takes connections and says nothing."""
    address = f"qemu+tcp://127.0.0.1:{listener.getsockname()[1]}/system"
    node = Node(str(uuid.uuid4()), f"hung-{uuid.uuid4().hex[:8]}", address, "/nowhere")
    return installation.inventory.add_node(node, utc_now()).node_id


def ask_for_its_power(installation: Installation, server_id: str) -> None:
    """A job waits until its server is stopped."""
    new = installation.new_job(server_id, JobKind.POWER, {}, "test")
    job = installation.queue.submit(new, utc_now())
    store = LeasedJobs(installation.database)
    claimed = store.claim(job.job_id, "w", utc_now(), timedelta(minutes=1))
    assert claimed is not None
    begun = store.start_step(claimed[0], "stop", utc_now())
    until = utc_now() + timedelta(hours=1)
    store.park(begun, PowerIs(), until, interruptible=True, now=utc_now())
