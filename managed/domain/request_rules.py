"""The rules by which a ticket becomes a proposal: a table that can be read.

A rule looks for words, in English and German. Where exactly one rule fits, its action is proposed;
where none does, or several do, a person reads the ticket. Every proposal says why, in sentences for
support staff. Nothing is carried out because of what a text says: it only fills in the form that a
person approves, and nothing of it ever becomes part of a command.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final
from zoneinfo import ZoneInfo

from managed.domain.named_paths import MOST_PATHS, NamedPaths, named_paths
from managed.domain.named_times import NamedTime, NamedTimes, named_times
from managed.domain.plain_text import one_line
from managed.domain.requests import Action, ActionKind, Proposal
from managed.domain.tickets import Ticket

NO_RULE: Final = "none"
_LONGEST_WHY: Final = 2000


def _words(*patterns: str) -> re.Pattern[str]:
    return re.compile("|".join(rf"\b(?:{pattern})" for pattern in patterns), re.IGNORECASE)


# A few words between two, and the rest of a sentence in which German parts its verbs.
_NEAR: Final = r"\W+(?:[\w'-]+\W+){0,4}?"
_FAR: Final = r"[^!?\n]{0,120}?\b"

_RESTORE: Final = _words(
    r"restor(?:e|ed|ing)\b",
    r"recover(?:ed|ing)?\b",
    r"undelete\b",
    r"roll(?:ed)? ?back\b",
    r"(?:bring|get|put)\b[^.!?\n]{0,60}?\bback\b",
    r"from (?:the |a |your |my )?backup\b",
    r"wieder ?her(?:zu)?stell\w*",
    rf"stell\w*\b{_FAR}wieder her\b",
    r"zurück(?:zu)?(?:spiel|hol|sicher|setz)\w*",
    rf"(?:spiel|hol|setz)\w*\b{_FAR}zurück\b",
    r"rück(?:zu)?sicher\w*",
    rf"(?:backup|sicherung)\w*\b{_FAR}ein(?:zu)?spiel\w*",
    r"aus (?:dem|einem|eurem|ihrem) backup\b",
)
_WHOLE_SERVER: Final = _words(
    r"(?:whole|entire|complete|full) (?:server|vps|machine|system)\b",
    r"(?:server|vps|machine|system) (?:completely|as a whole)\b",
    r"(?:full|complete|bare.metal) restore\b",
    r"(?:ganzen?|kompletten?|gesamten?|vollständigen?) (?:server|vps|maschine|system)\b",
    r"(?:server|vps|maschine|system) (?:komplett|vollständig)\b",
)
_NOT_BOOTING: Final = _words(
    r"(?:does|do|did|will|can)(?: ?n[o']t| not|nt)(?: even)? boot\b",
    r"(?:won|can|don|doesn)'?t boot\b",
    r"(?:no longer|not|never) boot(?:s|ing)?\b",
    r"(?:fails|refuses|unable) to boot\b",
    r"(?:stuck|hangs?|fails) (?:at|in|on|during) boot\b",
    r"boot ?loop\b",
    r"kernel panic\b",
    r"grub(?: rescue)? ?>",
    r"emergency mode\b",
    r"(?:server|vps|machine)\W+(?:[\w']+\W+){0,3}?"
    r"(?:doesn'?t|does not|won'?t|will not|no longer) (?:start|starts|come (?:back )?up)\b",
    rf"bootet{_NEAR}nicht\b",
    r"fährt nicht(?: mehr)? hoch\b",
    r"kommt nicht(?: mehr)? hoch\b",
    r"(?:server|vps|maschine) startet nicht\b",
    r"(?:lässt sich|kann) nicht(?: mehr)? (?:booten|hochfahren)\b",
)
_UPDATE: Final = _words(
    r"(?:update|upgrade|patch) (?:it |everything )?(?:now|immediately|asap|today)\b",
    r"(?:update|upgrade|patch) (?:my |the |our |this )?"
    r"(?:server|vps|machine|system|packages|kernel|os)\b",
    r"(?:install|apply|run|do) (?:the |all |any )?(?:latest |available |pending |missing |new )?"
    r"(?:security )?(?:updates|patches|fixes)\b",
    r"(?:jetzt|sofort|heute) (?:aktualisier|update|patch)\w*",
    r"(?:update|aktualisier|patch)\w*(?: sie)?(?: bitte)? (?:den|das|unseren|meinen|die)"
    r" (?:server|system|vps|maschine|pakete|kernel)\b",
    r"(?:server|system|vps|pakete|kernel) (?:bitte )?(?:jetzt )?(?:aktualisier|update|patch)\w*",
    r"(?:sicherheits)?(?:updates|patches|aktualisierungen) (?:bitte )?(?:jetzt |sofort )?"
    r"(?:ein(?:zu)?spiel|installier)\w*",
    r"(?:installier|spiel)\w*(?: sie)?(?: bitte)?(?: alle| die)? "
    r"(?:sicherheits)?(?:updates|patches)\b",
)
_OTHER_UPDATE: Final = _words(
    r"(?:word ?press|plugin|theme|typo3|joomla|nextcloud|shop ?ware|magento)\w*",
    r"(?:php|mysql|mariadb|postgres\w*|node|debian|ubuntu)[ -]?(?:version|upgrade|[0-9])",
    r"(?:release|distribution|dist)[ -]upgrade\b",
    r"(?:address|adresse|invoice|rechnung|contract|vertrag|dns|password|passwort)\b",
)
_NOT_WANTED: Final = _words(
    r"(?:do not|don'?t|never|without|please no|stop)(?:\W+[\w'-]+){0,4}?\W+"
    r"(?:restor|recover|updat|upgrad|patch|install|roll|boot|reboot)\w*",
    r"(?:nicht|kein\w*|niemals|ohne)(?:\W+[\w-]+){0,3}?\W+"
    r"(?:wieder ?herstell|zurück|einspiel|aktualisier|updat|patch|installier)\w*",
    r"(?:updates?|patches|restore|backup)(?:\W+[\w-]+){0,3}? nicht "
    r"(?:ein|install|wieder|zurück)\w*",
)


@dataclass(frozen=True)
class Rule:
    """`looks_for` must be found, `unless` must not. `why` says what was read."""

    name: str
    looks_for: re.Pattern[str]
    proposes: ActionKind
    why: str
    unless: re.Pattern[str] | None = None

    def fits(self, text: str) -> str:
        """The words that the rule goes by; empty when it does not fit."""
        found = self.looks_for.search(text)
        if found is None or (self.unless is not None and self.unless.search(text)):
            return ""
        return found.group()


RULES: Final[Sequence[Rule]] = (
    Rule("restore", _RESTORE, ActionKind.RESTORE_FILES, "It asks for something back ({words})."),
    Rule("does-not-boot", _NOT_BOOTING, ActionKind.RESCUE, "The server does not boot ({words})."),
    Rule("update-now", _UPDATE, ActionKind.PATCH, "It asks for updates ({words}).", _OTHER_UPDATE),
)
"""A restore becomes one of the whole server where the text says so and names no path."""


def proposal_for(ticket: Ticket, zone: str) -> Proposal:
    """What is proposed for the ticket; its times are those of the zone."""
    text = f"{ticket.title}\n{ticket.text}".replace("\N{RIGHT SINGLE QUOTATION MARK}", "'")
    fitting = [(rule, words) for rule in RULES if (words := rule.fits(text))]
    if not fitting:
        return _for_a_person("No rule fits: none of the words that rules look for is in it.")
    unwanted = _NOT_WANTED.search(text)
    if unwanted is not None:
        return _for_a_person(f"It says what is not to be done ({_quoted(unwanted.group())}).")
    if len(fitting) > 1:
        names = ", ".join(f"{rule.name} by {_quoted(words)}" for rule, words in fitting)
        return _for_a_person(f"Several rules fit ({names}).")
    ((rule, words),) = fitting
    why = rule.why.format(words=_quoted(words))
    times = named_times(text, ticket.written_at, zone)
    if rule.proposes is ActionKind.PATCH and times.later:
        return _for_a_person(f"{why} It may mean a time to come ({_all_quoted(times.later)}).")
    if rule.proposes is not ActionKind.RESTORE_FILES:
        return Proposal(Action(rule.proposes), rule.name, why)
    return _restore(rule, why, text, times, zone)


def _restore(rule: Rule, why: str, text: str, moments: NamedTimes, zone: str) -> Proposal:
    named, times = named_paths(text), moments.times
    whole = _WHOLE_SERVER.search(text)
    reason = _unclear(named, moments, is_whole=whole is not None, zone=zone)
    if reason:
        return _for_a_person(f"{why} {reason}")
    as_of = times[0].at if times else None
    when = _when(times, zone)
    if whole is not None:
        action = Action(ActionKind.RESTORE_SERVER, as_of=as_of)
        return _proposal(action, rule, f"{why} It means the server as a whole. {when}")
    action = Action(ActionKind.RESTORE_FILES, named.paths, as_of)
    return _proposal(action, rule, f"{why} It names {', '.join(named.paths)}. {when}")


def _unclear(named: NamedPaths, times: NamedTimes, *, is_whole: bool, zone: str) -> str:
    """What keeps a restore from being proposed; empty when nothing does."""
    if named.odd:
        return f"It names what is no plain path: {_all_quoted(named.odd)}."
    if is_whole and named.paths:
        return f"It names the whole server and also {', '.join(named.paths[:5])}."
    if not is_whole and not named.paths:
        return "It names no path, and not the server as a whole."
    if len(named.paths) > MOST_PATHS:
        return f"It names {len(named.paths)} paths."
    if times.unread:
        return f"It names what may be a time and is not plain: {_all_quoted(times.unread)}."
    if len(times.times) > 1:
        several = ", ".join(_moment(one, zone) for one in times.times[:5])
        return f"It names several times: {several}."
    return ""


def _when(times: Sequence[NamedTime], zone: str) -> str:
    if not times:
        return "It names no time: the newest verified backup is taken."
    return f"As of {_moment(times[0], zone)}: the newest verified backup not after it is taken."


def _moment(time: NamedTime, zone: str) -> str:
    local = time.at.astimezone(ZoneInfo(zone))
    return f"{local:%Y-%m-%d %H:%M} {zone} ({_quoted(time.words)})"


def _for_a_person(why: str) -> Proposal:
    text = one_line(f"{why} A person reads it.", _LONGEST_WHY)
    return Proposal(Action(ActionKind.NONE), NO_RULE, text)


def _proposal(action: Action, rule: Rule, why: str) -> Proposal:
    return Proposal(action, rule.name, one_line(why, _LONGEST_WHY))


def _all_quoted(words: Sequence[str]) -> str:
    return ", ".join(map(_quoted, words[:5]))


def _quoted(words: str) -> str:
    return f'"{one_line(words, 100)}"'
