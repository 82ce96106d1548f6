"""A backup or restore of the control plane in a process of its own, to be killed half-way:
`python -m … take|restore DATABASE_URL` with the bucket's settings as JSON on standard input.

At its third part it says "half-way" and waits for the end.
"""

from __future__ import annotations

import json
import sys
import threading
from datetime import UTC, datetime

from managed.domain.secrets import Secret
from managed.drivers.s3 import S3ObjectStore, S3Settings
from managed.storage.copies.control_plane import ControlPlaneCopies
from managed.storage.database import open_database
from tests.support.control_plane import MASTER_KEY

SMALL_PARTS = 4000


class StallingStore(S3ObjectStore):
    """The real store, until a third part is to be put or read."""

    def put(self, key: str, content: bytes) -> None:
        super().put(key, content)
        _stall_at(key)

    def get(self, key: str) -> bytes:
        content = super().get(key)
        _stall_at(key)
        return content


def _stall_at(key: str) -> None:
    if key.endswith("part-000002"):
        sys.stdout.write("half-way\n")
        sys.stdout.flush()
        threading.Event().wait()


def main(what: str, database_url: str) -> None:
    given = json.load(sys.stdin)
    secrets = {name: Secret(given.pop(name)) for name in ("access_key", "secret_key")}
    store = StallingStore(S3Settings(**given, **secrets))
    copies = ControlPlaneCopies(
        open_database(database_url), store, MASTER_KEY, lambda: datetime.now(UTC), SMALL_PARTS
    )
    if what == "take":
        copies.take()
    else:
        copies.restore(copies.newest(), replace=False)


if __name__ == "__main__":
    main(*sys.argv[1:])
