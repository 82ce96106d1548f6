"""The rival of `bench.events`: live output through a Redis stream, as people build it. Events are
added 500 at a time, and somebody else reads them as they come. Nothing of it is on a disk.
"""

from __future__ import annotations

import json
import multiprocessing
import time
from multiprocessing.synchronize import Event
from typing import Any, Final

import redis

_STREAM: Final = "output"
_AT_ONCE: Final = 500


def events_per_second(url: str, events: int) -> float:
    """From the first event's making to the last one's arrival at the reader."""
    follows = multiprocessing.Event()
    reader = multiprocessing.Process(target=_follow, args=(url, events, follows))
    reader.start()
    follows.wait()
    began = time.monotonic()
    client = redis.Redis.from_url(url)
    pipeline = client.pipeline(transaction=False)
    for number in range(events):
        data = {"task": "Install packages", "host": "server", "number": number}
        pipeline.xadd(_STREAM, {"type": "ansible", "data": json.dumps(data)})
        if len(pipeline) >= _AT_ONCE:
            pipeline.execute()
    pipeline.execute()
    reader.join()
    return events / (time.monotonic() - began)


def _follow(url: str, events: int, follows: Event) -> None:
    client = redis.Redis.from_url(url)
    position, seen = "0", 0
    follows.set()
    while seen < events:
        found: Any = client.xread({_STREAM: position}, count=_AT_ONCE, block=1000)
        for _stream, messages in found:
            for name, fields in messages:
                json.loads(fields[b"data"])
                position = name
            seen += len(messages)
