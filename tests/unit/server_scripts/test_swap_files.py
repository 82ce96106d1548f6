"""Swap files are made again as they were, and nowhere else."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from managed.domain.swap_files import SwapFile
from managed.server_scripts._layout_survey import Survey, probe, swap_paths
from managed.server_scripts._run import ScriptFailed
from managed.server_scripts._swap_files import make_swap_file

UUID = "0d8c3fe1-9ff7-4f3a-8a4c-3f5d2a4c9c11"
SWAPS = """\
Filename				Type		Size		Used		Priority
/dev/vda5                               partition	498684		0		-2
/swapfile                               file		65532		0		-3
/var/with\\040space                      file		65532		0		-4
/old\\040(deleted)                       file		65532		0		-5
"""


def test_files_in_use_as_swap_are_found() -> None:
    assert swap_paths(SWAPS) == ["/swapfile", "/var/with space"]


def test_a_swap_file_comes_back_as_it_was_recorded(tmp_path: Path) -> None:
    (tmp_path / "var").mkdir()
    os.utime(tmp_path / "var", ns=(1, 981_173_106_123_456_789))
    wanted = SwapFile("/var/swap", 1 << 20, UUID, "spare")
    make_swap_file(tmp_path, wanted)

    made = tmp_path / "var/swap"
    assert made.stat().st_mode == 0o100600
    assert made.stat().st_blocks * 512 >= 1 << 20, "the kernel refuses swap files with holes"
    assert probe(str(made))["TYPE"] == "swap"
    assert (tmp_path / "var").stat().st_mtime_ns == 981_173_106_123_456_789
    survey = Survey([], [str(made)])
    assert survey.surveyed_swap_files() == [
        {"path": str(made), "size": 1 << 20, "uuid": UUID, "label": "spare"}
    ]


def test_without_a_recorded_identity_it_gets_a_new_one(tmp_path: Path) -> None:
    make_swap_file(tmp_path, SwapFile("/swapfile", 1 << 20))

    assert len(probe(str(tmp_path / "swapfile"))["UUID"]) == len(UUID)


def test_a_layout_leads_to_no_place_outside_and_over_no_file(tmp_path: Path) -> None:
    root, outside = tmp_path / "root", tmp_path / "outside"
    root.mkdir()
    outside.mkdir()
    (root / "way").symlink_to(outside)
    (root / "file").write_text("content")
    (root / "link").symlink_to(outside / "new")

    for path in ("/way/swap", "/absent/swap", "/file/swap", "/file", "/link"):
        with pytest.raises(ScriptFailed, match="swap"):
            make_swap_file(root, SwapFile(path, 1 << 20))
    assert list(outside.iterdir()) == []
    assert (root / "file").read_text() == "content"


def test_a_disk_without_room_is_said(tmp_path: Path) -> None:
    with pytest.raises(ScriptFailed, match="no room"):
        make_swap_file(tmp_path, SwapFile("/swapfile", 1 << 60))


def test_a_swap_file_with_a_name_that_cannot_be_kept_is_said_at_backup_time() -> None:
    survey = Survey([], ["/a\tb", "/absent"])

    assert survey.surveyed_swap_files() == []
    assert ["swap file" in text for text in survey.unsupported] == [True, True]
