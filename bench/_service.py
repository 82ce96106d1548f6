"""The HTTP API as it runs in production, a process of its own on loopback, over a database."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from http import HTTPStatus
from pathlib import Path

import httpx

from managed.drivers.server_process import ServerProcess
from managed.lab.ports import free_port
from managed.settings import Settings
from managed.wiring import open_installation, prepare_installation
from tests.support.panel import PASSWORD, add_user

_START_SECONDS = 60


@contextmanager
def api(database_url: str, folder: Path) -> Iterator[httpx.Client]:
    """A client of the API with its token, and of the panel, signed in as support; the process ends
    with the context.
    """
    settings = Settings(
        state_dir=folder,
        runtime_dir=folder / "run",
        database_url=database_url,
        listen_port=free_port(),
        log_level="warning",
    )
    prepare_installation(settings)
    installation = open_installation(settings)
    kim = add_user(installation, "Kim")
    installation.database.dispose()
    address = f"http://{settings.listen_address}:{settings.listen_port}"

    def answers() -> bool:
        try:
            return httpx.get(f"{address}/healthz", timeout=2).is_success
        except httpx.HTTPError:
            return False

    server = ServerProcess(
        "the API",
        (sys.executable, "-m", "api"),
        settings.environment(),
        folder / "api.log",
        answers,
    )
    server.start()
    try:
        server.wait(_START_SECONDS)
        token = settings.api_token.read_text().strip()
        headers = {"Authorization": f"Bearer {token}"}
        with httpx.Client(base_url=address, headers=headers, timeout=60) as client:
            sign_in = {"email": kim.email, "password": PASSWORD}
            client.post("/panel/sign-in", data=sign_in, headers={"Origin": address})
            if client.get("/panel/tonight").status_code != HTTPStatus.OK:
                raise RuntimeError("nobody could sign in at the panel")
            yield client
    finally:
        server.stop()
