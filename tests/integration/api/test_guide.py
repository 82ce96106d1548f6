"""The guide of the API says what is so: its commands run, its tables are whole."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from api.errors import status_of
from managed.client import ManagedClient
from managed.domain import errors
from managed.domain.errors import ManagedError
from tests.integration.api.conftest import ApiBench

GUIDE = (Path(__file__).parents[3] / "docs" / "guides" / "api.md").read_text(encoding="utf-8")


def kinds(kind: type[ManagedError]) -> Iterator[type[ManagedError]]:
    for below in kind.__subclasses__():
        if below.__module__ == errors.__name__:
            yield below
            yield from kinds(below)


@pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not here")
def test_the_commands_run_as_they_are(live: ManagedClient, bench: ApiBench, tmp_path: Path) -> None:
    commands = re.findall(r"^```sh\n(.*?)^```$", GUIDE, re.MULTILINE | re.DOTALL)
    assert len(commands) >= 8
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", "\n".join(commands)],
        env={"PATH": os.environ["PATH"], "API": live.base_url, "TOKEN": bench.token},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr
    enrolled = [server.name for server in bench.installation.inventory.find()]
    assert enrolled == ["old-blog", "old-shop"]
    assert len(bench.installation.queue.find()) == 2


def test_every_error_is_in_the_table_with_its_status() -> None:
    shown = set(re.findall(r"^\| `([a-z-]+)` \| (\d+) \|", GUIDE, re.MULTILINE))
    known = {(kind.code, str(status_of(kind("")))) for kind in kinds(ManagedError)}
    assert known <= shown
    assert {code for code, _ in shown - known} == {
        "bad-request",
        "method-not-allowed",
        "body-too-large",
    }


def test_every_list_is_in_the_table_with_its_filters(bench: ApiBench) -> None:
    rows = dict(re.findall(r"^\| `(/v1/[^`]+)` \| [^|]+ \|(.*)\|$", GUIDE, re.MULTILINE))
    document = bench.app.openapi()["paths"]
    lists = {
        path: {
            one["name"] for one in operation["get"].get("parameters", []) if one["in"] == "query"
        }
        for path, operation in document.items()
        if "get" in operation
    }
    paged = {path: names for path, names in lists.items() if "cursor" in names}
    assert set(rows) == set(paged)
    for path, names in paged.items():
        assert set(re.findall(r"`([a-z_]+)`", rows[path])) == names - {"limit", "cursor"}, path
