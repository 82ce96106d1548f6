"""What the panel serves of others is what its note says, and nothing comes from elsewhere."""

from __future__ import annotations

import hashlib
import re

import pytest

from api.panel.assets import BY_ADDRESS, BY_FILE, FOLDER, address_of

TEMPLATES = FOLDER.parent / "templates"


@pytest.mark.parametrize("name", ["htmx.min.js", "sse.min.js"])
def test_vendored_scripts_are_what_their_note_says(name: str) -> None:
    vendor = FOLDER / "vendor"
    note = (vendor / "README.md").read_text()
    assert f"`{hashlib.sha256((vendor / name).read_bytes()).hexdigest()}`" in note
    assert (vendor / f"{name.partition('.')[0]}.LICENSE").read_text().strip()


def test_an_address_changes_with_the_content() -> None:
    for file, asset in BY_FILE.items():
        digest = hashlib.sha256((FOLDER / file).read_bytes()).hexdigest()
        assert address_of(file) == f"/panel/static/{digest[:16]}-{file.rpartition('/')[2]}"
        assert BY_ADDRESS[asset.served_as] is asset


def test_templates_have_no_script_or_style_of_their_own_and_load_nothing_from_elsewhere() -> None:
    for template in TEMPLATES.glob("*.html"):
        text = template.read_text()
        for tag in re.findall(r"<script[^>]*>", text):
            assert "src=" in tag, template.name
        assert not re.search(r"<style|\sstyle=|\son\w+=|\|\s*safe|https?://", text), template.name


def test_scripts_and_styles_name_no_other_place() -> None:
    for name in ("panel.css", "panel.js"):
        assert not re.search(r"https?://|@import|url\(", (FOLDER / name).read_text()), name


@pytest.mark.parametrize("scheme", [0, 1], ids=["light", "dark"])
def test_texts_stand_out_from_their_ground(scheme: int) -> None:
    """WCAG 2, level AA, asks for 4.5 to 1."""
    colours = _colours(scheme)
    tones = ("bad", "notice", "good", "busy")
    pairs = [
        (text, ground) for text in ("text", "muted", "link") for ground in ("ground", "surface")
    ]
    pairs += [(tone, f"{tone}-ground") for tone in tones]
    pairs += [(tone, "surface") for tone in tones]
    pairs += [("on-link", "link"), ("ground", "bad")]
    weak = [pair for pair in pairs if _contrast(colours[pair[0]], colours[pair[1]]) < 4.5]
    assert weak == []


def _colours(scheme: int) -> dict[str, str]:
    """The variables of the first block (light), or of the second (dark)."""
    block = re.findall(r":root \{(.*?)\}", (FOLDER / "panel.css").read_text(), re.DOTALL)[scheme]
    return dict(re.findall(r"--([a-z-]+): #([0-9a-f]{3,6});", block))


def _contrast(one: str, other: str) -> float:
    light, dark = sorted((_luminance(one), _luminance(other)), reverse=True)
    return (light + 0.05) / (dark + 0.05)


def _luminance(colour: str) -> float:
    digits = "".join(digit * 2 for digit in colour) if len(colour) == 3 else colour
    parts = [int(digits[place : place + 2], 16) / 255 for place in (0, 2, 4)]
    red, green, blue = (p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue
