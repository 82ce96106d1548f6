"""Names that are no text, as servers report them, are shown and break no answer."""

from __future__ import annotations

from datetime import timedelta

from fastapi.testclient import TestClient

from managed.domain.events import NewEvent
from managed.domain.jobs import JobKind, JobStatus, StepResult, StepStatus
from managed.storage.leases import LeasedJobs
from managed.wiring import utc_now
from tests.integration.api.conftest import ApiBench


def test_a_job_whose_server_has_odd_file_names_can_be_read(
    api: TestClient, bench: ApiBench
) -> None:
    job, now = bench.add_job(bench.add_server(), JobKind.BACKUP), utc_now()
    store = LeasedJobs(bench.installation.database)
    claimed = store.claim(job.job_id, "a worker", now, timedelta(minutes=1))
    assert claimed is not None
    moved = StepResult(
        "take", StepStatus.DONE, 1, now, now, {"moved_paths": ["/srv/latin-\udce9", "/nul\0"]}
    )
    leased = store.record_step(claimed[0], moved, ["can't be read: /srv/latin-\udce8"])
    store.append_events(leased, [NewEvent(now, "run_output", {"lines": ["\udce9"]})])
    store.finish(leased, JobStatus.SUCCEEDED, now)

    answer = api.get(f"/v1/jobs/{job.job_id}")
    assert answer.status_code == 200
    assert answer.json()["steps"][0]["result"] == {"moved_paths": ["/srv/latin-\\xe9", "/nul\\x00"]}
    assert answer.json()["warnings"] == ["can't be read: /srv/latin-\\xe8"]
    page = api.get(f"/v1/jobs/{job.job_id}/events", headers={"Accept": "application/json"})
    assert page.status_code == 200
    assert {"lines": ["\\xe9"]} in [item["data"] for item in page.json()["items"]]
    assert '"\\\\xe9"' in api.get(f"/v1/jobs/{job.job_id}/events").text
