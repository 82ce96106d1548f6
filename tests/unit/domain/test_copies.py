"""Which copies of the control plane stay, when the next is due, what an operator is told."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from managed.domain.copies import (
    CopyManifest,
    KeepRule,
    SelfBackupState,
    copies_to_forget,
    copy_name,
    is_abandoned,
    manifest_from_json,
    time_of_copy,
)
from managed.domain.errors import CopyDamaged, InvalidInput

NOW = datetime(2026, 11, 25, 12, tzinfo=UTC)
DAY = timedelta(days=1)
RULE = KeepRule(within=timedelta(hours=48), days=3, weeks=2)


def name(ago: timedelta) -> str:
    return copy_name(NOW - ago, "0123abcd")


def test_a_name_tells_the_time_and_nothing_else_is_a_name() -> None:
    assert time_of_copy(name(DAY)) == NOW - DAY
    for odd in ("", "20261125T120000Z", "20261325T120000Z-0123abcd", "../x", name(DAY) + "/"):
        with pytest.raises(InvalidInput):
            time_of_copy(odd)


def test_all_of_the_last_days_stay_then_one_a_day_then_one_a_week() -> None:
    hourly = [timedelta(hours=hours) for hours in range(24 * 30)]
    gone = copies_to_forget([name(ago) for ago in hourly], RULE, NOW)
    kept = sorted({name(ago) for ago in hourly} - set(gone), reverse=True)
    assert kept[:49] == [name(timedelta(hours=hours)) for hours in range(49)]
    assert kept[49:] == ["20261122T230000Z-0123abcd"]  # the last Sunday's, week 47's newest


def test_the_newest_stays_however_old_it_is() -> None:
    assert copies_to_forget([name(400 * DAY)], KeepRule(DAY, 0, 0), NOW) == ()
    both = [name(400 * DAY), name(500 * DAY)]
    assert copies_to_forget(both, KeepRule(DAY, 0, 0), NOW) == (name(500 * DAY),)


@given(st.sets(st.integers(0, 10_000), max_size=60), st.integers(0, 5), st.integers(0, 5))
def test_forgetting_is_settled_at_once_and_never_takes_the_newest(
    hours: set[int], days: int, weeks: int
) -> None:
    names = {name(timedelta(hours=h)) for h in hours}
    rule = KeepRule(timedelta(hours=5), days, weeks)
    kept = names - set(copies_to_forget(names, rule, NOW))
    assert copies_to_forget(kept, rule, NOW) == ()
    assert not names or max(names) in kept


def test_an_unfinished_copy_is_somebodys_for_a_day() -> None:
    assert not is_abandoned(name(DAY), NOW)
    assert is_abandoned(name(DAY + timedelta(seconds=1)), NOW)


def test_the_next_copy_is_due_by_the_last_good_one_and_soon_after_a_failure() -> None:
    assert SelfBackupState().is_due(DAY, NOW)
    good = SelfBackupState("x", NOW - DAY, NOW - DAY)
    assert good.is_due(DAY, NOW)
    assert not good.is_due(DAY, NOW - timedelta(seconds=1))
    failed = SelfBackupState("x", NOW - 2 * DAY, NOW - timedelta(minutes=14), "no bucket")
    assert not failed.is_due(DAY, NOW)
    assert failed.is_due(DAY, NOW + timedelta(minutes=1))
    assert failed.is_due(timedelta(minutes=5), NOW)


def test_an_operator_is_told_what_is_wrong() -> None:
    assert "no backup" in str(SelfBackupState().problem(DAY, NOW))
    good = SelfBackupState("x", NOW - DAY, NOW - DAY)
    assert good.problem(DAY, NOW) is None
    assert "2026-11-24" in str(good.problem(DAY, NOW + DAY))
    failed = SelfBackupState("x", NOW - DAY, NOW, "no bucket")
    assert "no bucket" in str(failed.problem(DAY, NOW))


def test_a_manifest_comes_back_and_one_of_another_format_is_refused() -> None:
    manifest = CopyManifest(
        name=name(DAY),
        taken_at=NOW,
        managed_version="0.1.0",
        engine="sqlite",
        schema="0007",
        rows={"servers": 3},
        first_event_at=None,
        parts=1,
        plain_size=2,
        sealed_size=3,
        sha256="e" * 64,
    )
    assert manifest_from_json(manifest.as_json()) == manifest
    with pytest.raises(CopyDamaged, match="format 2"):
        manifest_from_json({**manifest.as_json(), "format": 2})
