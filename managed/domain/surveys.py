"""What a survey of a server has found: is there anything that a job would do?

"Nothing" has to be proven: package lists fetched now, nothing pending, every package whole, no
reboot due. Work starts the job, and so does everything that is not known: the job makes its own
tries, and tells when it fails.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from enum import StrEnum
from typing import Final

from managed.domain.documents import list_in, mapping_in
from managed.domain.errors import Json
from managed.domain.jobs import JobKind
from managed.domain.plain_text import one_line
from managed.domain.windows import Opening

SURVEYED_KINDS: Final = frozenset({JobKind.PATCH})
"""A window asks before it starts these; a backup always has work."""

_CLOCKS_MAY_DIFFER: Final = timedelta(hours=1)
_MOST_NAMES: Final = 20
_LONGEST: Final = 300


class SurveyOutcome(StrEnum):
    NOTHING_TO_DO = "nothing-to-do"
    WORK = "work"
    UNKNOWN = "unknown"

    @property
    def starts_a_job(self) -> bool:
        return self is not SurveyOutcome.NOTHING_TO_DO


class NextMove(StrEnum):
    """What an open window does next for a server that has no job of its opening."""

    ASK = "ask"
    START = "start"
    LEAVE = "leave"


def next_move(kind: JobKind, surveyed: SurveyOutcome | None) -> NextMove:
    """`surveyed` is what this opening's survey of the server has found, if there was one."""
    if kind not in SURVEYED_KINDS:
        return NextMove.START
    if surveyed is None:
        return NextMove.ASK
    return NextMove.START if surveyed.starts_a_job else NextMove.LEAVE


@dataclass(frozen=True)
class Finding:
    """`detail` is a sentence for people, customers among them; `found` the numbers and names that
    it comes from, as small JSON: of each list of names the first twenty.
    """

    outcome: SurveyOutcome
    detail: str
    found: Mapping[str, Json] = field(default_factory=dict)


@dataclass(frozen=True)
class Survey:
    """What was found on a server for one opening of a window."""

    server_id: str
    job_kind: JobKind
    opening: Opening
    asked_at: datetime
    finding: Finding


def unknown(reason: str) -> Finding:
    return Finding(SurveyOutcome.UNKNOWN, one_line(reason, _LONGEST))


def finding_of(document: Mapping[str, Json], only_security: bool, now: datetime) -> Finding:
    """What survey_updates.py's document says, asked for like this and answered at `now`. The
    server's root may have written anything into it.
    """
    named = _Named(
        damaged=_names_in(document, "damaged"),
        held=_names_in(document, "held"),
        kept_back=_names_in(document, "kept_back"),
        reboot=_names_in(mapping_in(document, "reboot"), "reasons"),
    )
    found = _found(document, named)
    work = _work(document, named)
    if work:
        return Finding(SurveyOutcome.WORK, one_line("; ".join(work), _LONGEST), found)
    doubt = _doubt(document, only_security, now)
    if doubt:
        return Finding(SurveyOutcome.UNKNOWN, one_line(doubt, _LONGEST), found)
    left = [
        f"{what}: {names}"
        for names, what in ((named.held, "on hold"), (named.kept_back, "kept back"))
        if names.number
    ]
    said = "; ".join(["everything is up to date", *left])
    return Finding(SurveyOutcome.NOTHING_TO_DO, one_line(said, _LONGEST), found)


@dataclass(frozen=True)
class _Names:
    """The first names of a list, and how many it has; as text with how many more there are."""

    first: list[str]
    number: int

    def __str__(self) -> str:
        more = self.number - len(self.first)
        return ", ".join(self.first) + (f" and {more} more" if more else "")


@dataclass(frozen=True)
class _Named:
    """What the document names; of `reboot` the reasons for it."""

    damaged: _Names
    held: _Names
    kept_back: _Names
    reboot: _Names


def _names_in(document: Mapping[str, Json], key: str) -> _Names:
    names = list_in(document, key)
    return _Names([one_line(str(name), 100) for name in names[:_MOST_NAMES]], len(names))


def _work(document: Mapping[str, Json], named: _Named) -> list[str]:
    """What there is to do, as parts of a sentence."""
    work = []
    updates = len(list_in(document, "pending"))
    if updates:
        counted = "1 update" if updates == 1 else f"{updates} updates"
        work.append(f"{counted}, {_security(document)} of them for security")
    if named.damaged.number:
        work.append(f"half unpacked: {named.damaged}")
    if list_in(document, "audit"):
        work.append("dpkg is not content")
    if document.get("unfinished_patch") is True:
        work.append("an earlier patch did not come to a good end")
    if mapping_in(document, "reboot").get("needed") is True:
        work.append(f"a reboot is needed: {str(named.reboot) or 'it does not say why'}")
    return work


def _doubt(document: Mapping[str, Json], only_security: bool, now: datetime) -> str:
    """Why this document proves no absence of work; empty when it does."""
    error = document.get("error")
    if error is not None:
        said = error.get("detail") if isinstance(error, dict) else None
        return str(said or "the survey failed and does not say why")
    missing = [
        name
        for name in ("pending", "damaged", "audit", "held", "kept_back")
        if not isinstance(document.get(name), list)
    ]
    if document.get("unfinished_patch") is not False:
        missing.append("unfinished_patch")
    if mapping_in(document, "reboot").get("needed") is not False:
        missing.append("reboot")
    if document.get("only_security") is not only_security:
        missing.append("only_security")
    if missing:
        return f"the answer is not whole: {', '.join(missing)}"
    return _doubt_of_lists(mapping_in(document, "lists"), only_security, now)


def _doubt_of_lists(lists: Mapping[str, Json], only_security: bool, now: datetime) -> str:
    """A clock that is far off makes old lists pass as new: apt goes by it when it judges their
    dates.
    """
    indexes = lists.get("indexes")
    if not isinstance(indexes, int) or indexes < 1:
        return "it has no package lists: are there sources?"
    of_security = lists.get("security_indexes")
    if only_security and (not isinstance(of_security, int) or of_security < 1):
        return "it has no source of security updates"
    fetched_at = _moment(lists.get("updated_at"))
    if fetched_at is None:
        return "it does not say when the package lists were fetched"
    if abs(now - fetched_at) > _CLOCKS_MAY_DIFFER:
        return f"its clock is wrong: it fetched the package lists at {fetched_at:%F %T} UTC"
    return ""


def _found(document: Mapping[str, Json], named: _Named) -> dict[str, Json]:
    """What is kept of the document: counts, some names, the age of the lists."""
    lists = mapping_in(document, "lists")
    return {
        "updates": len(list_in(document, "pending")),
        "security": _security(document),
        "damaged": list[Json](named.damaged.first),
        "audit": len(list_in(document, "audit")),
        "held": list[Json](named.held.first),
        "kept_back": list[Json](named.kept_back.first),
        "reboot": list[Json](named.reboot.first),
        "lists_fetched_at": _iso(_moment(lists.get("updated_at"))),
        "newest_release_at": _iso(_newest_release(lists)),
    }


def _security(document: Mapping[str, Json]) -> int:
    pending = list_in(document, "pending")
    return sum(isinstance(one, dict) and one.get("security") is True for one in pending)


def _newest_release(lists: Mapping[str, Json]) -> datetime | None:
    """The latest of the dates that the releases state of themselves."""
    stated = [
        _date_of_release(one.get("date"))
        for one in list_in(lists, "releases")[:_LONGEST]
        if isinstance(one, dict)
    ]
    return max((date for date in stated if date is not None), default=None)


def _date_of_release(text: Json) -> datetime | None:
    """In UTC, which is also what a date without a zone is in."""
    try:
        date = parsedate_to_datetime(text) if isinstance(text, str) else None
        if date is None:
            return None
        return date.astimezone(UTC) if date.tzinfo else date.replace(tzinfo=UTC)
    except (ValueError, OverflowError):
        return None


def _moment(text: Json) -> datetime | None:
    """In UTC; None for what is no moment, or has no zone."""
    try:
        moment = datetime.fromisoformat(text) if isinstance(text, str) else None
        return moment.astimezone(UTC) if moment is not None and moment.tzinfo else None
    except (ValueError, OverflowError):
        return None


def _iso(moment: datetime | None) -> str | None:
    return moment.isoformat() if moment else None
