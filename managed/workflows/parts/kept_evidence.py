"""Manifests and disk layouts of backups: written by the server, so never larger than we say."""

from __future__ import annotations

import gzip
import hashlib
import io
import zlib
from collections.abc import Iterator
from typing import Final

from managed.domain.errors import EvidenceMissing, NotFound
from managed.domain.manifests import DamagedManifest, ManifestEntry, parsed_manifest
from managed.domain.snapshots import KeptObject
from managed.ports import ObjectStore
from managed.workflows.steps import StepContext

LARGEST_MANIFEST: Final = 256 * 1024 * 1024
"""Bytes as stored, compressed: some four million files."""

LARGEST_LAYOUT: Final = 1024 * 1024
LARGEST_TEXT: Final = 1024 * 1024 * 1024
_LONGEST_LINE: Final = 1024 * 1024


def kept_content(context: StepContext, kept: KeptObject) -> bytes:
    """As `read_kept`, for a step."""
    return read_kept(context.world.objects, kept)


def read_kept(objects: ObjectStore, kept: KeptObject) -> bytes:
    """What we have put into the bucket; EvidenceMissing when it is something else now."""
    try:
        content = objects.get(kept.key)
    except NotFound as error:
        raise EvidenceMissing(f"{kept.key} is gone from the bucket", key=kept.key) from error
    if hashlib.sha256(content).hexdigest() != kept.sha256:
        raise EvidenceMissing(f"{kept.key} is not what the backup has left there", key=kept.key)
    return content


def manifest_entries(content: bytes, largest_text: int = LARGEST_TEXT) -> Iterator[ManifestEntry]:
    """The entries of a compressed manifest whose text has at most so many bytes."""
    try:
        with gzip.open(io.BytesIO(content)) as file:
            yield from parsed_manifest(_bounded_lines(file, largest_text))
    except (DamagedManifest, OSError, EOFError, zlib.error, UnicodeDecodeError) as error:
        raise EvidenceMissing(f"the manifest cannot be read: {error}") from error


def _bounded_lines(file: gzip.GzipFile, largest_text: int) -> Iterator[str]:
    """Line by line: a few compressed bytes may stand for more than fits into memory."""
    size = 0
    while line := file.readline(_LONGEST_LINE + 1):
        size += len(line)
        if len(line) > _LONGEST_LINE:
            raise EvidenceMissing(f"a line of the manifest is longer than {_LONGEST_LINE} bytes")
        if size > largest_text:
            raise EvidenceMissing(f"the manifest's text is larger than {largest_text} bytes")
        yield line.decode("ascii")
