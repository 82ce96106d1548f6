"""The API process: `python -m api`."""

from __future__ import annotations

from typing import Final

import uvicorn

from api.app import create_app
from api.dependencies import Services
from managed.domain.errors import MissingRequirement
from managed.domain.secrets import Secret
from managed.drivers.ssh.keys import new_key_pair
from managed.logs import configure_logs
from managed.settings import settings
from managed.wiring import Installation, open_installation
from workers.queue import send

# Open event streams would hold a stop back; their readers come again and go on.
_SECONDS_FOR_OPEN_REQUESTS: Final = 3


def main() -> None:
    """Serve until SIGTERM or SIGINT."""
    configure_logs(settings())
    uvicorn.run(
        create_app(services_of(open_installation(settings()))),
        host=settings().listen_address,
        port=settings().listen_port,
        log_config=None,
        access_log=False,
        server_header=False,
        timeout_graceful_shutdown=_SECONDS_FOR_OPEN_REQUESTS,
    )


def services_of(installation: Installation) -> Services:
    return Services(
        database=installation.database,
        queue=installation.queue,
        events=installation.events,
        inventory=installation.inventory,
        catalogue=installation.catalogue,
        vault=installation.vault,
        clock=installation.clock,
        token=_token(installation),
        new_job=installation.new_job,
        send=lambda job_id: send(installation, job_id),
        shown_host_key=installation.shell.host_key,
        new_key_pair=new_key_pair,
    )


def _token(installation: Installation) -> Secret:
    path = installation.settings.api_token
    try:
        token = path.read_text(encoding="ascii").strip()
    except OSError as error:
        raise MissingRequirement(
            f"the token file {path} cannot be read: {error.strerror}",
            hint="Start the service with: managed serve",
        ) from error
    if not token:
        raise MissingRequirement(f"the token file {path} is empty")
    return Secret(token)


if __name__ == "__main__":
    main()
