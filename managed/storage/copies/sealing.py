"""Sealing copies. Each has keys of its own, derived from the master key and a random salt; what is
sealed opens under the copy's own name and at its own place only.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from managed.domain.errors import CopyDamaged, Json, SecretUnreadable

_MAGIC = b"managed-copy\x01"
_MARK = 8
_SALT = 32
_HEADER = len(_MAGIC) + _MARK + _SALT
_NONCE = 12


def master_key_mark(master_key: bytes) -> str:
    """Tells master keys apart and says nothing about them: sixteen hexadecimal digits."""
    return _derived(master_key, b"", b"mark", _MARK).hex()


@dataclass(frozen=True)
class SealedManifest:
    """The manifest's object, read as far as that goes without a key."""

    mark: str
    salt: bytes
    header: bytes
    sealed: bytes


def sealed_manifest(name: str, content: bytes) -> SealedManifest:
    """CopyDamaged when these bytes are no manifest."""
    if len(content) <= _HEADER or not content.startswith(_MAGIC):
        raise _damaged(name, "its manifest is none")
    mark = content[len(_MAGIC) : len(_MAGIC) + _MARK]
    header = content[:_HEADER]
    return SealedManifest(mark.hex(), header[-_SALT:], header, content[_HEADER:])


def new_salt() -> bytes:
    return os.urandom(_SALT)


class CopyKeys:
    """The keys of one copy. They are used for this copy alone, so the place of a part is nonce
    enough.
    """

    def __init__(self, master_key: bytes, name: str, salt: bytes) -> None:
        self._name = name
        self._parts = AESGCM(_derived(master_key, salt, b"parts", 32))
        self._manifest = AESGCM(_derived(master_key, salt, b"manifest", 32))
        self._header = _MAGIC + bytes.fromhex(master_key_mark(master_key)) + salt

    def seal_part(self, index: int, plain: bytes) -> bytes:
        return self._parts.encrypt(_nonce(index), plain, self._name.encode())

    def open_part(self, index: int, sealed: bytes) -> bytes:
        """CopyDamaged unless these are the bytes that were sealed for this place."""
        try:
            return self._parts.decrypt(_nonce(index), sealed, self._name.encode())
        except InvalidTag as error:
            raise _damaged(self._name, f"part {index} was changed") from error

    def seal_manifest(self, document: Mapping[str, Json]) -> bytes:
        plain = json.dumps(document).encode()
        return self._header + self._manifest.encrypt(_nonce(0), plain, self._context)

    def open_manifest(self, content: SealedManifest) -> Mapping[str, Json]:
        """CopyDamaged unless it was sealed for this copy; SecretUnreadable with another master
        key.
        """
        if content.header[: -len(content.salt)] != self._header[: -len(content.salt)]:
            raise SecretUnreadable(
                f"the copy {self._name} was made with another master key: its mark is"
                f" {content.mark}, that of MANAGED_MASTER_KEY_FILE is {self._mark}",
                hint="Put the master key that belongs to this copy in its place, or take a copy of"
                " the key here: `managed restore-self --list`, then --from NAME.",
            )
        try:
            plain = self._manifest.decrypt(_nonce(0), content.sealed, self._context)
        except InvalidTag as error:
            raise _damaged(self._name, "its manifest was changed, or is another copy's") from error
        document: Mapping[str, Json] = json.loads(plain)
        return document

    @property
    def _mark(self) -> str:
        return self._header[len(_MAGIC) : -_SALT].hex()

    @property
    def _context(self) -> bytes:
        return self._header + self._name.encode()


def _nonce(index: int) -> bytes:
    return index.to_bytes(_NONCE, "big")


def _derived(master_key: bytes, salt: bytes, purpose: bytes, length: int) -> bytes:
    info = b"managed control-plane copy 1: " + purpose
    return HKDF(SHA256(), length, salt, info).derive(master_key)


def _damaged(name: str, why: str) -> CopyDamaged:
    return CopyDamaged(
        f"the copy {name} is damaged: {why}",
        hint="Take an older one: `managed restore-self --list`, then --from NAME.",
        copy=name,
    )
