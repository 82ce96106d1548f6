"""restic's cryptography, for reading only: does an object belong to this repository?

Written after restic's design document ("Keys, Encryption and MAC") and tested against real
repositories. A key file is JSON; scrypt of the password with its salt gives a user key, and the
user key decrypts `data` to the master key. Everything else but keys is nonce (16 bytes), AES-256 in
counter mode, and a Poly1305-AES tag (16 bytes) over the encrypted part.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
from dataclasses import dataclass, field
from datetime import datetime
from typing import Final

import zstandard
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.ciphers import Cipher
from cryptography.hazmat.primitives.ciphers.algorithms import AES
from cryptography.hazmat.primitives.ciphers.modes import CTR
from cryptography.hazmat.primitives.poly1305 import Poly1305

from managed.domain.errors import Json
from managed.domain.secrets import Secret

NONCE: Final = 16
TAG: Final = 16
COMPRESSED: Final = 2
SCRYPT_MEMORY: Final = 256 * 1024 * 1024
SCRYPT_ROUNDS: Final = 64


class NotOfThisRepository(Exception):
    """The key does not fit, or the content was never written with it. Stays in this package."""


@dataclass(frozen=True)
class Key:
    """A user's or the repository's key: what encrypts, and the two parts of what authenticates."""

    encrypt: bytes = field(repr=False)
    mac_k: bytes = field(repr=False)
    mac_r: bytes = field(repr=False)


def is_named_after_content(name: str, content: bytes) -> bool:
    return hashlib.sha256(content).hexdigest() == name


def opened_key_file(content: bytes, password: Secret) -> Key:
    """The master key that a key file holds.

    Raises NotOfThisRepository for a wrong password, for anything that is no key file, and for
    costs (memory, rounds) beyond what restic ever chooses, so that a planted one costs nothing.
    """
    try:
        document = json.loads(content)
        master = json.loads(decrypted(_user_key(document, password), _bytes(document["data"])))
        mac = master["mac"]
        return Key(_bytes(master["encrypt"]), _bytes(mac["k"]), _bytes(mac["r"]))
    except (ValueError, TypeError, KeyError, RecursionError) as error:
        raise NotOfThisRepository("no key file of restic") from error


def key_made_at(content: bytes) -> datetime:
    """When a key file says that it was made. Raises NotOfThisRepository when it does not."""
    try:
        made = datetime.fromisoformat(json.loads(content)["created"])
    except (ValueError, TypeError, KeyError, RecursionError) as error:
        raise NotOfThisRepository("no key file of restic") from error
    if made.tzinfo is None:
        raise NotOfThisRepository("a time without a zone in a key file")
    return made


def _user_key(document: dict[str, Json], password: Secret) -> Key:
    cost, block, rounds = (int(str(document[name])) for name in ("N", "r", "p"))
    if document.get("kdf") != "scrypt" or cost < 2 or block < 1 or not 1 <= rounds <= SCRYPT_ROUNDS:
        raise NotOfThisRepository("a key file with parameters that restic does not choose")
    if 128 * cost * block > SCRYPT_MEMORY:
        raise NotOfThisRepository("a key file that would cost too much memory")
    derived = hashlib.scrypt(
        password.reveal().encode(),
        salt=_bytes(document["salt"]),
        n=cost,
        r=block,
        p=rounds,
        maxmem=SCRYPT_MEMORY + 64 * 1024 * 1024,
        dklen=64,
    )
    return Key(derived[:32], derived[32:48], derived[48:])


def decrypted(key: Key, content: bytes) -> bytes:
    """Check the tag, then decrypt. Raises NotOfThisRepository when the tag does not fit."""
    if len(content) < NONCE + TAG:
        raise NotOfThisRepository("too short to be encrypted")
    nonce, hidden, tag = content[:NONCE], content[NONCE:-TAG], content[-TAG:]
    # Poly1305-AES wants the nonce encrypted: that is the first block of counter mode's key stream.
    one_time = Cipher(AES(key.mac_k), CTR(nonce)).encryptor().update(bytes(16))
    try:
        Poly1305.verify_tag(key.mac_r + one_time, hidden, tag)
    except InvalidSignature as error:
        raise NotOfThisRepository("the authentication code does not fit") from error
    decryptor = Cipher(AES(key.encrypt), CTR(nonce)).decryptor()
    return decryptor.update(hidden) + decryptor.finalize()


def document_in(plain: bytes, limit: int) -> Json:
    """The JSON of a decrypted index, snapshot or lock; compressed to at most `limit` bytes.

    Raises NotOfThisRepository when it is something else.
    """
    try:
        if plain[:1] == bytes([COMPRESSED]):
            with zstandard.ZstdDecompressor().stream_reader(plain[1:]) as reader:
                plain = reader.read(limit + 1)
            if len(plain) > limit:
                raise NotOfThisRepository("too large when decompressed")
        document: Json = json.loads(plain)
    except (ValueError, RecursionError, zstandard.ZstdError) as error:
        raise NotOfThisRepository("no document of restic") from error
    return document


def _bytes(value: Json) -> bytes:
    if not isinstance(value, str):
        raise NotOfThisRepository("no base64 where it belongs")
    try:
        return base64.b64decode(value, validate=True)
    except binascii.Error as error:
        raise NotOfThisRepository("no base64 where it belongs") from error
