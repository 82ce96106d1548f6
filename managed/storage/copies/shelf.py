"""Where copies stand in the bucket: putting parts, reading them back, knowing what is whole."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

import zstandard

from managed.domain.copies import CopyManifest, is_copy_name, manifest_from_json
from managed.domain.errors import CopyDamaged, NotFound
from managed.ports import ObjectStore
from managed.storage.copies.sealing import CopyKeys, sealed_manifest

FOLDER: Final = "control-plane/"
_MANIFEST: Final = "manifest"


@dataclass(frozen=True)
class OpenedCopy:
    """A copy whose manifest was authenticated, and what opens its parts."""

    manifest: CopyManifest
    keys: CopyKeys


class Shelf:
    def __init__(self, objects: ObjectStore, master_key: bytes) -> None:
        self._objects = objects
        self._master_key = master_key

    def names(self) -> dict[str, bool]:
        """Every copy by name, oldest first: is it finished?"""
        found: dict[str, bool] = {}
        for key in self._objects.keys(FOLDER):
            name, _, rest = key.removeprefix(FOLDER).partition("/")
            if is_copy_name(name):
                found[name] = found.get(name, False) or rest == _MANIFEST
        return dict(sorted(found.items()))

    def put_part(self, keys: CopyKeys, name: str, index: int, plain: bytes) -> int:
        """Store it, compressed and sealed; how many bytes that takes."""
        sealed = keys.seal_part(index, zstandard.ZstdCompressor().compress(plain))
        self._objects.put(_part(name, index), sealed)
        return len(sealed)

    def put_manifest(self, copy: OpenedCopy) -> None:
        """From here on the copy counts."""
        content = copy.keys.seal_manifest(copy.manifest.as_json())
        self._objects.put(_key(copy.manifest.name, _MANIFEST), content)

    def open(self, name: str) -> OpenedCopy:
        """NotFound for a copy that is not there or not finished; CopyDamaged when it was changed,
        SecretUnreadable when it was made with another master key.
        """
        content = sealed_manifest(name, self._objects.get(_key(name, _MANIFEST)))
        keys = CopyKeys(self._master_key, name, content.salt)
        return OpenedCopy(manifest_from_json(keys.open_manifest(content)), keys)

    def parts(self, copy: OpenedCopy) -> Iterator[bytes]:
        """The plain parts in order, one in memory at a time. CopyDamaged, at the latest after the
        last of them, unless they are what the manifest tells of.
        """
        digest, size, manifest = hashlib.sha256(), 0, copy.manifest
        for index in range(manifest.parts):
            plain = self._plain_part(copy, index)
            digest.update(plain)
            size += len(plain)
            yield plain
        if (digest.hexdigest(), size) != (manifest.sha256, manifest.plain_size):
            raise CopyDamaged(f"the copy {manifest.name} does not hold what its manifest tells of")

    def forget(self, name: str) -> None:
        """Remove a copy, first what makes it count."""
        self._objects.delete(_key(name, _MANIFEST))
        for key in self._objects.keys(_key(name, "")):
            self._objects.delete(key)

    def _plain_part(self, copy: OpenedCopy, index: int) -> bytes:
        name = copy.manifest.name
        try:
            sealed = self._objects.get(_part(name, index))
        except NotFound as error:
            raise CopyDamaged(
                f"the copy {name} lacks part {index} of {copy.manifest.parts}",
                hint="Take an older one: `managed restore-self --list`, then --from NAME.",
                copy=name,
            ) from error
        return zstandard.ZstdDecompressor().decompress(copy.keys.open_part(index, sealed))


def _key(name: str, rest: str) -> str:
    return f"{FOLDER}{name}/{rest}"


def _part(name: str, index: int) -> str:
    return _key(name, f"part-{index:06}")
