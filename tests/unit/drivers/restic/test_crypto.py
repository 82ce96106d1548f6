"""restic's cryptography on objects that restic 0.18 wrote, and on what root may plant."""

from __future__ import annotations

import base64
import json
from typing import Final

import pytest
import zstandard

from managed.domain.secrets import Secret
from managed.drivers.restic.crypto import (
    NotOfThisRepository,
    decrypted,
    document_in,
    is_named_after_content,
    opened_key_file,
)
from tests.support.restic_objects import encrypted, key_file, new_key

PASSWORD: Final = Secret("test-password")
KEY_FILE: Final = (
    b'{"created":"2026-11-24T01:35:41.825751213Z","username":"root","hostname":"vm",'
    b'"kdf":"scrypt","N":16384,"r":8,"p":2,"salt":"UpSWCwmEx4Rv5wTP6DhU2/uC8bHwX34ndcSOCixR/LhB'
    b'yEPHYj2YB3raDaXfHgwYuI0G5lWxV3MkqZ0sLFbCGg==","data":"THtZfoBewTjUz7lGjp/h5dZu19JBl93jjg/c'
    b"CAebHQ9A7qglgQ5QAecxdOm80Z85eWpTz/rTBMQc5PlnsOv48woo2cKfaVx/QAVJ9wc9RuQojWK7ZCxtDOia47OYOM"
    b"5NgxVllIeZ0cSkaMGY1j3QnK84CkFi6Guy3Yx3U0U9MlsaKQE0+YgCR5SKCUkOmmerFNbZ5a0isS7QnBxvajrSFA="
    b'="}'
)
CONFIG: Final = base64.b64decode(
    "s77sg5WQ5Oe5G26MQgWjwhlsfmAHn9UF8aWla/2yAl7Y62cMmrR4423JOcHSBS5qXCT6Ua+y0bI3L3UU6pHKBjH4QT7M"
    "vXXbLo4onvSDAUYuEbX/XiM4QheiJH7WzQcNx0whPzNvoYGu8YmIKl/FFEnDjKUWUdVAmlzVpxHni3Dlv9VJv7sZ9GgU"
    "xMWXtie0J7yTED9akiv2fak="
)
SNAPSHOT_NAME: Final = "6c8fc1488fe606cdc7ce101ef874c8ac1728a62dc615617836dcb1d04ff50e8a"
SNAPSHOT: Final = base64.b64decode(
    "BVHZPv0RXSUJTH7yf+RqlnKec6onkkORvOqFd1o9shc+dt+73KlWDili6cYsw9olUPApJx4Z+UcQkh6JsSEQ0hQaYgxU"
    "tBDVaapraxskZdBFp5Fm7dUm/F0s4DvjWsOwn1M3SlQxZJkJIAfoSMDo/TfdTGTmPYtyc85gRe283GVQriYi08+pg5UB"
    "seMrr5JimK32QqFE/dSAITx2uxZhyp8eJOcQO85YqSZiHvkqHLcHXfuNwOCiHwcdsHput7LLfKRjMbOGIeER7UGJDdPR"
    "z0pmJg/E+GrlTnLgSlXJ7yyYh6Nz4Nrn671SYEaQI4cOVGMoNs7oG2EtuNVp47BLUm9YJHYwd9zxvY2m1tkp0ZeIXq3U"
    "h94NT1uQVjmtXNegAqDdmVE1n/8jthNcnWkvVD4cAE3RDifoVcQKw5CE8bpAp31IdtOeRi/I+PTzlFJZlkmWGkR/NUno"
    "i/XWkUaYT9E="
)


def test_the_password_opens_restics_key_and_the_key_its_objects() -> None:
    key = opened_key_file(KEY_FILE, PASSWORD)
    config = document_in(decrypted(key, CONFIG), 10_000)
    assert isinstance(config, dict)
    assert config["version"] == 2
    snapshot = document_in(decrypted(key, SNAPSHOT), 10_000)
    assert isinstance(snapshot, dict)
    assert snapshot["program_version"] == "restic 0.18.0"
    assert is_named_after_content(SNAPSHOT_NAME, SNAPSHOT)
    assert not is_named_after_content(SNAPSHOT_NAME, CONFIG)


def test_another_password_opens_nothing() -> None:
    with pytest.raises(NotOfThisRepository):
        opened_key_file(KEY_FILE, Secret("another"))


def test_another_repositorys_key_opens_nothing() -> None:
    with pytest.raises(NotOfThisRepository):
        decrypted(new_key(), CONFIG)


@pytest.mark.parametrize("position", [0, 15, 16, 60, -17, -16, -1])
def test_one_changed_bit_is_seen(position: int) -> None:
    key = opened_key_file(KEY_FILE, PASSWORD)
    changed = bytearray(CONFIG)
    changed[position] ^= 1
    with pytest.raises(NotOfThisRepository):
        decrypted(key, bytes(changed))


@pytest.mark.parametrize("content", [b"", b"junk", bytes(31), bytes(32), bytes(33)])
def test_content_too_short_is_not_ours(content: bytes) -> None:
    with pytest.raises(NotOfThisRepository):
        decrypted(opened_key_file(KEY_FILE, PASSWORD), content)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"junk",
        b"\xff\xfe",
        b"[]",
        b"null",
        b"{}",
        b"[" * 100_000,
        b'{"kdf":"scrypt","N":"x","r":8,"p":1,"salt":"","data":""}',
        KEY_FILE.replace(b'"N":16384', b'"N":1073741824'),
        KEY_FILE.replace(b'"N":16384', b'"N":16383'),
        KEY_FILE.replace(b'"N":16384', b'"N":' + b"9" * 5000),
        KEY_FILE.replace(b'"p":2', b'"p":1000000000'),
        KEY_FILE.replace(b'"r":8', b'"r":-8'),
        KEY_FILE.replace(b'"salt":"', b'"salt":"#'),
        KEY_FILE.replace(b'"kdf":"scrypt"', b'"kdf":"md5"'),
        KEY_FILE.replace(b'"data":"', b'"data":5,"x":"'),
    ],
    ids=range(16),
)
def test_what_is_no_key_file_is_refused_at_no_cost(content: bytes) -> None:
    with pytest.raises(NotOfThisRepository):
        opened_key_file(content, PASSWORD)


def test_a_key_is_never_shown() -> None:
    key = opened_key_file(KEY_FILE, PASSWORD)
    assert repr(key) == "Key()"


def test_what_we_write_for_tests_is_what_we_read() -> None:
    master = new_key()
    assert opened_key_file(key_file(master, "pass"), Secret("pass")) == master
    assert decrypted(master, encrypted(master, b"plain")) == b"plain"


def test_documents_are_plain_or_compressed() -> None:
    plain = json.dumps({"a": 1}).encode()
    assert document_in(plain, 100) == {"a": 1}
    assert document_in(b"\x02" + zstandard.compress(plain), 100) == {"a": 1}


def test_a_document_that_unfolds_without_end_is_refused() -> None:
    bomb = b"\x02" + zstandard.compress(b" " * 10_000_000)
    with pytest.raises(NotOfThisRepository):
        document_in(bomb, 1000)


@pytest.mark.parametrize("plain", [b"", b"\x02junk", b"junk", b"\xff", b"\x02"])
def test_other_content_is_no_document(plain: bytes) -> None:
    with pytest.raises(NotOfThisRepository):
        document_in(plain, 1000)
