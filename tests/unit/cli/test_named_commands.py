"""Documentation, templates and hints of the code name only commands and options that exist."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
import typer
from typer.core import TyperCommand, TyperGroup

from managed.cli import app

ROOT = Path(__file__).parents[3]
ELSEWHERE = ("tests", "var", "build")
SUFFIXES = (".py", ".md", ".html", ".yml", ".service", ".env", ".sh", "")
# Where text names a command: quoted, behind a prompt, a path or a colon, or on a line of its own.
MENTION = re.compile(r"""(?:^ *|[`"'/>]|[$:] |sudo (?:-E )?)managed ([^`"'<\n]+)""", re.MULTILINE)
# What is quoted without the program's name, such as `jobs list`.
SHORT_MENTION = re.compile(r"`([a-z]+ [a-z][^`\n]*)`")
PATH = re.compile(r"[a-z]+(?:-[a-z]+)*(?: [a-z]+(?:-[a-z]+)*)*(?![^\s.,;:)|…])")
OPTION = re.compile(r"(?<=\s)--[a-z][a-z-]*")
# Ownership, a sentence about the program, and a mark in a file.
NO_COMMANDS = ("managed", "serves", "control-plane")

TREE = typer.main.get_command(app)


def texts() -> Iterator[tuple[Path, str]]:
    """What people read, and what is told to them."""
    for top in sorted(ROOT.iterdir()):
        if top.name.startswith(".") or top.name in ELSEWHERE:
            continue
        for path in sorted(top.rglob("*")) if top.is_dir() else [top]:
            if path.is_file() and path.suffix in SUFFIXES:
                yield path.relative_to(ROOT), path.read_text(encoding="utf-8")


def mistake(words: list[str], options: list[str]) -> str | None:
    """Why there is no such command, or no such option of it; None when all are there. Words
    behind a command are its arguments; a group may be named alone.
    """
    command: TyperCommand | TyperGroup = TREE
    for word in words:
        if not isinstance(command, TyperGroup):
            break
        if word not in command.commands:
            return word
        command = command.commands[word]
    known = {"--help"}
    for parameter in (*TREE.params, *command.params):
        known.update(parameter.opts, parameter.secondary_opts)
    return next((option for option in options if option not in known), None)


def mentions(text: str) -> Iterator[tuple[str, list[str], list[str]]]:
    """What is said, the words that lead to the command, and its options."""
    found = [match[1] for match in MENTION.finditer(text)]
    found += [m[1] for m in SHORT_MENTION.finditer(text) if m[1].split()[0] in TREE.commands]
    for said in found:
        words = PATH.match(said)
        if words and words[0].split()[0] not in NO_COMMANDS:
            yield said, words[0].split(), OPTION.findall(said)


def test_every_command_that_is_named_exists() -> None:
    found = [(path, *mention) for path, text in texts() for mention in mentions(text)]
    assert len(found) > 150
    assert [
        (str(path), said, wrong)
        for path, said, words, options in found
        if (wrong := mistake(words, options))
    ] == []


@pytest.mark.parametrize(
    ("text", "wrong"),
    [
        ("it stays so until `servers unrescue`", "unrescue"),
        ("See: managed windows ad --help", "ad"),
        ("    managed frob", "frob"),
        ("`managed jobs list --frob`", "--frob"),
        ("sudo -E .venv/bin/managed serv", "serv"),
        ("<code>managed demo --dwn</code>", "--dwn"),
        ("`managed jobs submit SERVER backup --watch`", None),
    ],
)
def test_what_does_not_exist_is_found(text: str, wrong: str | None) -> None:
    ((_, words, options),) = mentions(text)
    assert mistake(words, options) == wrong
