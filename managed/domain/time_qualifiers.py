"""Words beside a time that make it another one: "before", "penultimate", "der Vorwoche", "halb
sechs". They are patterns; `named_times` reads none of the times that have one.
"""

from __future__ import annotations

from typing import Final

from managed.domain.calendar_words import listed, one_of

_HOURS: Final = one_of(
    listed(
        "two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen"
        " sixteen seventeen eighteen nineteen twenty zwei drei vier fünf sechs sieben acht neun"
        " zehn zero null einundzwanzig zweiundzwanzig dreiundzwanzig elf zwölf dreizehn vierzehn"
        " fünfzehn sechzehn siebzehn achtzehn neunzehn zwanzig"
    )
)
_MINUTES: Final = (
    r"(?:ten|fifteen|twenty|thirty|forty|fifty|zehn|fünfzehn|zwanzig|dreißig|vierzig|fünfzig)"
)
# "three old folders", "zwei meiner Ordner": what is counted is no hour.
_COUNTED: Final = (
    r"\s(?:(?:big|large|small|new|old|important|other|more|different|whole|of\s(?:my|our|the|them)"
    r"|(?:wichtig|neu|alt|groß|klein|weiter|ander|ganz|mein|unser)\w{1,3}|von|der)\s)?"
    r"(?:(?!this\b|hours\b|sechs\b)[a-z][a-z-]{1,30}s|of|people|file|folder|directory|mail"
    r"|user|site|page|dateie?n?|ordner|verzeichnisse?|(?!(?i:uhr)\b)(?-i:[A-ZÄÖÜ])\w{1,40})\b"
)
_OF_A_CLOCK: Final = r"(?:[\s-](?:sharp|[ap]\.?m\b|o'clock|uhr))"
SPOKEN_HOUR: Final = (
    rf"(?:one[\s-]{_MINUTES}|one{_OF_A_CLOCK}|eins"
    rf"|(?:{_HOURS}(?!{_COUNTED})|half|halb|quarter|viertel)"
    r"(?!\s(?:the|of|der|my|our)\b)"
    rf"(?:[\s-](?:(?:past|to|vor|nach)\s)?(?:{_MINUTES}|{_HOURS}))?)(?![\w'])"
)
"""An hour in words, where it counts nothing."""

_ORDINAL: Final = r"(?:first|second|third|fourth|fifth|erste|zweite|dritte|vierte|fünfte)"
PREVIOUS: Final = (
    r"(?:previous|prior|preceding|penultimate|last[\s-]but[\s-]\w{3,5}"
    r"|(?:second|third|next)[\s-](?:to[\s-])?last"
    r"|(?:vor|dritt|viert|zweit)letzte[nrsm]?|vorvor\w{1,12}|vorver\w{1,12}|vorherige[nrsm]?)"
)
"""Words for one that is over."""

BEFORE_A_TIME: Final = (
    rf"(?:(?:{PREVIOUS}|{_ORDINAL}[nrsm]?|\d(?:st|nd|rd|th)|following"
    r"|(?:darauf)?folgende[nrsm]?|übernächste[nrsm]?|before|after|until|till|up|including|by|early"
    r"|late|working|business|nach|vor|bis|ab|between|zwischen|not|nicht|except|außer|than"
    r"|(?:älter|neuer|jünger|eher)\s+als|other|another|some|any|irgend\w{1,8}"
    r"|spätestens|frühestens|latest|earliest|beginning|start|end|close|middle|eve|beginn|vorabend)"
    r"(?:\s+(?:to|the|de[nmrs]|on|of|from|von|vom|am)){0,2}"
    rf"|{SPOKEN_HOUR}{_OF_A_CLOCK}?,?(?:\s+(?:on|of|am))?(?:\s+(?:the|dem|den))?)"
)
"""Directly before a time."""

ABOUT_A_DAY: Final = r"(?:around|about|circa|ca\.?|approximately|roughly|ungefähr|etwa)"
"""Directly before a day; "around 18:00" is near enough."""

_SPAN: Final = r"(?:day|night|week|fortnight|month|year)s?"
_BEHIND: Final = "|".join(
    (
        r"(?:before|after)(?:\s(?:last|that|this|then))?|prior|until|till|bevor|vor|bis|nachdem"
        r"|nach(?!\s?;)|(?:or|oder)(?!\s(?:of|on|from|am|vom|von)\b)|minus|plus|last|letztens"
        r"|onwards?",
        rf"(?:(?:of|in|from|im|vom|de[rs])\s)?(?:the\s)?(?:{PREVIOUS}|following)",
    )
)
_BEHIND_A_COMMA: Final = "|".join(
    (
        rf"(?:of\s)?(?:the\s)?{_SPAN}\s(?:before|after|prior|following|earlier)",
        r"(?:(?:de[rs]|im|in\sder|vom)\s)?vor(?:jahr|monat|woche|tag)\w{0,2}",
        r"(?:(?:of|in|from|im|vom|de[rs])\s)?(?:the\s)?(?:previous|preceding|prior)\s\w{1,12}",
        r"davor|danach|darauf|zuvor|vorher|nachher|spätestens|frühestens|(?:at\sthe\s)?latest",
        r"(?-i:[A-Z]{1,4}T|UTC|GMT)|ortszeit|serverzeit|(?:sommer|winter)zeit",
        r"(?:local|server|system|my|our|your|central|mountain)\stime"
        r"|(?:hrs\s|in\s)?(?:eastern|pacific|london|new\syork)(?:\stime)?",
    )
)
BEHIND_A_TIME: Final = (
    r"(?:-?ish\b|[.:]\d|T\d{1,2}|\s?[+-]\d|,?\sone(?=\s?(?:[.,;!?)]|$))"
    rf"|(?:,?\s|:[ ])(?:[(@-]\s?)?(?:(?:the|de[nmr])\s)?\d{{1,2}}"
    rf"(?:(?:st|nd|rd|th|ish|te[nr]?)\b|(?![\w:%]|{_COUNTED})\.?)"
    rf"|(?:'s)?\s(?:{_BEHIND})\b"
    rf"|,?\s\(?(?:{_BEHIND_A_COMMA})\b"
    rf"|(?:[,:]?\s\(?[\w'-]{{1,24}}){{0,3}}?[,:]?\s\(?{SPOKEN_HOUR})"
)
"""Directly behind a time, or an hour in words that stands near."""

WHAT_WAS_THEN: Final = (
    r"(?:\s(?:before|after|bevor|nachdem|vor|nach)\s"
    r"(?:it|i|we|you|he|she|they|the|my|our|es|ich|wir|ihr|sie|de[rmn]|alles|unser\w{0,2}"
    r"|mein\w{0,2})\b(?!\s(?:last|one)\b)(?:\s\w{1,24})?)"
)
"""Behind a time. It may say which day is meant; an hour of a date it leaves as it is."""
