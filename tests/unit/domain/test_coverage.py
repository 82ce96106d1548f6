"""Which servers an opening was for."""

from __future__ import annotations

import time
from dataclasses import replace
from datetime import UTC, date, datetime

import pytest

from managed.domain.coverage import (
    Coverage,
    CoverPeriod,
    Period,
    WindowPeriod,
    closed_openings,
)
from managed.domain.jobs import JobKind
from managed.domain.windows import Covered, Opening, Window, WindowOwner

SERVER = Covered("server", "customer", "plan")


def at(hour: float, day: int = 2) -> datetime:
    return datetime(2026, 1, day, int(hour), round(hour % 1 * 60), tzinfo=UTC)


OPENING = Opening(at(2), at(4))


def window(
    owner: WindowOwner, since: datetime, hour: int = 2, kind: JobKind = JobKind.PATCH
) -> Window:
    return Window(
        f"{owner}-{kind}-{since}",
        owner,
        owner.value,
        kind,
        f"FREQ=DAILY;BYHOUR={hour}",
        "UTC",
        120,
        date(2026, 1, 1),
        since,
    )


PLANS = window(WindowOwner.PLAN, at(0, 1))


@pytest.mark.parametrize(
    ("after", "now", "ended"),
    [
        (at(3), at(4), [OPENING]),
        (at(3), at(3.75), []),
        (at(4), at(5), []),
        (at(3, 1), at(4), [Opening(at(2, 1), at(4, 1)), OPENING]),
        (at(4, 1), at(4), [OPENING]),
    ],
)
def test_an_opening_closes_once(after: datetime, now: datetime, ended: list[Opening]) -> None:
    found = closed_openings([WindowPeriod(PLANS, None)], after, now)
    assert found == {(JobKind.PATCH, opening): [PLANS] for opening in ended}


@pytest.mark.parametrize(("until", "closes"), [(at(3.75), False), (at(4), True), (at(9), True)])
def test_an_opening_that_was_cut_short_never_closes(until: datetime, closes: bool) -> None:
    found = closed_openings([WindowPeriod(PLANS, until)], at(0), at(10))
    assert ((JobKind.PATCH, OPENING) in found) is closes


@pytest.mark.parametrize(
    ("since", "until", "counts"),
    [
        (at(2), None, True),
        (at(2.25), None, False),
        (at(0), at(4), True),
        (at(0), at(3.75), False),
        (at(0), at(1), False),
    ],
)
def test_an_opening_is_for_servers_that_were_covered_all_the_time(
    since: datetime, until: datetime | None, counts: bool
) -> None:
    coverage = Coverage([WindowPeriod(PLANS, None)], [CoverPeriod(SERVER, Period(since, until))])
    assert coverage.servers_of(JobKind.PATCH, OPENING, [PLANS]) == ({"server"} if counts else set())


@pytest.mark.parametrize("owner", [WindowOwner.SERVER, WindowOwner.CUSTOMER])
@pytest.mark.parametrize(
    ("since", "until", "counts"),
    [
        (at(0), None, False),
        (at(0), at(2), True),
        (at(0), at(2.25), False),
        (at(3.75), None, False),
        (at(4), None, True),
    ],
)
def test_an_opening_is_not_for_servers_that_had_a_nearer_window_meanwhile(
    owner: WindowOwner, since: datetime, until: datetime | None, counts: bool
) -> None:
    """Whenever that one opens."""
    nearer = window(owner, since, hour=12)
    coverage = Coverage(
        [WindowPeriod(PLANS, None), WindowPeriod(nearer, until)],
        [CoverPeriod(SERVER, Period(at(0, 1), None))],
    )
    assert coverage.servers_of(JobKind.PATCH, OPENING, [PLANS]) == ({"server"} if counts else set())


def test_windows_of_others_and_of_other_kinds_are_not_nearer() -> None:
    windows = [
        PLANS,
        window(WindowOwner.SERVER, at(0), kind=JobKind.BACKUP),
        window(WindowOwner.CUSTOMER, at(0)),
    ]
    servers = [Covered("server", "another", "plan"), Covered("second", None, "plan")]
    coverage = Coverage(
        [WindowPeriod(one, None) for one in windows],
        [CoverPeriod(one, Period(at(0, 1), None)) for one in servers],
    )
    assert coverage.servers_of(JobKind.PATCH, OPENING, [PLANS]) == {"server", "second"}


def test_openings_of_many_windows_cost_little() -> None:
    """Each server has its own, and each opens at another time than the others."""
    number = 4000
    windows = [
        WindowPeriod(
            replace(
                PLANS,
                window_id=str(one),
                owner=WindowOwner.SERVER,
                owner_id=str(one),
                rule=f"FREQ=DAILY;BYHOUR=2;BYMINUTE={one // 60 % 60};BYSECOND={one % 60}",
            ),
            None,
        )
        for one in range(number)
    ]
    period = Period(at(0, 1), None)
    began = time.process_time()
    closed = closed_openings(windows, at(0), at(0, 3))
    coverage = Coverage(
        windows, [CoverPeriod(Covered(str(one), None, "plan"), period) for one in range(number)]
    )
    found = [coverage.servers_of(kind, one, counting) for (kind, one), counting in closed.items()]
    assert sum(len(servers) for servers in found) == number
    assert time.process_time() - began < 2


@pytest.mark.parametrize(
    ("one", "other", "both"),
    [
        (Period(at(1), None), Period(at(2), None), Period(at(2), None)),
        (Period(at(1), at(3)), Period(at(2), None), Period(at(2), at(3))),
        (Period(at(1), at(3)), Period(at(0), at(2)), Period(at(1), at(2))),
        (Period(at(1), at(2)), Period(at(2), None), None),
        (Period(at(1), at(2)), Period(at(3), at(4)), None),
    ],
)
def test_what_two_periods_have_in_common(one: Period, other: Period, both: Period | None) -> None:
    assert one.within(other) == other.within(one) == both
