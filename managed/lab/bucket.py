"""The bucket for commands that work beside the service, or before there is one."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from pydantic import SecretStr

from managed.drivers.s3 import S3ObjectStore
from managed.lab.s3_server import S3ServerSettings, s3_server
from managed.lab.service import embedded_s3_keys
from managed.settings import Settings


@contextmanager
def bucket_at_hand(settings: Settings) -> Iterator[Settings]:
    """These settings with an S3 server that answers. The embedded one is served for as long as
    this lasts, from its folder and at a port of its own, whether the service runs or not.
    """
    settings.keys.mkdir(parents=True, exist_ok=True, mode=0o700)
    keys = embedded_s3_keys(settings)
    if keys is None:
        yield settings
        return
    server = s3_server(
        S3ServerSettings(
            directory=settings.state / "s3",
            log_file=settings.state / "log" / "s3-beside.log",
            port=int(keys.endpoint.rpartition(":")[2]),
            access_key=keys.access_key,
            secret_key=keys.secret_key,
        )
    )
    server.start()
    try:
        server.wait()
        S3ObjectStore(keys).ensure_bucket()
        yield settings.model_copy(
            update={
                "s3_endpoint": keys.endpoint,
                "s3_access_key": keys.access_key.reveal(),
                "s3_secret_key": SecretStr(keys.secret_key.reveal()),
            }
        )
    finally:
        server.stop()
