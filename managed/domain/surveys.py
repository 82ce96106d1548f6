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
    it comes from, as small JSON.
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
    found = _found(document)
    work = _work(document)
    if work:
        return Finding(SurveyOutcome.WORK, one_line("; ".join(work), _LONGEST), found)
    doubt = _doubt(document, only_security, now)
    if doubt:
        return Finding(SurveyOutcome.UNKNOWN, one_line(doubt, _LONGEST), found)
    left = [
        f"{what}: {', '.join(_names(document, key))}"
        for key, what in (("held", "on hold"), ("kept_back", "kept back"))
        if _list(document, key)
    ]
    said = "; ".join(["everything is up to date", *left])
    return Finding(SurveyOutcome.NOTHING_TO_DO, one_line(said, _LONGEST), found)


def _work(document: Mapping[str, Json]) -> list[str]:
    """What there is to do, as parts of a sentence."""
    work = []
    updates = len(_list(document, "pending"))
    if updates:
        counted = "1 update" if updates == 1 else f"{updates} updates"
        work.append(f"{counted}, {_security(document)} of them for security")
    if _list(document, "damaged"):
        work.append(f"half unpacked: {', '.join(_names(document, 'damaged'))}")
    if _list(document, "audit"):
        work.append("dpkg is not content")
    if document.get("unfinished_patch") is True:
        work.append("an earlier patch did not come to a good end")
    reboot = _mapping(document, "reboot")
    if reboot.get("needed") is True:
        work.append(f"a reboot is needed: {', '.join(_names(reboot)) or 'it does not say why'}")
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
    if _mapping(document, "reboot").get("needed") is not False:
        missing.append("reboot")
    if document.get("only_security") is not only_security:
        missing.append("only_security")
    if missing:
        return f"the answer is not whole: {', '.join(missing)}"
    return _doubt_of_lists(_mapping(document, "lists"), now)


def _doubt_of_lists(lists: Mapping[str, Json], now: datetime) -> str:
    """A clock that is far off makes old lists pass as new: apt goes by it when it judges their
    dates.
    """
    indexes = lists.get("indexes")
    if not isinstance(indexes, int) or indexes < 1:
        return "it has no package lists: are there sources?"
    fetched_at = _moment(lists.get("updated_at"))
    if fetched_at is None:
        return "it does not say when the package lists were fetched"
    if abs(now - fetched_at) > _CLOCKS_MAY_DIFFER:
        return f"its clock is wrong: it fetched the package lists at {fetched_at:%F %T} UTC"
    return ""


def _found(document: Mapping[str, Json]) -> dict[str, Json]:
    """What is kept of the document: counts, some names, the age of the lists."""
    lists = _mapping(document, "lists")
    return {
        "updates": len(_list(document, "pending")),
        "security": _security(document),
        "damaged": _kept(_names(document, "damaged")),
        "audit": len(_list(document, "audit")),
        "held": _kept(_names(document, "held")),
        "kept_back": _kept(_names(document, "kept_back")),
        "reboot": _kept(_names(_mapping(document, "reboot"))),
        "lists_fetched_at": _iso(_moment(lists.get("updated_at"))),
        "newest_release_at": _iso(_newest_release(lists)),
    }


def _security(document: Mapping[str, Json]) -> int:
    pending = _list(document, "pending")
    return sum(isinstance(one, dict) and one.get("security") is True for one in pending)


def _names(document: Mapping[str, Json], key: str = "reasons") -> list[str]:
    """The first of a list of names, and how many more there are."""
    names = _list(document, key)
    more = [f"and {len(names) - _MOST_NAMES} more"] if len(names) > _MOST_NAMES else []
    return [*(one_line(str(name), 100) for name in names[:_MOST_NAMES]), *more]


def _newest_release(lists: Mapping[str, Json]) -> datetime | None:
    """The latest of the dates that the releases state of themselves."""
    stated = [
        _date_of_release(one.get("date"))
        for one in _list(lists, "releases")[:_LONGEST]
        if isinstance(one, dict)
    ]
    return max((date for date in stated if date is not None), default=None)


def _date_of_release(text: Json) -> datetime | None:
    try:
        date = parsedate_to_datetime(text) if isinstance(text, str) else None
    except (ValueError, OverflowError):
        return None
    return date.replace(tzinfo=UTC) if date is not None and date.tzinfo is None else date


def _moment(text: Json) -> datetime | None:
    try:
        moment = datetime.fromisoformat(text) if isinstance(text, str) else None
    except ValueError:
        return None
    return moment if moment is not None and moment.tzinfo is not None else None


def _iso(moment: datetime | None) -> str | None:
    try:
        return moment.astimezone(UTC).isoformat() if moment else None
    except OverflowError:
        return None


def _kept(names: list[str]) -> list[Json]:
    return [*names]


def _list(document: Mapping[str, Json], name: str) -> list[Json]:
    value = document.get(name)
    return value if isinstance(value, list) else []


def _mapping(document: Mapping[str, Json], name: str) -> Mapping[str, Json]:
    value = document.get(name)
    return value if isinstance(value, dict) else {}
