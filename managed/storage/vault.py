"""Secrets in the database, envelope-encrypted: each has a key of its own, sealed by the master key.

A sealed secret is one version byte, the sealed data key (nonce, ciphertext), and the sealed text
(nonce, ciphertext), both by AES-256-GCM. Owner and purpose are authenticated with them, so that a
sealed secret moved to another row does not open.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from datetime import datetime
from pathlib import Path

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from sqlalchemy import Connection, Engine, delete, insert, select, update

from managed.domain.errors import MissingRequirement, NotFound, SecretUnreadable
from managed.domain.secrets import Secret, SecretPurpose
from managed.storage.database import reading, writing
from managed.storage.tables import sealed_secrets

_VERSION = b"\x01"
_NONCE = 12
_KEY = 32
_SEALED_KEY = _NONCE + _KEY + 16
_ROWS = 1000


def seal(master_key: bytes, secret: Secret, context: bytes) -> bytes:
    data_key = AESGCM.generate_key(256)
    key_nonce, text_nonce = os.urandom(_NONCE), os.urandom(_NONCE)
    sealed_key = AESGCM(master_key).encrypt(key_nonce, data_key, context)
    sealed_text = AESGCM(data_key).encrypt(text_nonce, secret.reveal().encode(), context)
    return _VERSION + key_nonce + sealed_key + text_nonce + sealed_text


def unseal(master_key: bytes, sealed: bytes, context: bytes) -> Secret:
    """SecretUnreadable for another master key, another context or changed bytes."""
    try:
        if sealed[:1] != _VERSION:
            raise InvalidTag
        key_part, text_part = sealed[1 : 1 + _SEALED_KEY], sealed[1 + _SEALED_KEY :]
        data_key = AESGCM(master_key).decrypt(key_part[:_NONCE], key_part[_NONCE:], context)
        text = AESGCM(data_key).decrypt(text_part[:_NONCE], text_part[_NONCE:], context)
    except (InvalidTag, ValueError) as error:
        raise SecretUnreadable(
            f"the secret {context.decode()} does not open",
            hint="Is MANAGED_MASTER_KEY_FILE the key that this database was made with?",
        ) from error
    return Secret(text.decode())


def require_openable(connection: Connection, master_key: bytes) -> None:
    """Proof that this key opens all that is sealed in the database, as the caller's transaction
    sees it; SecretUnreadable otherwise. Where nothing is sealed there is nothing to prove.
    """
    count, closed = 0, list[str]()
    for row in connection.execute(select(sealed_secrets), execution_options={"yield_per": _ROWS}):
        context = _context(row.owner, SecretPurpose(row.purpose))
        count += 1
        try:
            unseal(master_key, row.sealed, context)
        except SecretUnreadable:
            closed.append(context.decode())
    if closed:
        raise SecretUnreadable(
            f"the master key opens {count - len(closed)} of the {count} secrets in the database;"
            f" the first that it does not open is {min(closed)}",
            hint="Is MANAGED_MASTER_KEY_FILE the key that this database was made with? If it opens"
            " most of them, the others are damaged: take away what they belong to, and make it"
            " anew.",
        )


def load_master_key(path: Path) -> bytes:
    """The 32 bytes of the master key file; MissingRequirement when there is none or it is odd."""
    try:
        key = path.read_bytes()
    except OSError as error:
        raise MissingRequirement(
            f"the master key file {path} cannot be read: {error.strerror}",
            hint="Put back the copy of it that belongs to this database, or name it in"
            " MANAGED_MASTER_KEY_FILE. Only for a new database, `managed serve` makes one.",
        ) from error
    if len(key) != _KEY:
        raise MissingRequirement(f"{path} holds {len(key)} bytes; a master key has {_KEY}")
    return key


def create_master_key(path: Path) -> None:
    """Write a new master key; an existing one is left as it is."""
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    write_new_private_file(path, os.urandom(_KEY))


def write_new_private_file(path: Path, content: bytes) -> None:
    """Create a file that only we can read, whole or not at all; an existing one is left alone, also
    in a directory that we may not write (secrets that somebody mounts, say).
    """
    if path.exists():
        return
    unfinished = path.with_name(f".{path.name}.{os.getpid()}")
    descriptor = os.open(unfinished, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
            os.fsync(file.fileno())
        os.link(unfinished, path)
    except FileExistsError:
        return
    finally:
        unfinished.unlink()


class SealedVault:
    """Implements `managed.ports.Vault`."""

    def __init__(self, engine: Engine, master_key: bytes, clock: Callable[[], datetime]) -> None:
        self._engine = engine
        self._master_key = master_key
        self._clock = clock

    def keep(self, owner: str, purpose: SecretPurpose, secret: Secret) -> None:
        with writing(self._engine) as connection:
            self.keep_within(connection, owner, purpose, secret)

    def keep_within(
        self, connection: Connection, owner: str, purpose: SecretPurpose, secret: Secret
    ) -> None:
        """The same inside the caller's transaction."""
        sealed = seal(self._master_key, secret, _context(owner, purpose))
        changed = connection.execute(
            update(sealed_secrets)
            .where(sealed_secrets.c.owner == owner, sealed_secrets.c.purpose == purpose.value)
            .values(sealed=sealed)
        ).rowcount
        if changed == 0:
            connection.execute(
                insert(sealed_secrets).values(
                    owner=owner, purpose=purpose.value, sealed=sealed, created_at=self._clock()
                )
            )

    def keep_once(self, owner: str, purpose: SecretPurpose, secret: Secret) -> Secret:
        try:
            return self.secret(owner, purpose)
        except NotFound:
            self.keep(owner, purpose, secret)
            return secret

    def secret(self, owner: str, purpose: SecretPurpose) -> Secret:
        query = select(sealed_secrets.c.sealed).where(
            sealed_secrets.c.owner == owner, sealed_secrets.c.purpose == purpose.value
        )
        with reading(self._engine) as connection:
            sealed = connection.execute(query).scalar_one_or_none()
        if sealed is None:
            raise NotFound(f"{owner} has no {purpose}", owner=owner, purpose=purpose.value)
        return unseal(self._master_key, sealed, _context(owner, purpose))

    def secrets(self, purpose: SecretPurpose) -> Mapping[str, Secret]:
        """All secrets for this purpose, by owner; SecretUnreadable with a wrong master key."""
        query = select(sealed_secrets).where(sealed_secrets.c.purpose == purpose.value)
        with reading(self._engine) as connection:
            rows = connection.execute(query).all()
        return {
            row.owner: unseal(self._master_key, row.sealed, _context(row.owner, purpose))
            for row in rows
        }

    def forget(self, owner: str) -> None:
        with writing(self._engine) as connection:
            self.forget_within(connection, owner)

    def forget_within(self, connection: Connection, owner: str) -> None:
        """The same inside the caller's transaction."""
        connection.execute(delete(sealed_secrets).where(sealed_secrets.c.owner == owner))


def _context(owner: str, purpose: SecretPurpose) -> bytes:
    return f"{owner}/{purpose.value}".encode()
