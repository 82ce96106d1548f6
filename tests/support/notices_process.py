"""A clock of its own process that tells what there is to tell, to be killed in the midst of it."""

from __future__ import annotations

import sys
from datetime import datetime

from managed.settings import settings
from managed.storage.database import open_database
from managed.wiring import Installation
from workers.notices import Notices


def main(database_url: str, now: str) -> None:
    moment = datetime.fromisoformat(now)
    installation = Installation(settings(), open_database(database_url), lambda: moment)
    Notices(installation, start=lambda work: work()).tell(moment)


if __name__ == "__main__":
    main(*sys.argv[1:])
