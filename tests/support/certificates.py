"""A certificate of the tests' own, for a name."""

from __future__ import annotations

import ssl
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509

from tests.support.storage import self_signed_certificate


@dataclass(frozen=True)
class OwnCertificate:
    """`file` holds the certificate, which is its own authority; `key` its private key."""

    file: Path
    key: Path

    def context(self) -> ssl.SSLContext:
        """For a server."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(self.file, self.key)
        return context


def own_certificate(directory: Path, name: str = "localhost") -> OwnCertificate:
    return OwnCertificate(*self_signed_certificate(directory, x509.DNSName(name)))
