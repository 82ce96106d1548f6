"""What strangers wrote, as the plain text that a person would read: HTML without its tags, nothing
that is invisible, nothing that turns the writing round, and not without end.

`html.parser` is not used here: on malformed input its time grows with the square of the length
(64 KiB of "<a " take it most of a minute), and these are strangers' texts. This reads in one pass.
"""

from __future__ import annotations

import html
import re
import unicodedata
from typing import Final

from managed.domain.calendar_words import SHORT_MONTHS

LONGEST_TEXT: Final = 10_000

# Some of what is read is not shown.
_READ_FOR_ONE_SHOWN: Final = 4

_TAG: Final = re.compile(r"<(?P<end>/?)(?P<name>[a-zA-Z][a-zA-Z0-9]*)(?P<rest>[\s/][^<>]*)?>")
_MARKUP: Final = re.compile(r"<!--|<[!?][^<>]*>|" + _TAG.pattern)
_HIDING_STYLE: Final = re.compile(r"display\s*:\s*none|visibility\s*:\s*hidden", re.IGNORECASE)
_HIDDEN: Final = re.compile(r"\shidden(?=[\s=/]|$)", re.IGNORECASE)
_VALUE: Final = re.compile(r"\"[^\"]*\"|'[^']*'")
_ENDLESS_REFERENCE: Final = re.compile(r"&#[xX]?[0-9a-fA-F]{8,};?")
_SPACES: Final = re.compile(r"[ \t\r\n\f]+")
_EMPTY_LINES: Final = re.compile(r"\n{3,}")
_ABBREVIATIONS: Final = ("ca", r"a\.m", r"p\.m", *SHORT_MONTHS)
_END_OF_SENTENCE: Final = re.compile(
    r"(?<=[!?\n])|(?<=[^\d\s]\.)"
    + "".join(rf"(?<!\b{word}\.)" for word in _ABBREVIATIONS)
    + r"(?=\s)",
    re.IGNORECASE,
)
_QUOTED_LINE: Final = re.compile(r"^[ ]?>.*\n?", re.MULTILINE)

# Their content is raw: no tag is read in it but the one that ends it.
_RAW: Final = frozenset({"script", "style", "textarea", "title", "xmp", "iframe", "noscript"})
# Quotes are what was said before, to which somebody has answered already.
_DROPPED: Final = frozenset(
    {
        "head",
        "template",
        "object",
        "svg",
        "math",
        "select",
        "audio",
        "video",
        "canvas",
        "blockquote",
    }
)
_VOID: Final = frozenset(
    {"br", "hr", "img", "input", "meta", "link", "wbr", "col", "source", "area"}
)
_BLOCKS: Final = frozenset(
    {"p", "div", "br", "hr", "li", "ul", "ol", "tr", "table", "pre", "section", "article"}
    | {"header", "footer", "h1", "h2", "h3", "h4", "h5", "h6", "dt", "dd", "blockquote"}
)


def plain_text(text: str, *, is_html: bool) -> str:
    """The text, without what its writer quotes, at most LONGEST_TEXT characters of it. Only the
    beginning of a long one is read, see `one_line`.
    """
    whole = _without_tags(text) if is_html else _QUOTED_LINE.sub("", text)
    readable = whole[: _READ_FOR_ONE_SHOWN * LONGEST_TEXT]
    lines = [line.strip() for line in visible(readable).split("\n")]
    joined = _EMPTY_LINES.sub("\n\n", "\n".join(lines)).strip()
    is_whole = len(readable) == len(whole) and len(joined) <= LONGEST_TEXT
    return joined if is_whole else f"{joined[: LONGEST_TEXT - 1]}…"


def sentences(text: str) -> list[str]:
    """The text in pieces, each a sentence or a line. Together they are the text."""
    return _END_OF_SENTENCE.split(text)


def visible(text: str) -> str:
    """`text` in the composed form, without characters of no width and those that change its
    direction; newlines stay, other white space becomes blanks. What has no shape at all (controls,
    halves of characters, those that nobody has assigned) becomes a mark that it was there: with it
    left out "/etc/\\ud800" would be "/etc".
    """
    composed = unicodedata.normalize("NFC", text.replace("\r\n", "\n"))
    return "".join(filter(None, map(_shown, composed)))


def one_line(text: str, longest: int) -> str:
    """The same as one line of at most so many characters. Only the beginning of a long text is
    read: to compose a run of marks takes the square of its length, minutes for a megabyte.
    """
    read = text[: _READ_FOR_ONE_SHOWN * longest]
    line = " ".join(visible(read).split())
    is_whole = len(read) == len(text) and len(line) <= longest
    return line if is_whole else f"{line[: longest - 1]}…"


def _shown(character: str) -> str:
    if character == "\n":
        return character
    if character.isspace():
        return " "
    category = unicodedata.category(character)
    if category == "Cf":
        return ""
    return "\N{REPLACEMENT CHARACTER}" if category in ("Cc", "Cs", "Co", "Cn") else character


def _without_tags(source: str) -> str:
    reader = _Reader()
    position = 0
    while found := _MARKUP.search(source, position):
        reader.text(source[position : found.start()])
        position = _after(source, found)
        if found["name"]:
            reader.tag(found["name"].lower(), bool(found["end"]), found["rest"] or "")
    reader.text(source[position:])
    return "".join(reader.pieces)


def _after(source: str, found: re.Match[str]) -> int:
    """Where reading goes on: behind the tag, a comment, or what a tag has as raw content."""
    if found.group() == "<!--":
        end = source.find("-->", found.end())
        return len(source) if end < 0 else end + 3
    name = (found["name"] or "").lower()
    if name not in _RAW or found["end"]:
        return found.end()
    closing = re.compile(rf"</{name}[^<>]*>", re.IGNORECASE).search(source, found.end())
    return closing.end() if closing else len(source)


class _Reader:
    """Collects what is shown. Of a dropped element only its own name is followed to its end, so
    that what is badly nested inside it does not matter.
    """

    def __init__(self) -> None:
        self.pieces: list[str] = []
        self._dropped = ""
        self._depth = 0

    def text(self, source: str) -> None:
        if not self._dropped:
            read = html.unescape(_ENDLESS_REFERENCE.sub("\N{REPLACEMENT CHARACTER}", source))
            self.pieces.append(_SPACES.sub(" ", read))

    def tag(self, name: str, is_end: bool, rest: str) -> None:
        if self._dropped:
            if name == self._dropped:
                self._depth += -1 if is_end else 1
            if self._depth == 0:
                self._dropped = ""
            return
        if name in _BLOCKS:
            self.pieces.append("\n")
        if not is_end and (name in _DROPPED or (name not in _VOID and _is_hiding(rest))):
            self._dropped, self._depth = name, 1


def _is_hiding(attributes: str) -> bool:
    names = _VALUE.sub("", attributes)
    return bool(_HIDING_STYLE.search(attributes) or _HIDDEN.search(names))
