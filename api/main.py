"""The API process: `python -m api`, or any ASGI server with `--factory api.main:app`."""

from __future__ import annotations

from typing import Final

import uvicorn
from fastapi import FastAPI

from api.app import create_app
from managed.logs import configure_logs
from managed.settings import settings
from managed.wiring import open_installation
from workers.queue import require_broker, send

# Event streams stay open for hours: a stop does not wait for their readers, who come again.
_STOP_SECONDS: Final = 3


def app() -> FastAPI:
    """The application of this process's settings."""
    configure_logs(settings())
    installation = open_installation(settings())
    return create_app(
        installation, lambda job_id: send(installation, job_id), {"broker": require_broker}
    )


def main() -> None:
    """Serve on the address and port of the settings until SIGTERM or SIGINT."""
    uvicorn.run(
        app(),
        host=settings().listen_address,
        port=settings().listen_port,
        log_config=None,
        access_log=False,
        server_header=False,
        timeout_graceful_shutdown=_STOP_SECONDS,
    )
