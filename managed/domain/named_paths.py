"""Paths that a text names, and which of them can be restored."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from managed.domain.calendar_words import MONTHS, SHORT_WEEKDAYS, WEEKDAYS, listed, one_of
from managed.domain.errors import InvalidInput
from managed.domain.plain_text import sentences

MOST_PATHS: Final = 50
_LONGEST_PATH: Final = 4096
_LONGEST_NAME: Final = 255
# None holds its own opening mark, so that many that never end take no time.
_QUOTED: Final = re.compile(
    r"\"(/[^\"\n]+)\"|'(/[^'\n]+)'|`(/[^`\n]+)`"
    r"|„(/[^„“”\"\n]+)[“”\"]|“(/[^“”\"\n]+)[”\"]"
    r"|\u2018(/[^\u2018\u2019'\n]+)[\u2019']|\u201a(/[^\u201a\u2018\u2019'\n]+)[\u2018\u2019']"
    r"|«(/[^«»\n]+)»|»(/[^«»\n]+)«"
)
# Not behind a letter, a colon, a dot or a slash: "and/or", "23/11", "https://…", "../x" are none.
_BARE: Final = re.compile(r"(?<![\w:./~-])/\S+")
_LISTED: Final = re.compile(r"[,;](?=/)")
_ENDS: Final = ".,;:!?)]}>\"'“”"
_QUOTES: Final = "\"'„“\u2018\u201a`«»"
_MARKS: Final = "…([{<\u2019" + _QUOTES + _ENDS
_LEFT_OUT: Final = "..."
# What may stand in a path that is proposed. Names may hold more: those a person has to give.
_PLAIN: Final = re.compile(r"[\w@%+=.,:~# /-]+")

# A word behind a bare path may be the rest of a name that has blanks in it. These are not: a list,
# since what a folder may be called has none.
_GOES_ON: Final = frozenset(
    listed(
        # English
        "a again all also although an and are as asap at back be because been before broke but"
        " by came can completely could currently deleted did directory disappeared does entirely"
        " entry exactly file files folder folders for from gets gone got had has have how i"
        " immediately in including into is it just like located lost may me might missing must"
        " my need needs never no not now of off on once only onto or our out over overwritten"
        " path per please plus quickly recursively restored right should since so somehow soon"
        " state than thank thanks that the their them then there they this to today together too"
        " under until up urgently using vanished via was we were when where which while who"
        " whole will with within without would yesterday yet you your"
        # German
        " aber alle alles als am auch auf aus bei beim bis bitte da danke dann das dass dem den"
        " der die diese diesen dieser doch dort durch ein eine einem einen einer einfach einmal"
        " eingespielt einspielen einzuspielen entfernt er es etwa fehlen fehlt funktioniert für"
        " ganz gehört gelöscht gesamt gestern habe haben hat heute hier holen ich ihr im"
        " inklusive ins ist ja jetzt kaputt können könnt komplett kann leer liegt lag mal mein"
        " mich mir mit mitsamt möchte müssen nach nicht noch nochmal nur ob oder ohne rückgängig"
        " rücksichern samt schnell schnellstmöglich seit sie sind so sofort sowie sowohl und uns"
        " unser unter versehentlich verloren verschwunden vollständig vom von vor vorgestern war"
        " waren weg weil wenn wer werden wie wieder wiederherstellen wiederhergestellt"
        " wiederherzustellen wir wird worden wurde wurden zu zum zur zurück zurückholen"
        " zurückspielen zurücksetzen zurücksichern zurückgespielt zurückzuholen zurückzuspielen"
        " zwar überschrieben"
        # Times, which others read
        " ago earlier gegen half halb last later letzte letztem letzten letzter letztes midnight"
        " midday mittag mittags mitternacht morgen morgens nachts abends next noon previous"
        " später tomorrow um übermorgen vorige vorigen"
    )
) | frozenset(WEEKDAYS)
# Behind a name with a capital letter these may be its end all the same: "New folder".
_MAY_END_A_NAME: Final = frozenset(listed("directory file files folder folders friends my up"))
# With a capital letter they begin a sentence or are a name of the calendar.
_GOES_ON_CAPITAL: Final = (
    frozenset(
        listed(
            "As Bitte Can Could Danke From I I'd I'll I'm I've Ich It Please Sie Stand Thank"
            " Thanks The Thx Vielen We Wir You"
        )
    )
    | frozenset(name.title() for name in (*WEEKDAYS, *MONTHS))
    | frozenset(name.title() for name in SHORT_WEEKDAYS if len(name) > 2)
)
_JOINING: Final = frozenset(listed("and or und oder sowie plus & + - -- \u2013 — -> =>"))
_TIME_NUMBER: Final = re.compile(
    r"\d{1,2}[:.]\d{2}(?::\d{2})?h?|\d{1,2}\.\d{1,2}\.(?:\d{4}|\d{2})?"
    r"|\d{4}-\d{1,2}-\d{1,2}(?:T.*)?|\d{1,4}/\d{1,2}(?:/\d{1,4})?|\d{1,2}-\d{1,2}-\d{2,4}|\d{1,2}(?:[ap]m|h)",
    re.IGNORECASE,
)
_COUNT: Final = re.compile(r"\d{1,3}(?:st|nd|rd|th|\.)?", re.IGNORECASE)
_COUNTED: Final = re.compile(
    rf"(?:of|{one_of(MONTHS)}|[ap]m|uhr|(?:minute|hour|day|week)s?)\b", re.IGNORECASE
)
_NEXT_WORD: Final = re.compile(r"[ \t]*(\n?)[ \t]*(\S+)")
_ADDRESS: Final = re.compile(
    r"\w+://|www\.|[\w-]+(?:\.[\w-]+)*\.(?:com|org|net|info|io|eu|de|at|ch|uk|shop)/", re.IGNORECASE
)
_NUMBER: Final = re.compile(r"[\d./:+()%-]+|\w+/\d+\.\d[\d.]*")
_NO_PATH_IN_SPITE_OF_SLASH: Final = frozenset(
    listed(
        "and/or und/oder or/and oder/und tcp/ip i/o w/o n/a a/b ssl/tls tls/ssl ci/cd he/she"
        " she/he er/sie sie/er his/her s/he km/h mb/s"
    )
)


@dataclass(frozen=True)
class NamedPaths:
    """`odd` are those that look like paths and are not proposed: a person is to look at them."""

    paths: tuple[str, ...]
    odd: tuple[str, ...]


def named_paths(text: str) -> NamedPaths:
    """Paths in a text, quoted or bare, each once, in their order. A path with anything odd in it is
    left out as a whole, never cut short: what is left of it could be a larger folder. So is a bare
    one that may go on behind its blank, and whatever stands beside paths and is half of one.
    """
    found: dict[str, None] = {}
    for match in _QUOTED.finditer(text):
        found[_normal(next(filter(None, match.groups())))] = None
    odd: dict[str, None] = {}
    # What was quoted stays visible as a path of its own, which nothing goes on in.
    bare = _QUOTED.sub(" / ", text)
    for match in _BARE.finditer(bare):
        rest = _rest_of_name(bare, match)
        if rest:
            odd[f"{match.group()} {rest}"] = None
            continue
        for path in _LISTED.split(match.group()):
            found[_normal(_without_end_of_sentence(path))] = None
    odd |= dict.fromkeys(_halves_of_paths(bare))
    good = tuple(filter(_is_plain, found))
    odd |= dict.fromkeys(p for p in found if p not in good and p != "/")
    return NamedPaths(good, tuple(odd))


def without_paths(text: str) -> str:
    """The text with a ";" for each path in it, so that nobody reads dates in their names."""
    return _BARE.sub(
        lambda match: ";" + match.group()[len(match.group().rstrip(_ENDS)) :],
        _QUOTED.sub(" ; ", text),
    )


def path_refusal(path: str) -> str | None:
    """Why this is no path of one file or folder that can be restored; or None."""
    if not path.startswith("/") or path == "/":
        return "it is not the absolute path of a file or folder"
    if not path.isprintable():
        return "it holds characters that cannot be seen"
    names = path[1:].split("/")
    if any(name in ("", ".", "..") for name in names):
        return "it is not in its normal form, without '//', '.' and '..' and no '/' at its end"
    if len(path.encode()) > _LONGEST_PATH or any(len(n.encode()) > _LONGEST_NAME for n in names):
        return "it is too long"
    return None


def checked_paths(paths: Sequence[str]) -> tuple[str, ...]:
    """The paths, each once; InvalidInput that names the first bad one."""
    if len(paths) > MOST_PATHS:
        raise InvalidInput(f"{len(paths)} paths", hint=f"Give at most {MOST_PATHS}.", field="paths")
    for path in paths:
        refusal = path_refusal(path)
        if refusal is not None:
            raise InvalidInput(
                f"{path[:200]!r} cannot be restored: {refusal}",
                hint="Give paths such as /var/www or /etc/nginx/nginx.conf.",
                field="paths",
            )
    return tuple(dict.fromkeys(paths))


def _rest_of_name(text: str, path: re.Match[str]) -> str:
    """The words behind a bare path that may belong to its name; empty where none does."""
    if path.group()[-1] in _ENDS:
        return ""
    words: list[str] = []
    is_capital = path.group().rpartition("/")[2][:1].isupper()
    position = path.end()
    while found := _NEXT_WORD.match(text, position):
        is_next_line, word = found.groups()
        words.append(word)
        joins = word in _JOINING
        if is_next_line:
            return " ".join(words) if _is_half_of_path(word) else ""
        if is_capital and word.strip(_MARKS).partition("/")[0] in _MAY_END_A_NAME:
            return " ".join(words)
        if not joins:
            is_first = len(words) == 1
            may_belong = _may_belong(word, text[found.end() : found.end() + 12], is_first=is_first)
            return " ".join(words) if may_belong else ""
        if len(words) > 2:
            return " ".join(words)
        position = found.end()
    return ""


def _may_belong(word: str, then: str, *, is_first: bool) -> bool:
    """Could it be part of a name? Right behind the path only known words are none; behind "and" or
    a dash whatever is written small is taken for the sentence that goes on.
    """
    bare = word.strip(_MARKS)
    if word[0] in _QUOTES:
        return True
    if not bare or bare.startswith("/") or _ADDRESS.match(bare):
        return False
    if _TIME_NUMBER.fullmatch(bare):
        return False
    if _COUNT.fullmatch(bare) and not word.startswith("("):
        return _COUNTED.match(then.lstrip()) is None
    if word.startswith("("):
        return not bare[0].islower() or word.rstrip(".,;")[-1] == ")" or "." in bare
    if _is_half_of_path(word):
        return True
    if bare in _GOES_ON or bare in _GOES_ON_CAPITAL:
        return False
    return is_first or not bare[0].islower()


def _halves_of_paths(text: str) -> Iterator[str]:
    """Words beside a path, in its sentence, that look like one without its beginning."""
    for sentence in sentences(text):
        words = sentence.split()
        if any(word.startswith("/") for word in words) or _BARE.search(sentence):
            yield from filter(_is_half_of_path, words)


def _is_half_of_path(word: str) -> bool:
    bare = word.strip(_MARKS)
    if "/" not in bare or bare.startswith("/") or _ADDRESS.match(bare):
        return False
    if _BARE.search(bare) or _NUMBER.fullmatch(bare):
        return False
    return bare.casefold() not in _NO_PATH_IN_SPITE_OF_SLASH


def _without_end_of_sentence(path: str) -> str:
    """Dots alone after the last slash are no end of a sentence: "/etc/.." is not "/etc". Nor are
    three, which stand for what was left out.
    """
    name = path.rpartition("/")[2]
    if _LEFT_OUT in path or (len(name) > 1 and not name.strip(".")):
        return path
    return path.rstrip(_ENDS)


def _is_plain(path: str) -> bool:
    is_whole = _LEFT_OUT not in path and _PLAIN.fullmatch(path) is not None
    return is_whole and path_refusal(path) is None


def _normal(path: str) -> str:
    return path.rstrip("/") or "/"
