"""The walk that manifests are made of, on real files."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import pytest

from managed.domain.manifests import EntryKind, ManifestEntry, manifest_lines, parsed_manifest
from managed.server_scripts._files import Excludes, HashOnce, TreeScan, bytes_of, sha256_of
from managed.server_scripts._hashing import is_emulated


def entries(root: Path, excludes: tuple[str, ...] = ()) -> dict[str, ManifestEntry]:
    scan = TreeScan(bytes(root), ["/"], Excludes(excludes), lambda path, _: sha256_of(path))
    found = [scanned.entry for scanned in scan.files()]
    assert list(parsed_manifest(manifest_lines(found))) == found
    return {entry.path: entry for entry in found}


def test_a_file_is_described_as_it_is(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_bytes(b"content")
    file.chmod(0o640)
    os.utime(file, ns=(1, 981_173_106_123_456_789))
    os.setxattr(file, "user.note", b"\x00\xff")
    entry = entries(tmp_path)["/file"]

    assert entry.kind is EntryKind.FILE
    assert (entry.mode, entry.uid, entry.gid) == (0o640, os.getuid(), os.getgid())
    assert (entry.size, entry.mtime_ns) == (7, 981_173_106_123_456_789)
    assert entry.sha256 == hashlib.sha256(b"content").hexdigest()
    assert entry.xattrs == (("user.note", "00ff"),)


def test_links_pipes_and_odd_names_are_described(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("a")
    (tmp_path / "z").hardlink_to(tmp_path / "a")
    (tmp_path / "link").symlink_to("nowhere")
    os.link(tmp_path / "link", tmp_path / "second", follow_symlinks=False)
    os.mkfifo(tmp_path / "pipe")
    odd = b"new\nline-\xe9"
    (tmp_path / os.fsdecode(odd)).write_text("odd")
    found = entries(tmp_path)

    assert (found["/a"].hard_link, found["/z"].hard_link) == ("", "/a")
    assert (found["/link"].hard_link, found["/second"].hard_link) == ("", "")
    assert (found["/link"].kind, found["/link"].target) == (EntryKind.SYMLINK, "nowhere")
    assert found["/pipe"].kind is EntryKind.FIFO
    assert b"/" + odd in {bytes_of(path) for path in found}


def test_excludes_mean_what_restic_means(tmp_path: Path) -> None:
    for name in ("tmp/a/b", "cache/x.deb", "cache/x.txt", "cache/sub/y.deb", "tmpfile"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("")
    found = entries(tmp_path, ("/tmp/*", "/cache/*.deb"))

    assert set(found) == {"/", "/tmp", "/cache", "/cache/x.txt", "/cache/sub", "/tmpfile"} | {
        "/cache/sub/y.deb"
    }


@pytest.mark.parametrize("pattern", ["tmp", "/a/**", "/a[b]", "/a\\*"])
def test_patterns_that_restic_reads_otherwise_are_refused(pattern: str) -> None:
    with pytest.raises(ValueError, match="pattern"):
        Excludes((pattern,))


def test_a_hash_is_kept_until_the_inode_changes(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_text("one")
    hashes = HashOnce()
    first = hashes(bytes(file), file.stat())
    hashes.known = {inode: (change, "kept") for inode, (change, _) in hashes.known.items()}

    assert first == hashlib.sha256(b"one").hexdigest()
    assert hashes(bytes(file), file.stat()) == "kept"
    before = file.stat()
    while file.stat().st_ctime_ns == before.st_ctime_ns:
        file.write_text("two")
    os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert hashes(bytes(file), file.stat()) == hashlib.sha256(b"two").hexdigest()


def test_an_unreadable_file_has_no_hash(tmp_path: Path) -> None:
    assert sha256_of(bytes(tmp_path / "absent")) == ""
    (tmp_path / "link").symlink_to("/etc/hostname")
    assert sha256_of(bytes(tmp_path / "link")) == ""


def test_emulated_processors_are_recognised() -> None:
    assert is_emulated("model name\t: QEMU TCG CPU version 2.5+\n")
    assert not is_emulated("model name\t: AMD EPYC Processor\n")
