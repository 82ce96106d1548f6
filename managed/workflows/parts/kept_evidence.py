"""Manifests and disk layouts of backups: written by the server, so never larger than we say."""

from __future__ import annotations

import gzip
import io
import zlib
from collections.abc import Iterator
from typing import Final

from managed.domain.errors import EvidenceMissing
from managed.domain.manifests import DamagedManifest, ManifestEntry, parsed_manifest
from managed.workflows.steps import StepContext

LARGEST_MANIFEST: Final = 256 * 1024 * 1024
"""Bytes as stored, compressed: some four million files."""

LARGEST_LAYOUT: Final = 1024 * 1024
_LARGEST_TEXT: Final = 1024 * 1024 * 1024
_LONGEST_LINE: Final = 1024 * 1024


def kept_manifest(context: StepContext, key: str) -> Iterator[ManifestEntry]:
    """The entries of the manifest in the bucket; EvidenceMissing when it is damaged, or larger
    than any manifest is.
    """
    content = context.world.objects.get(key)
    if len(content) > LARGEST_MANIFEST:
        raise EvidenceMissing(f"the manifest is larger than {LARGEST_MANIFEST} bytes")
    yield from manifest_entries(content, _LARGEST_TEXT)


def manifest_entries(content: bytes, largest_text: int) -> Iterator[ManifestEntry]:
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
