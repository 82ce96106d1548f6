#!/usr/bin/env python3
"""Receive the content of one restored path from the provider, by standard input.

Input (one JSON argument): path (none: only make `place` anew), is_folder (a tar archive of the
folder comes, else the file's content), and manifest, place, size, entries as restore_files.py
takes them. Only files of the manifest are written, none larger than it says, and nothing else:
whoever was root on the server that was backed up has written the archive. Ends with 0 when all of
the input was taken; what is right of it, restore_files.py says.
"""

from __future__ import annotations

import json
import os
import sys
import tarfile
from pathlib import Path
from typing import IO, Any

from managed.domain.manifests import EntryKind
from managed.server_scripts._files import bytes_of
from managed.server_scripts._run import ScriptFailed
from managed.server_scripts._staged_files import WantedFiles, fresh_directory, require_room

CHUNK = 1 << 20
FAILED = 1


class Receiver:
    """Writes content below `place`, which root alone can enter and where no symlink is yet. It
    enters the folder: should a successor make that anew, what still comes here goes nowhere.
    """

    def __init__(self, wanted: dict[str, Any]) -> None:
        os.chdir(wanted["place"])
        files = WantedFiles(wanted["manifest"], [wanted["path"]])
        self.sizes: dict[str, int] = {}
        self.without_content: set[str] = set()
        for entry in files.wanted():
            if entry.kind is EntryKind.FILE:
                self.sizes[entry.path] = entry.size
            else:
                self.without_content.add(entry.path)

    def take_folder(self, source: IO[bytes]) -> None:
        with tarfile.open(
            fileobj=source, mode="r|", encoding="utf-8", errors="surrogateescape"
        ) as archive:
            for member in archive:
                path = "/" + member.name.lstrip("/")
                content = archive.extractfile(member) if member.isreg() else None
                # A pipe comes as an empty file.
                if content is not None and path not in self.without_content:
                    self.take_file(path, content)
        while source.read(CHUNK):
            pass

    def take_file(self, path: str, content: IO[bytes]) -> None:
        if path not in self.sizes:
            raise ScriptFailed(f"{path!r} was sent, but is not wanted")
        target = bytes_of(path.lstrip("/"))
        os.makedirs(os.path.dirname(target) or b".", mode=0o700, exist_ok=True)
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW
        left = self.sizes[path]
        with open(os.open(target, flags, 0o600), "wb") as file:
            while chunk := content.read(CHUNK):
                left -= len(chunk)
                if left < 0:
                    raise ScriptFailed(f"{path!r} is larger than the manifest says")
                file.write(chunk)


def main(wanted: dict[str, Any]) -> None:
    os.umask(0o077)
    if not wanted["path"]:
        fresh_directory(Path(wanted["place"]))
        require_room(wanted["place"], wanted["size"], wanted["entries"])
        return
    receiver = Receiver(wanted)
    if wanted["is_folder"]:
        receiver.take_folder(sys.stdin.buffer)
    else:
        receiver.take_file(wanted["path"], sys.stdin.buffer)


if __name__ == "__main__":
    try:
        main(json.loads(sys.argv[1]))
    except (ScriptFailed, tarfile.TarError, OSError) as error:
        sys.stderr.write(f"{error}\n")
        sys.exit(FAILED)
