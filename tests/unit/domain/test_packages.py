"""When the record of a patch run proves something."""

from __future__ import annotations

from typing import Any

import pytest

from managed.domain.errors import EvidenceMissing
from managed.domain.packages import PatchReport, patch_report

GOOD: dict[str, Any] = {
    "ok": True,
    "lists": {"updated_at": "2026-01-01T00:00:00Z", "releases": []},
    "pending": [{"name": "a", "before": "1", "after": "2", "security": True}],
    "packages_before": {"a": "1", "b": "1"},
    "packages_after": {"a": "2", "b": "1"},
    "kept_back": ["c"],
    "warnings": ["c is kept back"],
    "reboot": {"needed": True, "reasons": ["kernel"]},
}
PARTS = ["ok", "lists", "pending", "packages_before", "packages_after", "kept_back", "warnings",
         "reboot"]  # fmt: skip


def test_a_good_record_says_what_to_know_and_why_to_reboot() -> None:
    assert patch_report(GOOD) == PatchReport(("c is kept back",), ("kernel",))


def test_with_nothing_pending_nothing_need_change() -> None:
    assert patch_report({**GOOD, "pending": [], "packages_after": GOOD["packages_before"]})


@pytest.mark.parametrize("part", PARTS)
def test_a_run_without_a_part_of_its_evidence_is_not_good(part: str) -> None:
    with pytest.raises(EvidenceMissing):
        patch_report({name: value for name, value in GOOD.items() if name != part})


@pytest.mark.parametrize(
    "said",
    [
        {"lists": {"releases": []}},
        {"reboot": {"needed": False}},
        {"packages_after": GOOD["packages_before"]},
        {"ok": False},
    ],
    ids=["lists of unknown age", "no word on a reboot", "nothing changed", "a failure"],
)
def test_what_is_not_proven_is_not_good(said: dict[str, Any]) -> None:
    with pytest.raises(EvidenceMissing):
        patch_report({**GOOD, **said})
