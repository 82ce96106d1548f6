"""Public key lines: which are acceptable, and their fingerprints."""

from __future__ import annotations

import base64
import hashlib
import re
from typing import Final

from managed.domain.errors import InvalidInput

_TYPES: Final = re.compile(
    r"(ssh-(ed25519|rsa)|ecdsa-sha2-nistp(256|384|521)|sk-(ssh-ed25519|ecdsa-sha2-nistp256)@openssh\.com)"
)
_HINT: Final = 'Give one line such as "ssh-ed25519 AAAAC3Nz… anna@example.org".'


def checked_public_key(line: str, field: str) -> str:
    """The key as "type base64", without its comment; options and several lines are refused.

    What was given is never repeated in the error: it may be a private key by mistake.
    """
    if "PRIVATE KEY" in line:
        raise InvalidInput(
            "this is a private key", hint="Give the public half; keep this one.", field=field
        )
    words = line.split()
    one_line = len(line.strip().splitlines()) == 1
    if not one_line or len(words) < 2 or not _TYPES.fullmatch(words[0]):
        raise InvalidInput("this is not an SSH public key", hint=_HINT, field=field)
    if not _decoded(words[1]).startswith(_length_prefixed(words[0])):
        raise InvalidInput("this SSH public key is damaged", hint=_HINT, field=field)
    return f"{words[0]} {words[1]}"


def fingerprint(line: str) -> str:
    """SHA256:… of a checked key line, as ssh-keygen and OpenSSH clients show it."""
    digest = hashlib.sha256(base64.b64decode(line.split()[1])).digest()
    return "SHA256:" + base64.b64encode(digest).decode().rstrip("=")


def _decoded(text: str) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except ValueError:
        # Also a binascii.Error, which is one; characters beyond ASCII raise the plain one.
        return b""


def _length_prefixed(name: str) -> bytes:
    return len(name).to_bytes(4) + name.encode()
