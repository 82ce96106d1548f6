"""The receiving end of a restore to another server, as the command that it is there."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import shlex
import subprocess
import sys
import tarfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from managed.domain.manifests import EntryKind, ManifestEntry, manifest_lines
from managed.server_scripts import receive_files, script_source

LONGEST_ARGUMENT = 128 * 1024
CONTENT = {"/srv/a": b"content of a", "/srv/deep/b-\udce8": b"b" * 100_000}


@dataclass
class Receiver:
    directory: Path

    @property
    def place(self) -> Path:
        return self.directory / "restored" / "job"

    def receive(
        self, path: str, sent: bytes, *, is_folder: bool = False, **given: Any
    ) -> subprocess.CompletedProcess[bytes]:
        wanted = {
            "manifest": str(self.directory / "manifest"),
            "place": str(self.place),
            "size": 1,
            "entries": 1,
            "path": path,
            "is_folder": is_folder,
            **given,
        }
        argv = (sys.executable, "-I", "-c", script_source("receive_files"), json.dumps(wanted))
        return subprocess.run(argv, input=sent, capture_output=True, check=False)

    def files(self) -> dict[str, bytes]:
        return {
            str(path).removeprefix(str(self.place)): path.read_bytes()
            for path in self.place.rglob("*")
            if path.is_file()
        }


@pytest.fixture
def receiver(tmp_path: Path) -> Receiver:
    directories = [
        ManifestEntry(path, EntryKind.DIRECTORY, 0o755, 0, 0, 0)
        for path in ("/", "/srv", "/srv/deep")
    ]
    pipe = ManifestEntry("/srv/pipe", EntryKind.FIFO, 0o644, 0, 0, 0)
    files = [
        ManifestEntry(
            path,
            EntryKind.FILE,
            0o644,
            0,
            0,
            0,
            size=len(data),
            sha256=hashlib.sha256(data).hexdigest(),
        )
        for path, data in CONTENT.items()
    ]
    entries = sorted([*directories, *files, pipe], key=lambda entry: entry.path)
    lines = "".join(manifest_lines(entries))
    (tmp_path / "manifest").write_bytes(gzip.compress(lines.encode()))
    receiver = Receiver(tmp_path)
    prepared = receiver.receive("", b"")
    assert prepared.returncode == 0, prepared.stderr
    return receiver


def archive(content: Mapping[str, bytes], kind: bytes = tarfile.REGTYPE) -> bytes:
    written = io.BytesIO()
    with tarfile.open(fileobj=written, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for name, data in content.items():
            member = tarfile.TarInfo(name.lstrip("/"))
            member.type = kind
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
    return written.getvalue()


def test_a_folder_comes_as_an_archive_and_a_file_as_it_is(receiver: Receiver) -> None:
    sent = archive({**CONTENT, "/srv/pipe": b""})
    assert receiver.receive("/srv", sent, is_folder=True).stderr == b""
    assert receiver.files() == CONTENT

    assert receiver.receive("", b"").returncode == 0
    assert receiver.files() == {}
    assert receiver.receive("/srv/a", CONTENT["/srv/a"]).returncode == 0
    assert receiver.files() == {"/srv/a": CONTENT["/srv/a"]}


@pytest.mark.parametrize(
    "content",
    [{"/etc/cron.d/x": b"x"}, {"../../../etc/x": b"x"}, {"/srv/../etc/x": b"x"}, {"/srv/c": b"x"}],
)
def test_what_the_manifest_does_not_name_is_not_written(
    receiver: Receiver, content: dict[str, bytes]
) -> None:
    ended = receiver.receive("/srv", archive(content), is_folder=True)
    assert ended.returncode == 1
    assert b"was sent, but is not wanted" in ended.stderr
    assert receiver.files() == {}


def test_no_file_is_larger_than_the_manifest_says(receiver: Receiver) -> None:
    ended = receiver.receive("/srv/a", b"x" * 2_000_000)
    assert ended.returncode == 1
    assert b"larger than the manifest says" in ended.stderr


def test_links_and_devices_of_an_archive_are_not_made(receiver: Receiver) -> None:
    for kind in (tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.FIFOTYPE):
        sent = archive({"/srv/a": b""}, kind)
        assert receiver.receive("/srv", sent, is_folder=True).returncode == 0
    assert list(receiver.place.iterdir()) == []


def test_an_archive_that_is_cut_short_is_a_failure(receiver: Receiver) -> None:
    ended = receiver.receive("/srv", archive(CONTENT)[:2000], is_folder=True)
    assert ended.returncode == 1


def test_without_room_nothing_is_received(receiver: Receiver) -> None:
    ended = receiver.receive("", b"", size=1 << 60)
    assert ended.returncode == 1
    assert b"are needed" in ended.stderr


def test_the_command_fits_into_one_argument() -> None:
    """sshd hands it to a shell as one."""
    wanted = {"path": "/" + "'" * 4095, "manifest": "m" * 200, "place": "p" * 200}
    command = ("python3", "-I", "-c", script_source("receive_files"), json.dumps(wanted))
    assert len(shlex.join(command)) < LONGEST_ARGUMENT - 1000


def test_what_an_earlier_worker_still_sends_goes_nowhere(
    receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It stood still while a successor began anew."""
    monkeypatch.chdir("/")
    given = {"place": str(receiver.place), "manifest": str(receiver.directory / "manifest")}
    earlier = receive_files.Receiver({**given, "path": "/srv"})
    assert receiver.receive("", b"").returncode == 0

    with pytest.raises(FileNotFoundError):
        earlier.take_file("/srv/a", io.BytesIO(CONTENT["/srv/a"]))
    assert receiver.files() == {}
