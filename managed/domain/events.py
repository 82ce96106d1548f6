"""Events: what happened to a job, in order, for people and programs to follow."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

from managed.domain.errors import Json


@dataclass(frozen=True)
class NewEvent:
    """`type` is a static name, `data` plain JSON without secrets."""

    at: datetime
    type: str
    data: Mapping[str, Json]


@dataclass(frozen=True)
class Event:
    """A stored event; `seq` counts from 1 per job, without gaps, in commit order."""

    job_id: str
    seq: int
    at: datetime
    server_id: str
    type: str
    data: Mapping[str, Json]
