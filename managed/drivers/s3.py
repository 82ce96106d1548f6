"""A bucket by boto3: implements `managed.ports.ObjectStore`.

Botocore's exceptions stop here. Nothing is cached, so that several processes may work on one
bucket.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import boto3
from boto3.exceptions import Boto3Error
from boto3.s3.transfer import TransferConfig
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

from managed.domain.errors import MissingRequirement, NotFound, ObjectStoreUnavailable
from managed.domain.secrets import Secret

if TYPE_CHECKING:
    from mypy_boto3_s3.client import S3Client

LARGEST_COPY: Final = 5 * 1024**3
COPY: Final = TransferConfig(multipart_threshold=LARGEST_COPY, multipart_chunksize=512 * 1024**2)
ABSENT: Final = frozenset({"404", "NoSuchKey", "NotFound"})
OWNED: Final = frozenset({"BucketAlreadyOwnedByYou", "BucketAlreadyExists"})


@dataclass(frozen=True)
class S3Settings:
    """Where the bucket is and what opens it. `endpoint` is a URL without a path."""

    endpoint: str
    region: str
    bucket: str
    access_key: Secret
    secret_key: Secret


class S3ObjectStore:
    """`timeout` bounds every connection attempt and every silence on a connection, in seconds."""

    def __init__(self, settings: S3Settings, *, timeout: float = 20) -> None:
        """MissingRequirement when the settings name no S3 server."""
        if not settings.endpoint:
            raise MissingRequirement(
                "no S3 server is set up",
                hint="Set MANAGED_S3_ENDPOINT, MANAGED_S3_ACCESS_KEY and MANAGED_S3_SECRET_KEY.",
            )
        self._settings = settings
        self._bucket = settings.bucket
        self._client: S3Client = boto3.client(
            "s3",
            endpoint_url=settings.endpoint,
            region_name=settings.region,
            aws_access_key_id=settings.access_key.reveal(),
            aws_secret_access_key=settings.secret_key.reveal(),
            config=Config(
                connect_timeout=min(timeout, 5),
                read_timeout=timeout,
                retries={"mode": "standard", "total_max_attempts": 3},
                s3={"addressing_style": "path"},
                # Other servers than Amazon's refuse the checksum trailers that are sent by default.
                request_checksum_calculation="when_required",
                response_checksum_validation="when_required",
            ),
        )

    def ensure_bucket(self) -> None:
        """Make the bucket unless it is there."""
        with self._errors():
            try:
                self._client.head_bucket(Bucket=self._bucket)
            except ClientError as error:
                if _code(error) not in {*ABSENT, "NoSuchBucket"}:
                    raise
                self._create_bucket()

    def put(self, key: str, content: bytes) -> None:
        with self._errors(key):
            self._client.put_object(Bucket=self._bucket, Key=key, Body=content)

    def get(self, key: str) -> bytes:
        with self._errors(key):
            return self._client.get_object(Bucket=self._bucket, Key=key)["Body"].read()

    def exists(self, key: str) -> bool:
        with self._errors(key):
            try:
                self._client.head_object(Bucket=self._bucket, Key=key)
            except ClientError as error:
                if _code(error) in ABSENT:
                    return False
                raise
            return True

    def delete(self, key: str) -> None:
        with self._errors(key):
            self._client.delete_object(Bucket=self._bucket, Key=key)

    def move(self, key: str, new_key: str) -> None:
        """Objects up to S3's limit are copied in one request, larger ones in parts. The embedded
        S3 server cannot copy parts: there, larger ones raise ObjectStoreUnavailable and stay.
        """
        with self._errors(key):
            try:
                self._client.copy(
                    {"Bucket": self._bucket, "Key": key}, self._bucket, new_key, Config=COPY
                )
            except KeyError as error:
                raise self._unavailable("the object store cannot copy parts", key) from error
            self._client.delete_object(Bucket=self._bucket, Key=key)

    def keys(self, prefix: str) -> Sequence[str]:
        return sorted(self.sizes(prefix))

    def sizes(self, prefix: str) -> Mapping[str, int]:
        with self._errors(prefix):
            pages = self._client.get_paginator("list_objects_v2").paginate(
                Bucket=self._bucket, Prefix=prefix
            )
            return {
                entry["Key"]: entry.get("Size", 0)
                for page in pages
                for entry in page.get("Contents", ())
            }

    def _create_bucket(self) -> None:
        try:
            self._client.create_bucket(Bucket=self._bucket)
        except ClientError as error:
            if _code(error) not in OWNED:
                raise

    @contextmanager
    def _errors(self, key: str = "") -> Iterator[None]:
        try:
            yield
        except ClientError as error:
            if _code(error) in ABSENT:
                raise NotFound(
                    f"there is no object {key!r} in the bucket", bucket=self._bucket, key=key
                ) from error
            raise self._unavailable(f"the object store refused: {_code(error)}", key) from error
        except (BotoCoreError, Boto3Error) as error:
            raise self._unavailable(f"the object store does not answer: {error}", key) from error

    def _unavailable(self, message: str, key: str) -> ObjectStoreUnavailable:
        return ObjectStoreUnavailable(
            message,
            hint="Look whether the S3 server runs, and at its address, bucket and keys.",
            endpoint=self._settings.endpoint,
            bucket=self._bucket,
            key=key,
        )


def _code(error: ClientError) -> str:
    return str(error.response.get("Error", {}).get("Code", "unknown"))
