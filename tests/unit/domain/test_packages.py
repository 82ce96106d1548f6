"""What a patch run changed, and when its record proves nothing."""

from __future__ import annotations

from typing import Any

import pytest

from managed.domain.errors import EvidenceMissing
from managed.domain.packages import PackageChange, package_changes, patch_report

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


def test_changes_are_upgrades_new_and_removed_packages() -> None:
    assert package_changes({"a": "1", "b": "1", "c": "1"}, {"a": "2", "b": "1", "d": "1"}) == (
        PackageChange("a", "1", "2"),
        PackageChange("c", "1", ""),
        PackageChange("d", "", "1"),
    )


def test_a_good_record_is_read_whole() -> None:
    report = patch_report(GOOD)

    assert report.problem == ""
    assert report.changes == (PackageChange("a", "1", "2"),)
    assert report.reboot_needed
    assert report.kept_back == ("c",)
    assert report.as_json()["security_updates"] == 1


@pytest.mark.parametrize("part", ["lists", "pending", "packages_before", "packages_after"])
def test_a_good_run_without_a_part_of_its_evidence_is_not_good(part: str) -> None:
    with pytest.raises(EvidenceMissing):
        patch_report({name: value for name, value in GOOD.items() if name != part})


def test_lists_of_unknown_age_are_no_evidence() -> None:
    with pytest.raises(EvidenceMissing):
        patch_report({**GOOD, "lists": {"releases": []}})


def test_updates_that_changed_nothing_are_no_evidence() -> None:
    with pytest.raises(EvidenceMissing):
        patch_report({**GOOD, "packages_after": GOOD["packages_before"]})


@pytest.mark.parametrize(
    ("document", "problem"),
    [
        ({"ok": False, "error": {"detail": "no network"}}, "no network"),
        ({"ok": False}, "the patch run failed"),
        ({}, "the patch run failed"),
    ],
)
def test_a_failed_run_says_why(document: dict[str, Any], problem: str) -> None:
    assert patch_report(document).problem == problem
