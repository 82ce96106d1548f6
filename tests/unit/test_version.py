"""The program tells the version that its package has."""

from __future__ import annotations

import tomllib
from pathlib import Path

from managed import VERSION


def test_the_version_is_that_of_the_package() -> None:
    project = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text())
    assert project["project"]["version"] == VERSION
