"""`python -m api.openapi`: the OpenAPI document of this source, without a service that runs."""

from __future__ import annotations

import json
import sys
import tempfile
from pathlib import Path

from api.app import create_app
from managed.settings import Settings
from managed.wiring import open_installation, prepare_installation


def openapi_text() -> str:
    """Made with an installation in a folder that is removed after."""
    with tempfile.TemporaryDirectory() as directory:
        state = Path(directory) / "state"
        state.mkdir()
        chosen = Settings(
            state_dir=state,
            runtime_dir=Path(directory) / "run",
            database_url="",
            master_key_file=None,
            api_token_file=None,
        )
        prepare_installation(chosen)
        installation = open_installation(chosen)
        try:
            return json.dumps(create_app(installation, lambda _: None).openapi(), indent=2)
        finally:
            installation.database.dispose()


if __name__ == "__main__":
    sys.stdout.write(openapi_text() + "\n")
