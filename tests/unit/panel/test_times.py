"""Times on pages: nobody takes a day of last year for one of this week."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta, timezone

import pytest

from api.panel.pages import TEMPLATES, moment_words

NOW = datetime(2026, 11, 25, 3, tzinfo=UTC)


@pytest.mark.parametrize(
    ("at", "words"),
    [
        (datetime(2026, 11, 24, 2, 5, tzinfo=UTC), "Tue 24 Nov 02:05 UTC"),
        (datetime(2026, 11, 24, 2, tzinfo=timezone(timedelta(hours=3))), "Mon 23 Nov 23:00 UTC"),
        (datetime(2026, 6, 1, tzinfo=UTC), "Mon 1 Jun 00:00 UTC"),
        (datetime(2026, 5, 1, tzinfo=UTC), "Fri 1 May 2026 00:00 UTC"),
        (datetime(2025, 11, 25, 3, tzinfo=UTC), "Tue 25 Nov 2025 03:00 UTC"),
        (datetime(2027, 1, 1, tzinfo=UTC), "Fri 1 Jan 00:00 UTC"),
        (datetime(2027, 12, 1, tzinfo=UTC), "Wed 1 Dec 2027 00:00 UTC"),
    ],
)
def test_what_is_far_away_has_its_year(at: datetime, words: str) -> None:
    assert moment_words(at, NOW) == words


def shown(template: str, **values: object) -> str:
    return re.sub("<[^>]+>", "", TEMPLATES.from_string(template).render(**values))


def test_a_time_of_day_has_its_date_on_another_day_than_the_first() -> None:
    began = datetime(2026, 11, 25, 23, 59, 50, tzinfo=UTC)
    template = "{{ at | clock(began) }}"
    assert shown(template, at=began, began=began) == "23:59:50"
    after = began + timedelta(seconds=20)
    assert shown(template, at=after, began=began) == "Thu 26 Nov 00:00:10"


def test_a_full_date_is_always_full() -> None:
    assert shown("{{ at | full_moment }}", at=NOW) == "Wed 25 Nov 2026 03:00 UTC"
    assert shown("{{ at | full_moment }}", at=None) == "\N{EN DASH}"
