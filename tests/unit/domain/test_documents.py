"""What servers write is read with a bound, and kept in a form that everybody can take."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from managed.domain import documents
from managed.domain.documents import parsed_document, require_bounded, storable
from managed.domain.errors import EvidenceMissing

ANY_TEXT = st.text(st.characters(exclude_categories=()))
ANY_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | ANY_TEXT,
    lambda inner: st.lists(inner) | st.dictionaries(ANY_TEXT, inner),
)


def test_a_document_is_read_as_it_was_written() -> None:
    text = b'{"path": "latin-\\udce9", "load": 0.5, "files": 3, "more": [null, true]}'

    assert parsed_document(text, "it") == {
        "path": "latin-\udce9",
        "load": 0.5,
        "files": 3,
        "more": [None, True],
    }


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"[1]",
        b'{"load": NaN}',
        b'{"load": -Infinity}',
        b'{"load": 1e999}',
        b'{"path": "\xe9"}',
        b'{"number": ' + b"9" * 5000 + b"}",
        b'{"deep": ' + b"[" * 200_000,
    ],
    ids=lambda content: repr(content[:20]),
)
def test_what_is_no_json_object_is_no_evidence(content: bytes) -> None:
    with pytest.raises(EvidenceMissing):
        parsed_document(content, "it")


def test_more_than_any_result_has_is_no_evidence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(documents, "LARGEST_DOCUMENT", 20)

    assert parsed_document(b'{"text": "123456"}', "it") == {"text": "123456"}
    require_bounded({"text": "123456"})
    with pytest.raises(EvidenceMissing, match="larger than 20 bytes"):
        parsed_document(b'{"text": "1234567890"}', "it")
    with pytest.raises(EvidenceMissing, match="larger than 20 bytes"):
        require_bounded({"text": "1234567890"})


def test_names_that_are_no_text_are_written_as_ls_prints_them() -> None:
    said = {"a\0b": ["latin-\udce9", "half \ud800", "ümläut \N{SNOWMAN}", float("nan"), 1.5, None]}

    assert storable(said) == {
        "a\\x00b": ["latin-\\xe9", "half \\ud800", "ümläut \N{SNOWMAN}", "nan", 1.5, None]
    }


@given(ANY_JSON)
def test_whatever_is_said_can_be_stored_and_shown(said: Any) -> None:
    kept = storable(said)

    text = json.dumps(kept, ensure_ascii=False, allow_nan=False)
    assert "\\u0000" not in text
    assert json.loads(text.encode("utf-8")) == kept
    assert storable(kept) == kept


def test_what_is_nested_without_end_is_cut_off() -> None:
    endless: list[Any] = []
    for _ in range(100_000):
        endless = [endless]

    assert len(json.dumps(storable(endless))) < 1000
