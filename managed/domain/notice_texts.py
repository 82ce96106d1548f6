"""What notifications say, in plain words for mails and as JSON for webhooks.

Staff read everything that is known. A customer reads which work on which own server is concerned
and what kind of error it was: details and hints name nodes, paths and commands of ours.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from managed.domain.errors import Json
from managed.domain.notifications import Notice, Occasion, Target
from managed.domain.text import without_controls

_TOLD_IN_FULL: Final = 20
_LONGEST_LINE: Final = 1000
_LONGEST_SUBJECT: Final = 150
_NOUNS: Final[Mapping[Occasion, tuple[str, str]]] = {
    Occasion.JOB_FAILED: ("failed job", "failed jobs"),
    Occasion.WINDOW_MISSED: ("missed window", "missed windows"),
}
_ASK_SUPPORT: Final = "Nothing, unless it stays so: then ask support, and name the server."


@dataclass(frozen=True)
class Message:
    """`subject` is one line. `document` is what a webhook is sent, beside the delivery's id."""

    subject: str
    text: str
    document: Mapping[str, Json]


def message(notices: Sequence[Notice], target: Target, public_url: str) -> Message:
    """All of these in one message to the target; a single one is told in full in the subject, too.
    `public_url` is where people reach this service; empty when they cannot.
    """
    subject = _cut(f"managed: {_summary(notices)}", _LONGEST_SUBJECT)
    parts = [_told(notice, target, public_url) for notice in notices[:_TOLD_IN_FULL]]
    rest = notices[_TOLD_IN_FULL:]
    if rest:
        parts.append("\n".join(["And in short:", *(f"- {_headline(notice)}" for notice in rest)]))
    parts.append(_why(target))
    events: list[Json] = [_document(notice, target, public_url) for notice in notices]
    return Message(
        subject=subject,
        text="\n\n".join(parts) + "\n",
        document={"type": "notification", "subject": subject, "events": events},
    )


def trial_message(target: Target) -> Message:
    """What somebody asks for who wants to see whether messages arrive."""
    subject = "managed: a test message"
    text = "Somebody asked for this test message. Nothing has happened.\n\n" + _why(target) + "\n"
    return Message(subject, text, {"type": "test", "subject": subject, "events": []})


def _summary(notices: Sequence[Notice]) -> str:
    if len(notices) == 1:
        return _headline(notices[0])
    counts = Counter(notice.incident.occasion for notice in notices)
    servers = len({notice.incident.server_id for notice in notices})
    told = " and ".join(
        f"{counts[occasion]} {_NOUNS[occasion][counts[occasion] > 1]}"
        for occasion in Occasion
        if counts[occasion]
    )
    return f"{told} on {servers} {'servers' if servers > 1 else 'server'}"


def _headline(notice: Notice) -> str:
    facts = notice.incident.facts
    match notice.incident.occasion:
        case Occasion.JOB_FAILED:
            step = f" in step {facts['step']}" if facts["step"] else ""
            return _line(f"{facts['job_kind']} of {notice.server_name} failed{step}")
        case Occasion.WINDOW_MISSED:
            return _line(f"no {facts['job_kind']} of {notice.server_name} in its window")


def _told(notice: Notice, target: Target, public_url: str) -> str:
    """One incident in full: a sentence, and a line for each thing that is known."""
    rows = _ROWS[notice.incident.occasion](notice, target)
    rows.append(("look at", _link(notice, public_url)))
    lines = [f"  {name + ':':<14}{_line(text)}" for name, text in rows if text]
    return "\n".join([f"{_sentence_case(_headline(notice))}.", *lines])


def _job_rows(notice: Notice, target: Target) -> list[tuple[str, str]]:
    facts: Mapping[str, Any] = notice.incident.facts
    error = facts["error"]
    left = ", ".join(facts["not_undone"])
    if not target.is_staffs:
        return [
            ("when", _moment(notice.incident.at)),
            ("error", error["title"]),
            ("given up", facts["gave_up"]),
            ("left behind", left and "some of its changes could not be taken back"),
            ("job", facts["job_id"]),
            ("what to do", _ASK_SUPPORT),
        ]
    look = f"Read what it did, with: managed jobs show {facts['job_id']}"
    return [
        ("when", _moment(notice.incident.at)),
        ("error", f"{error['title']}: {error['detail']}" if error["detail"] else error["title"]),
        ("given up", facts["gave_up"]),
        ("left behind", left and f"what these steps changed could not be taken back: {left}"),
        ("job", f"{facts['job_id']}, asked for by {facts['requested_by'] or 'nobody known'}"),
        ("what to do", error["hint"] or look),
    ]


def _window_rows(notice: Notice, target: Target) -> list[tuple[str, str]]:
    facts: Mapping[str, Any] = notice.incident.facts
    opened, closed = (datetime.fromisoformat(facts[name]) for name in ("starts_at", "ends_at"))
    by_hand = f"managed jobs submit {notice.server_name} {facts['job_kind']}"
    return [
        ("window", f"{_moment(opened)} to {_moment(closed)}"),
        ("why", facts["reason"] if target.is_staffs else ""),
        (
            "what to do",
            f"Wait for the next opening, or start it by hand: {by_hand}"
            if target.is_staffs
            else _ASK_SUPPORT,
        ),
    ]


_ROWS: Final = {Occasion.JOB_FAILED: _job_rows, Occasion.WINDOW_MISSED: _window_rows}


def _document(notice: Notice, target: Target, public_url: str) -> dict[str, Json]:
    facts = dict(notice.incident.facts)
    if not target.is_staffs:
        facts = _for_customers(facts)
    return {
        "id": notice.notice_id,
        "occasion": notice.incident.occasion.value,
        "at": notice.incident.at.isoformat(),
        "server": {"id": notice.incident.server_id, "name": notice.server_name},
        **facts,
        "url": _link(notice, public_url) or None,
    }


def _for_customers(facts: Mapping[str, Json]) -> dict[str, Json]:
    shown = {name: fact for name, fact in facts.items() if name not in ("requested_by", "reason")}
    error = facts.get("error")
    if isinstance(error, dict):
        shown["error"] = {"code": error["code"], "title": error["title"]}
    return shown


def _link(notice: Notice, public_url: str) -> str:
    """To the job, or else to the server."""
    if not public_url:
        return ""
    job_id = notice.incident.facts.get("job_id")
    path = f"jobs/{job_id}" if job_id else f"servers/{notice.incident.server_id}"
    return f"{public_url.rstrip('/')}/panel/{path}"


def _why(target: Target) -> str:
    """So that whoever gets the message knows where it comes from and how to end it."""
    about = ", ".join(sorted(target.occasions))
    whose = "all servers" if target.is_staffs else "your servers"
    return f"-- \nYou are told of {about} on {whose}. Notification target {target.target_id}."


def _moment(at: datetime) -> str:
    return f"{at:%Y-%m-%d %H:%M} UTC"


def _sentence_case(text: str) -> str:
    return text[:1].upper() + text[1:]


def _line(text: str) -> str:
    """One line of bounded length: what servers say starts no line and no header of its own."""
    return _cut(" ".join(without_controls(text).split()), _LONGEST_LINE)


def _cut(text: str, longest: int) -> str:
    return text if len(text) <= longest else text[: longest - 1] + "…"
