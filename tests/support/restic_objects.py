"""Writing what restic encrypts: the counterpart of `managed.drivers.restic.crypto`."""

from __future__ import annotations

import base64
import hashlib
import json
import os

from cryptography.hazmat.primitives.ciphers import Cipher
from cryptography.hazmat.primitives.ciphers.algorithms import AES
from cryptography.hazmat.primitives.ciphers.modes import CTR
from cryptography.hazmat.primitives.poly1305 import Poly1305

from managed.drivers.restic.crypto import Key, decrypted


def new_key() -> Key:
    return Key(os.urandom(32), os.urandom(16), os.urandom(16))


def encrypted(key: Key, plain: bytes) -> bytes:
    """An object as anyone writes it who has the repository's key."""
    nonce = os.urandom(16)
    hidden = Cipher(AES(key.encrypt), CTR(nonce)).encryptor().update(plain)
    one_time = Cipher(AES(key.mac_k), CTR(nonce)).encryptor().update(bytes(16))
    return nonce + hidden + Poly1305.generate_tag(key.mac_r + one_time, hidden)


def key_file(master: Key, password: str, *, cost: int = 16) -> bytes:
    """A key file with cheap parameters that opens with the password."""
    salt = os.urandom(64)
    derived = hashlib.scrypt(password.encode(), salt=salt, n=cost, r=8, p=1, dklen=64)
    user = Key(derived[:32], derived[32:48], derived[48:])
    document = {
        "mac": {"k": _text(master.mac_k), "r": _text(master.mac_r)},
        "encrypt": _text(master.encrypt),
    }
    data = encrypted(user, json.dumps(document).encode())
    fields = {"kdf": "scrypt", "N": cost, "r": 8, "p": 1, "salt": _text(salt), "data": _text(data)}
    return json.dumps(fields).encode()


def with_new_id(master: Key, config: bytes) -> bytes:
    """A repository's configuration for a copy of it: by its id restic tells caches apart."""
    document = json.loads(decrypted(master, config))
    return encrypted(master, json.dumps({**document, "id": os.urandom(32).hex()}).encode())


def _text(value: bytes) -> str:
    return base64.b64encode(value).decode()
