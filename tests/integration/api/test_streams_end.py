"""A stream is no way around the end of a token, a session or a user."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from contextlib import ExitStack
from datetime import timedelta
from typing import cast

import httpx
import pytest

from api.auth import Admission
from api.dependencies import Services
from api.sse import Followers
from managed.client import ManagedClient
from managed.domain.access import Role
from managed.domain.jobs import Job
from managed.domain.tokens import ApiToken, new_token
from managed.storage.database import writing
from managed.wiring import utc_now
from tests.integration.api.conftest import ApiBench
from tests.support.panel import PASSWORD, add_user, hidden
from tests.support.waiting import wait_until

BOUND_SECONDS = 15
"""As docs/guides/access.md says."""


class Reader:
    """Follows a job over a socket of its own."""

    def __init__(self, http: httpx.Client, path: str, headers: dict[str, str]) -> None:
        self.lines: list[str] = []
        self._thread = threading.Thread(target=self._read, args=(http, path, headers))
        self._thread.start()
        wait_until(lambda: self.lines, timeout=10, what="the first event")

    @property
    def reads_on(self) -> bool:
        return self._thread.is_alive()

    def _read(self, http: httpx.Client, path: str, headers: dict[str, str]) -> None:
        with http.stream("GET", path, headers=headers, timeout=60) as response:
            for line in response.iter_lines():
                self.lines.append(line)


@pytest.fixture
def job(bench: ApiBench) -> Iterator[Job]:
    """One that goes on until the test is over."""
    job = bench.add_job(bench.add_server())
    yield job
    bench.end_job(job)


def reader_with_token(
    bench: ApiBench, live: ManagedClient, job: Job, user_id: str, life: timedelta
) -> tuple[ApiToken, Reader]:
    token_id, text = new_token()
    now = utc_now()
    token = ApiToken(token_id, user_id, "a test", now, now + life)
    with writing(bench.installation.database) as connection:
        bench.installation.access.add_token(connection, token, text)
    headers = {"Authorization": f"Bearer {text.reveal()}"}
    return token, Reader(live._http, f"/v1/jobs/{job.job_id}/events", headers)


def test_a_token_that_counts_no_more_reads_no_stream_to_its_end(
    bench: ApiBench, live: ManagedClient, job: Job
) -> None:
    kim, joe = add_user(bench.installation, "Kim"), add_user(bench.installation, "Joe")
    hour = timedelta(hours=1)
    _, kept = reader_with_token(bench, live, job, kim.user_id, hour)
    _, expiring = reader_with_token(bench, live, job, kim.user_id, timedelta(seconds=3))
    token, revoked = reader_with_token(bench, live, job, kim.user_id, hour)
    _, of_disabled = reader_with_token(bench, live, job, joe.user_id, hour)
    live.delete(f"/v1/tokens/{token.token_id}")
    live.post("/v1/users/joe@example.org/disable")
    out = (expiring, revoked, of_disabled)
    wait_until(
        lambda: not any(one.reads_on for one in out), timeout=BOUND_SECONDS, what="their end"
    )
    assert kept.reads_on
    before = len(kept.lines)
    bench.add_events(job, "one")
    wait_until(lambda: len(kept.lines) > before, timeout=5, what="what goes on")
    assert not any("event: one" in line for line in revoked.lines)


def test_a_session_that_was_ended_reads_no_log_to_its_end(
    bench: ApiBench, live: ManagedClient, job: Job
) -> None:
    base = str(live._http.base_url)
    ours = {"Origin": base.rstrip("/")}
    path = f"/panel/jobs/{job.job_id}"
    with ExitStack() as stack:
        signed_in = []
        for name in ("Kim", "Joe"):
            user = add_user(bench.installation, name, Role.SUPPORT)
            http = stack.enter_context(httpx.Client(base_url=base, headers=ours))
            fields = {"email": user.email, "password": PASSWORD}
            assert http.post("/panel/sign-in", data=fields).status_code == 303
            signed_in.append(http)
        readers = [
            Reader(http, f"{path}/events", {"Accept": "text/event-stream"}) for http in signed_in
        ]
        leaving = signed_in[0]
        form = {"csrf": hidden(leaving.get(path).text, "csrf")}
        assert leaving.post("/panel/sign-out", data=form).status_code == 303
        wait_until(lambda: not readers[0].reads_on, timeout=BOUND_SECONDS, what="the stream's end")
        assert readers[1].reads_on
        live.post("/v1/users/joe@example.org/disable")
        wait_until(lambda: not readers[1].reads_on, timeout=BOUND_SECONDS, what="the stream's end")


def test_a_reader_of_whom_nothing_can_be_known_is_out_and_hinders_no_other(bench: ApiBench) -> None:
    def break_down() -> None:
        raise TypeError("a defect")

    followers = Followers(cast(Services, bench.installation))
    with (
        followers.following("job", Admission("token 1", break_down)) as (_, unknown),
        followers.following("job", Admission("token 2", lambda: None)) as (_, known),
    ):
        asyncio.run(followers._look_at_readers())
    assert (unknown.is_out, known.is_out) == (True, False)
