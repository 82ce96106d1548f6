"""A broker that is away or silent hangs nobody who tells it of a job."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from managed.settings import Settings
from tests.support.redis import RedisServer

pytestmark = [pytest.mark.integration]

# In a process of its own: a Celery application is made once per process, for one broker.
_SEND_MANY = """
from types import SimpleNamespace
from workers import queue
told = set()
installation = SimpleNamespace(
    queue=SimpleNamespace(
        mark_sent=lambda ids, now: told.update(ids), mark_unsent=told.difference_update
    ),
    clock=lambda: None,
)
for number in range(500):
    queue.send(installation, str(number))
print(*sorted(told, key=int))
try:
    queue.require_broker()
    print("answers")
except queue.BrokerUnavailable as error:
    print(error.code)
"""


def output(broker: RedisServer, folder: Path) -> list[str]:
    """What a process prints that sends 500 messages. Without a bound on each of them, or with two
    seconds for each, it would not end in time.
    """
    settings = Settings(state_dir=folder, runtime_dir=folder, broker_url=broker.url)
    done = subprocess.run(
        [sys.executable, "-c", _SEND_MANY],
        env={**os.environ, **settings.environment()},
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    return done.stdout.split()


def test_messages_are_sent_while_it_answers(broker: RedisServer, tmp_path: Path) -> None:
    assert output(broker, tmp_path) == [*map(str, range(500)), "answers"]


@pytest.mark.parametrize("happens", [RedisServer.kill, RedisServer.fall_silent])
def test_without_an_answer_none_is_sent_and_nobody_waits(
    broker: RedisServer, tmp_path: Path, happens: Callable[[RedisServer], None]
) -> None:
    happens(broker)
    said = output(broker, tmp_path)
    assert said[-1] == "broker-unavailable"
    assert said.count("message_not_sent") == 1
