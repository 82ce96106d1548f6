"""What in a text looks like a time, and what only seems to: two tables of words and shapes, English
and German. `named_times` reads what it can of the first; what is left of them is for a person.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from managed.domain.calendar_words import (
    LONG_MONTHS,
    MONTHS,
    SHORT_MONTHS,
    SHORT_WEEKDAYS,
    WEEKDAYS,
    listed,
    one_of,
)
from managed.domain.named_paths import without_paths
from managed.domain.time_qualifiers import ABOUT_A_DAY, PREVIOUS, SPOKEN_HOUR

# What is a month only beside a number: "you may", "a march", and what people are called.
_DOUBTFUL_MONTHS: Final = one_of((*(set(SHORT_MONTHS) - {"may"}), "march", "mai"))
_PLAIN_MONTHS: Final = one_of(set(LONG_MONTHS) - {"may", "march", "mai"})
_MISSPELT_MONTHS: Final = one_of(
    listed("janua febru augus septe octob oktob novem novie decem dezem dicie")
)
_MAY: Final = r"may(?!\s+(?:be|have|not|also|need|still|contain|only|well|want|see)\b)"
# Those of two letters are also words: "so", "do", "mi".
_SHORT_WEEKDAYS: Final = one_of(word for word in SHORT_WEEKDAYS if len(word) > 2)
MONTH: Final = one_of((*(set(MONTHS) - {"may"}), _MAY))
PART_OF_DAY: Final = one_of(
    listed(
        "morning forenoon noon midday lunchtime afternoon evening night midnight früh"
        " vormittags? mittags? nachmittags? abends? nachts? mitternacht morgens?"
    )
)

_DAY: Final = r"(?:0?[1-9]|[12]\d|3[01])"
_MONTH_NUMBER: Final = r"(?:0?[1-9]|1[0-2])"
_DAY_TWO: Final = r"(?:0[1-9]|[12]\d|3[01])"
_MONTH_TWO: Final = r"(?:0[1-9]|1[0-2])"
_UNIT: Final = (
    r"(?:minutes?|hours?|days?|nights?|weeks?|fortnights?|months?|years?|minuten?|stunden?|tage?n?"
    r"|nächte?n?|wochen?|monate?n?|jahre?n?)\b"
)
_FEW: Final = (
    r"(?:\d{1,4}|few|couple(?:\s+of)?|several|some|half\s+an?|paar|einige[nr]?|mehrere[nr]?"
    r"|halben?|halbe[rs]|one|two|three|four|five|six|seven|eight|nine|ten|eleven|twelve"
    r"|zwei|drei|vier|fünf|sechs|sieben|acht|neun|zehn|elf|zwölf"
    r"|\w{3,9}teen|twenty|thirty|forty|fifty|sixty|ninety|hundred|dozen|\w{3,6}zehn|\w{0,9}zwanzig"
    r"|\w{0,9}dreißig|\w{0,9}vierzig|\w{0,9}fünfzig|sechzig|neunzig|hundert|dutzend)"
)
_HOUR_WORD: Final = (
    r"(?:one(?!\s+(?:of|point|time)\b)|two|three|four|five|six|seven|eight|nine|ten|eleven|twelve"
    r"|eins|zwei|drei|vier|fünf|sechs|sieben|acht|neun|zehn|elf|zwölf|halb|viertel|half|quarter)\b"
)
_PRODUCT: Final = one_of(
    listed(
        "php mysql mariadb postgres postgresql node nodejs node.js python nginx apache debian"
        " ubuntu centos alma almalinux rocky kernel linux wordpress wp woocommerce typo3"
        " joomla drupal magento shopware nextcloud owncloud openssl openssh redis docker perl"
        " ruby java tomcat plesk laravel symfony composer mongodb elasticsearch"
    )
)
_NUMBER_OF_VERSION: Final = r"v?\d{1,4}(?:\.\d{1,3})*(?!\.?\d)"
_PRICE_UNIT: Final = (
    r"(?:€|\$|£|%|(?:eur|euros?|usd|chf|[kmgt]i?b|percent|prozent|[mg]hz|lts|[km]bit(?:/s)?)\b)"
)

# Some of these begin where others end; the first that fits is taken.
_NO_TIME: Final = re.compile(
    "|".join(
        (
            r"\b(?:\w+://|www\.|mailto:)\S+",
            r"[#]\w[\w/-]*",
            r"\bcve-\d{4}-\d+\b",
            rf"\b{_PRODUCT}\s+(?:from|von)\s+{_NUMBER_OF_VERSION}\s+(?:to|auf)\s+{_NUMBER_OF_VERSION}",
            rf"\b{_PRODUCT}[\s/:-]?{_NUMBER_OF_VERSION}"
            rf"(?:\s*(?:to|auf|->|and|und|or|oder|/)\s*{_NUMBER_OF_VERSION})?",
            r"\bv(?:ersion\s+)?\d\.\d{1,3}(?:\.\d{1,3})*(?!\.?\d)",
            r"\bv\d+(?:\.\d+)+",
            r"(?<![\d.])\d{1,3}(?:\.\d{1,3}){3}(?:/\d{1,2})?(?::\d+)?(?!\.?\d)",
            r"(?<![\w:])(?:[0-9a-f]{2}:){5}[0-9a-f]{2}(?![\w:])",
            r"(?<![\w:])[0-9a-f]{1,4}(?::[0-9a-f]{0,4}){3,7}(?![\w:])",
            r"\b(?:ticket|case|order|invoice|rechnung|auftrag|vertrag|kunde|customer|reference|ref"
            r"|bestellung|vorgang)s?-?(?:number|nummer|no|nr|id)?[ .:]{0,2}"
            r"(?!\d{1,4}[-/]\d{1,2}[-/]\d{1,4}(?!\d))[a-z]{0,4}-?\d{2,}(?:-\d+)*\b(?!\.)",
            rf"(?:[€$£]|\b(?:eur|usd|chf))\s?\d[\d.,]*|(?<![\d.,])\d[\d.,]*\s?{_PRICE_UNIT}",
            r"(?:\b(?:tel(?:efon)?|phone|fon|fax|mobile?|handy)\b[.:]?\s?[+(]?|(?<!\d)\+)"
            r"\d{1,5}(?:[ /()-]{1,3}\d{2,}(?![.:]\d))+",
            r"(?<!\d)\+\d{8,}",
            r"\(0\d{1,5}\)(?:[ /-]\d{2,}(?![.:]\d))+",
            r"(?<![\w/])0\d{2,5}/\d{3,}",
            r"\b(?:per|pro|je)\s+(?:day|night|week|month|year|tag|nacht|woche|monat|jahr)\b",
            r"\bmon?(?:day|tag)?\s?[\u2013-]\s?(?:fri?|sa|so|sat|sun)(?:day|eitag)?[ .:,]{0,2}"
            r"\d{1,2}(?::\d{2})?\s?[\u2013-]\s?\d{1,2}(?::\d{2})?(?:\s?uhr\b)?",
            r"\b24/7\b|(?<![\w/])[123]/[234](?![\w/])",
            r"\b(?:good|gute[nr]?|schöne[nrs]?|nice|great|lovely|happy|merry|frohe[sn]?)\s+"
            r"(?:new\s+|neues\s+)?(?:morning|afternoon|evening|day|night|weekend|week|year|morgen"
            r"|tag|abend|nacht|nachmittag|mittag|wochenende|woche|jahr|christmas|easter"
            r"|weihnachten|ostern)\b",
            r"\b(?:last|letzte[nrsm]?)\s+(?:(?:available|verified|vorhandene[nrsm]?)\s+)?"
            r"(?:backups?|snapshots?|sicherung|datensicherung|name|names|thing|resort)\b",
        )
    ),
    re.IGNORECASE,
)
_WORD: Final = re.compile(r"\S+")
_BLANKS: Final = re.compile(r"[^\S\n]+")

_PAST: Final = re.compile(
    "|".join(
        (
            rf"\bvor\s+(?:\w+\s+){{0,3}}{_UNIT}",
            rf"(?:\b{_FEW}\s+(?:{_UNIT}\s+)?)?\b(?:ago|earlier)\b",
            r"\b(?:last|letzte[nrsm]?|letztlich|vorige[nrsm]?|vergangene[nrsm]?"
            r"|(?<!half )(?<!quarter )past)\s+\w+",
            rf"(?:\b(?:{_FEW}|an?)\s+)?\b{_UNIT}\s+(?:ago|back|her|before|after|earlier|prior|zuvor|davor|vorher)\b",
            rf"\bfortnights?\b|\b{PREVIOUS}\s+{_UNIT}",
            r"\b(?:(?:vor|dritt|viert|zweit)letzte[nrsm]?|penultimate|vorvor\w{1,12})(?:\s+\w+)?",
            r"\bvor(?:tag|woche|monat|jahr)e?[ns]?\b",
            r"\w{0,20}(?:yest(?=\w)|gestern|gestrige)\w{0,8}",
            r"\b(?:recently|vorhin|kürzlich|neulich|the\s+other\s+day|neulich|damals)\b",
        )
    ),
    re.IGNORECASE,
)
_TIME: Final = re.compile(
    "|".join(
        (
            # Days in digits
            r"(?<!\d)(?:19|20)\d{2}[-/._]\d{1,2}[-/._]\d{1,2}(?!\d)",
            r"(?<!\d)20\d{2}(?:0[1-9]|1[0-2])(?:0[1-9]|[12]\d|3[01])(?!\d)",
            r"(?<![\d.])\d{1,2}\.\s?\d{1,2}\.\s?(?:19|20)\d{2}(?!\d)",
            rf"(?<![\d.]){_DAY}\.\s?{_MONTH_NUMBER}\.\s?[23]\d(?!\.?\d)",
            rf"(?<![\d.]){_DAY}\.\s?{_MONTH_NUMBER}\.(?![.\d])",
            rf"\b(?:am|vom|seit|bis|on|since|until)\s+{_DAY}\.{_MONTH_NUMBER}(?!\.?\d)",
            rf"(?<![\d.,]){_DAY_TWO}\.{_MONTH_TWO}(?![.,]?\d)",
            r"(?<![\d/])\d{1,2}/\d{1,2}/(?:\d{4}|\d{2})(?![\d/])",
            rf"(?<![\w/])(?:{_DAY}/{_MONTH_NUMBER}|{_MONTH_NUMBER}/{_DAY})(?![\w/])",
            r"(?<![\d/])\d{1,2}/20\d{2}(?![\d/])",
            rf"(?<![\d-])(?:{_DAY}-{_MONTH_NUMBER}|{_MONTH_NUMBER}-{_DAY})-(?:\d{{4}}|[23]\d)(?![\d-])",
            r"(?<![\d-])20\d{2}-(?:0[1-9]|1[0-2])(?![\d-])",
            r"\b(?:am|vom|zum|seit\s+dem|bis)\s+\d{1,2}\.(?!\d)",
            r"(?:\b(?:in|from|of|since|until|aus|von|seit|bis|im\s+jahre?)\s+)?"
            r"(?<![\w#:/-])(?<!port )(?<!© )20[0-3]\d(?!\w|[.,:/-]\d)|(?<!\w)'\d{2}\b",
            r"\b(?:the|on|of)\s+\d{1,2}(?:st|nd|rd|th)\b",
            # Days in words
            rf"\b{_PLAIN_MONTHS}(?:\s+(?:19|20)\d{{2}})?\b",
            rf"\b(?:in|of|from|since|until|early|late|mid|im|dem|vom|von|seit|bis|ende|anfang|mitte)[\s-]"
            rf"(?:{_DOUBTFUL_MONTHS}|{_MAY})\b",
            rf"(?<!\d)\d{{1,4}}(?:st|nd|rd|th|\.)?[\s-]?(?:{_DOUBTFUL_MONTHS}|{_MAY})\b",
            rf"\b(?:{_DOUBTFUL_MONTHS}|{_MAY})\.?[\s-]\d",
            rf"\b{_MISSPELT_MONTHS}\w{{0,8}}",
            rf"\b{one_of(WEEKDAYS)}\w{{0,12}}",
            r"\b(?:(?:mittags?|nacht)zeit|\w{0,12}frühe)\b",
            r"\bkw\s?\d{1,2}\b",
            rf"\b(?:on|since|from|until)\s+{_SHORT_WEEKDAYS}\b",
            rf"\b{_SHORT_WEEKDAYS}\.?,?\s(?:the\s)?\d{{1,2}}(?![\d:])",
            r"\b(?-i:(?:Mo|Di|Mi|Fr|Sa)\.?,?\s(?:den\s)?\d{1,2}(?![\d:])"
            r"|(?:Do|So)\.?,?\s(?:den\s)?\d{1,2}\.)",
            r"\b(?:heute|today|tomorrow|übermorgen|morgen|tonight|weekend|wochenende|overnight)\b",
            r"\b(?:this\s+|next\s+|diese[nrsm]?\s+|nächste[nrsm]?\s+)?(?:week|month|woche|monate?s?)\b",
            r"\b(?:next|coming|following|nächste[nrsm]?|kommende[nrsm]?)\s+"
            r"(?:time|day|night|year|window|maintenance|tage?|nacht|jahr|mal|wartungs\w+)\b",
            r"\b(?:maintenance\s+window|wartungsfenster|feierabend|later|später)\b",
            r"\b(?:christmas|easter|new\s+year\S{0,2}|weihnachten|ostern|pfingsten|silvester|neujahr"
            r"|heiligabend)\b",
            # Clocks
            r"(?:\b(?:at|um|gegen|ab|around|by|until|bis|nach|after|before|vor)\s+)?"
            r"(?<![\d:.])(?:[01]?\d|2[0-9]):[0-5]\d(?!\d)",
            r"(?:\b(?:at|um|gegen|ab|around|by|until|bis|nach|after|before|vor)\s+)?"
            r"(?<![\w.:])\d{1,2}(?:[.:]\d{2})?\s*(?:[ap]m\b|[ap]\.m\.|uhr\b|o'clock\b)",
            r"(?<![\w.])\d{1,2}h(?:\d{2})?\b",
            r"\b[0-2]\d[0-5]\d\s?(?:backup|hours?|hrs?|h|uhr)\b",
            r"\b(?:lunch|breakfast|dinner|after\s+work|eod|cob|end\s+of\s+(?:the\s+)?day"
            r"|close\s+of\s+business|mittagspause)\b",
            r"\bat\s+\d{1,2}\b(?!\s*%)",
            r"\b(?:um|gegen)\s+\d{1,2}\b(?!\s+(?-i:[A-ZÄÖÜ]))",
            rf"\b(?:at|um|gegen)\s+{_HOUR_WORD}|\b{ABOUT_A_DAY}\s+{SPOKEN_HOUR}",
            r"\b(?:half\s+past|quarter\s+(?:past|to)|viertel\s+(?:vor|nach)|uhr\b|o'clock\b)",
            rf"\b(?:this\s+|diese[nr]?\s+|in\s+the\s+|am\s+|at\s+|in\s+der\s+|zu\s+)?"
            rf"(?<!so )(?<!zu ){PART_OF_DAY}\b(?!\s+wie\b)",
            rf"\b{_FEW}\s+(?:more\s+|full\s+|volle[nr]?\s+)?{_UNIT}",
            rf"\bin\s+(?:an?|einer?|einem)\s+{_UNIT}",
        )
    ),
    re.IGNORECASE,
)
# Which time they mean depends on something that is not told, or on words that nobody foresaw: what
# stands behind "as of" is a time, whatever it is.
_UNTOLD: Final = re.compile(
    "|".join(
        (
            r"\b(?:before|prior\s+to|bevor|vor\s+(?:dem|der|den))\b(?:\s+\w+){0,2}",
            r"\b(?:since|seit(?:dem)?)\s+(?:the|an?|my|our|your|then|dem|der|einem|einer|ich|wir)\b"
            r"(?:\s+\w+)?",
            r"\b(?:previous|older|oldest|ältere[nrsm]?|vorherige[nrsm]?|frühere[nrsm]?)\s+"
            r"(?:\w+\s+)?(?:version|state|status|backup|snapshot|copy|content|data|files?|one|stand"
            r"|zustand|fassung|sicherung|inhalt|dateie?n?|daten)",
            r"\b(?:when|while)\s+(?:it|everything|all)\b(?:\s+\w+)?|\bals\s+(?:es|alles|noch)\b"
            r"|\bknown[\s-]good\b|\bpoint\s+in\s+time\b|\bzeitpunkt\b",
            r"\b(?:as\s+(?:of|at)|(?:state|version|backup|snapshot)\s+(?:of|from|on|at)|dated"
            r"|as\s+(?:it|they)\s+(?:was|were)(?:\s+(?:on|at))?"
            r"|(?:stand|version|fassung)(?:\s+(?:vom|von|am))?|(?:backup|sicherung)\s+(?:vom|am))"
            r"\s+(?!(?:now|jetzt|the|my|our|your|this|that|it|them|all|dies\w*|des|der|before|vor)\b)"
            r"[\w'+-][^\s;]*",
            r"\b(?:to|vom)\s+(?!\d\.\d)[+-]?\d\S*",
            rf"(?<![\w-])(?:{_DAY_TWO}-{_MONTH_TWO}|{_MONTH_TWO}-{_DAY_TWO})(?![\w-])",
        )
    ),
    re.IGNORECASE,
)
_SAID_BEFORE: Final = re.compile(
    r"^(?:(?:on|am)\s[^\n]{6,200}(?:\n[^\n]{0,100})?\b(?:wrote|schrieb)\b[^\n]{0,100}:"
    r"|(?:sent|gesendet):[^\n]{6,200})$",
    re.IGNORECASE | re.MULTILINE,
)


@dataclass(frozen=True)
class LikeATime:
    """Words that nobody understood. `is_past`: whatever they mean has been."""

    words: str
    is_past: bool


def without_what_is_no_time(text: str) -> str:
    """The text with a ";" for paths, addresses, versions, prices, greetings and whatever else has
    the shape of a time and is none. Blanks come singly in it.
    """
    single = _BLANKS.sub(" ", without_paths(text))
    without_mail = _WORD.sub(lambda word: ";" if "@" in word.group()[1:] else word.group(), single)
    return _NO_TIME.sub(";", without_mail)


def headers_of_mails(text: str) -> tuple[list[str], str]:
    """Lines in which a mail's program says when something was written before, and the text without
    them.
    """
    return _SAID_BEFORE.findall(text), _SAID_BEFORE.sub(";", text)


def words_of_time(text: str) -> Iterator[LikeATime]:
    """Words and numbers that look like a time."""
    for match in _PAST.finditer(text):
        yield LikeATime(match.group(), is_past=True)
    for match in _TIME.finditer(_PAST.sub(";", text)):
        yield LikeATime(match.group(), is_past=False)


def words_of_an_untold_time(text: str) -> list[str]:
    """Words that mean a time without naming one, such as "before the update"."""
    return [match.group() for match in _UNTOLD.finditer(text)]
