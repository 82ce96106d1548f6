"""sha256, as fast as this machine can."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

OPENSSL_SETTING = "OPENSSL_ia32cap"
PLAIN_PROCESSOR = "~0x1200020000000000:~0x20000128"
"""Clears AVX, AES-NI, SSSE3 and AVX2, BMI, SHA from what OpenSSL thinks the processor has."""
EMULATED_MODEL = "QEMU TCG"


def is_emulated(processor_information: str) -> bool:
    """Whether the text of /proc/cpuinfo is that of a processor made of software."""
    return EMULATED_MODEL in processor_information


def loaded_sha256() -> Callable[[], Any]:
    """hashlib's sha256. Emulators carry out vector instructions slowly: without them OpenSSL
    hashes about seven times faster there (5.6 and 38 MB/s measured). OpenSSL reads the setting
    when it is loaded, so it is set around that.
    """
    is_ours = OPENSSL_SETTING not in os.environ and is_emulated(Path("/proc/cpuinfo").read_text())
    if is_ours:
        os.environ[OPENSSL_SETTING] = PLAIN_PROCESSOR
    try:
        import hashlib
    finally:
        if is_ours:
            del os.environ[OPENSSL_SETTING]
    return hashlib.sha256


sha256 = loaded_sha256()
