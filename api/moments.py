"""Times and days that callers give: those of the years that this service knows."""

from __future__ import annotations

from datetime import date, datetime
from typing import Annotated, Final, TypeVar

from pydantic import AfterValidator, AwareDatetime, TypeAdapter

from managed.domain.moments import YEARS

_AnyDay = TypeVar("_AnyDay", bound=date)


def _of_our_years(given: _AnyDay) -> _AnyDay:
    if given.year not in YEARS:
        raise ValueError(f"the year must be from {YEARS[0]} to {YEARS[-1]}")
    return given


Moment = Annotated[AwareDatetime, AfterValidator(_of_our_years)]
Day = Annotated[date, AfterValidator(_of_our_years)]

_MOMENT: Final[TypeAdapter[datetime]] = TypeAdapter(Moment)


def moment_of(text: str) -> datetime:
    """A moment from a cursor; ValueError for what is none."""
    return _MOMENT.validate_strings(text)
