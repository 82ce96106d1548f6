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
