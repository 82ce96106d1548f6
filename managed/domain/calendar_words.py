"""What days and months are called, in English and German."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final


def listed(words: str) -> tuple[str, ...]:
    """Words that stand in one string, for long lists."""
    return tuple(words.split())


def one_of(patterns: Iterable[str]) -> str:
    """A pattern for any of them; the longest is tried first."""
    return f"(?:{'|'.join(sorted(patterns, key=len, reverse=True))})"


WEEKDAYS: Final = {
    name: number
    for number, names in enumerate(
        (
            "monday montag",
            "tuesday dienstag",
            "wednesday mittwoch",
            "thursday donnerstag",
            "friday freitag",
            "saturday samstag sonnabend",
            "sunday sonntag",
        )
    )
    for name in names.split()
}
SHORT_WEEKDAYS: Final = {
    name: number
    for number, names in enumerate(
        ("mon mo", "tue tues di", "wed mi", "thu thur thurs do", "fri fr", "sat sa", "sun so")
    )
    for name in names.split()
}
LONG_MONTHS: Final = {
    name: number
    for number, names in enumerate(
        (
            "january januar jänner",
            "february februar feber",
            "march märz",
            "april",
            "may mai",
            "june juni",
            "july juli",
            "august",
            "september",
            "october oktober",
            "november",
            "december dezember",
        ),
        1,
    )
    for name in names.split()
}
SHORT_MONTHS: Final = {
    name: number
    for number, names in enumerate(
        (
            *("jan", "feb", "mar mär mrz", "apr", "may", "jun", "jul", "aug", "sep sept"),
            *("oct okt", "nov", "dec dez"),
        ),
        1,
    )
    for name in names.split()
}
MONTHS: Final = LONG_MONTHS | SHORT_MONTHS
