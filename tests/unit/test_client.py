"""How the client keeps at an event stream, by a clock of the test's own."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import httpx
import pytest

from managed.client import ApiUnreachable, Document, ManagedClient


@dataclass
class Time:
    """Stands where the client has the module `time`: nobody waits."""

    now: float = 1000.0

    def monotonic(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds


@pytest.fixture
def time(monkeypatch: pytest.MonkeyPatch) -> Time:
    stopped = Time()
    monkeypatch.setattr("managed.client.time", stopped)
    return stopped


class QuietApi(ManagedClient):
    """Its stream tells one event, is silent (but for its pings) for an hour and breaks; after
    `failures` tries that find nobody the next stream tells the last event.
    """

    def __init__(self, time: Time, failures: int) -> None:
        super().__init__("http://127.0.0.1:1", "no token")
        self.time = time
        self.failures = failures

    @contextmanager
    def _stream(self, job_id: str, after: int) -> Iterator[Iterator[Document]]:
        if after == 1 and self.failures:
            self.failures -= 1
            raise httpx.ConnectError("nobody is there")
        yield self._quiet() if after == 0 else iter([{"seq": 2}])

    def _quiet(self) -> Iterator[Document]:
        yield {"seq": 1}
        self.time.now += 3600
        raise httpx.ReadError("the connection broke")

    def _is_complete(self, job_id: str, after: int) -> bool:
        return after == 2


def test_a_stream_that_breaks_after_a_quiet_hour_is_opened_again(time: Time) -> None:
    with QuietApi(time, failures=10) as client:
        assert list(client.events("job")) == [{"seq": 1}, {"seq": 2}]


def test_two_minutes_without_an_open_stream_are_enough(time: Time) -> None:
    with QuietApi(time, failures=10**6) as client, pytest.raises(ApiUnreachable):
        list(client.events("job"))
    assert 120 < time.now - 1000 - 3600 < 140
