"""`managed migrate`, `managed gateway` and `managed s3-server`: what an installation needs beside
API, workers and clock when each part is a process of its own. See docs/guides/operations.md.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from managed.cli.output import AsJson, console, print_json
from managed.settings import settings


def migrate(as_json: AsJson = False) -> None:
    """Bring the database to this version, make the bucket and missing keys. Run before the parts of
    a new version start; run again it changes nothing.
    """
    from managed.wiring import open_installation, prepare_installation

    prepare_installation(settings())
    if settings().s3_endpoint:
        open_installation(settings()).bucket.ensure_bucket()
    if as_json:
        print_json({"ok": True})
    else:
        console().print("database and bucket are ready")


def gateway(_as_json: AsJson = False) -> None:
    """Serve the backup gateway in the foreground: with TLS at MANAGED_GATEWAY_LISTEN, without that
    at a socket. A renewed certificate is read at the next start. --json is for errors: it prints
    nothing else.
    """
    from managed.drivers.gateway import become_gateway
    from managed.wiring import gateway_to_run

    become_gateway(gateway_to_run(settings()))


def s3_server(
    directory: Annotated[Path, typer.Argument(help="What is stored lies here.")],
    listen: Annotated[str, typer.Option(help="Address and port.")] = "127.0.0.1:9000",
    _as_json: AsJson = False,
) -> None:
    """Serve S3 over a folder in the foreground, with the keys of the settings: for trials. It keeps
    one copy and no versions; production has a real object store. --json is for errors: it prints
    nothing else.
    """
    from managed.domain.addresses import host_and_port
    from managed.domain.secrets import Secret
    from managed.lab.s3_server import S3ServerSettings, become_s3_server

    address, port = host_and_port(listen, "--listen")
    become_s3_server(
        S3ServerSettings(
            directory=directory.absolute(),
            log_file=Path("/dev/stderr"),
            port=port,
            access_key=Secret(settings().s3_access_key),
            secret_key=Secret(settings().s3_secret_key.get_secret_value()),
            address=address,
        )
    )


def add_to(app: typer.Typer) -> None:
    """Register the commands at the top level."""
    for command in (migrate, gateway):
        app.command()(command)
    app.command("s3-server")(s3_server)
