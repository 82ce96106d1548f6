from __future__ import annotations

from pathlib import Path

import pytest

from managed.lab.doctor import Need, Tool, tool_finding, version_in


@pytest.fixture
def programs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder at the front of PATH for programs that the test makes."""
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    return tmp_path


def make_program(folder: Path, name: str, text: str) -> None:
    program = folder / name
    program.write_text(f"#!/bin/sh\n{text}\n")
    program.chmod(0o755)


@pytest.mark.parametrize(
    ("said", "version"),
    [
        ("QEMU emulator version 7.2.22 (Debian 1:7.2+dfsg-7)", (7, 2, 22)),
        ("OpenSSH_9.2p1 Debian-2, OpenSSL 3.0.17", (9, 2)),
        ("mksquashfs version 4.5.1 (2022/03/17)", (4, 5, 1)),
        ("no number here, 7 alone is none", ()),
    ],
)
def test_version_is_the_first_dotted_number(said: str, version: tuple[int, ...]) -> None:
    assert version_in(said) == version


def test_absent_program_is_missing_and_the_package_is_named(programs: Path) -> None:
    finding = tool_finding(Tool("no-such-program", "its-package"))
    assert finding.word == "missing"
    assert "its-package" in finding.remedy


def test_absent_program_of_the_tests_is_a_warning_only(programs: Path) -> None:
    assert tool_finding(Tool("no-such-program", "p", need=Need.TESTS)).word == "warning"


def test_old_program_is_not_well_and_told_apart_from_a_new_one(programs: Path) -> None:
    make_program(programs, "emulator", 'echo "emulator 9.10.1"')
    assert tool_finding(Tool("emulator", "p", at_least=(9, 9))).is_well
    finding = tool_finding(Tool("emulator", "p", at_least=(9, 11)))
    assert not finding.is_well
    assert "9.11 or newer is needed" in finding.found


def test_version_is_read_from_standard_error_too(programs: Path) -> None:
    make_program(programs, "loud", 'echo "loud 1.2" >&2')
    assert tool_finding(Tool("loud", "p")).found == "1.2"


def test_program_that_tells_no_version_is_not_taken_for_a_good_one(programs: Path) -> None:
    make_program(programs, "broken", "exit 1")
    assert not tool_finding(Tool("broken", "p")).is_well
