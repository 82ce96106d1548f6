"""Paths that a text names, and which of them can be restored."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from managed.domain.errors import InvalidInput

MOST_PATHS: Final = 50
_LONGEST_PATH: Final = 4096
_LONGEST_NAME: Final = 255
_QUOTED: Final = re.compile(r"\"(/[^\"\n]+)\"|„(/[^“”\"\n]+)[“”\"]|'(/[^'\n]+)'|`(/[^`\n]+)`")
# Not behind a letter, a colon, a dot or a slash: "and/or", "23/11", "https://…", "../x" are none.
_BARE: Final = re.compile(r"(?<![\w:./~-])/\S+")
_LISTED: Final = re.compile(r"[,;](?=/)")
_ENDS: Final = ".,;:!?…)]}>\"'“”"
# What may stand in a path that is proposed. Names may hold more: those a person has to give.
_PLAIN: Final = re.compile(r"[\w@%+=.,:~# /-]+")


@dataclass(frozen=True)
class NamedPaths:
    """`odd` are those that look like paths and are not proposed: a person is to look at them."""

    paths: tuple[str, ...]
    odd: tuple[str, ...]


def named_paths(text: str) -> NamedPaths:
    """Paths in a text, quoted or bare, each once, in their order. A path with anything odd in it is
    left out as a whole, never cut short: what is left of it could be a larger folder.
    """
    found: dict[str, None] = {}
    for match in _QUOTED.finditer(text):
        found[_normal(next(filter(None, match.groups())))] = None
    for match in _BARE.finditer(_QUOTED.sub(" ", text)):
        for path in _LISTED.split(match.group()):
            found[_normal(_without_end_of_sentence(path))] = None
    good = tuple(p for p in found if _PLAIN.fullmatch(p) and path_refusal(p) is None)
    return NamedPaths(good, tuple(p for p in found if p not in good and p != "/"))


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


def _without_end_of_sentence(path: str) -> str:
    """Dots alone after the last slash are no end of a sentence: "/etc/.." is not "/etc"."""
    name = path.rpartition("/")[2]
    return path if len(name) > 1 and not name.strip(".") else path.rstrip(_ENDS)


def _normal(path: str) -> str:
    return path.rstrip("/") or "/"
