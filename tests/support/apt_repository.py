"""A small repository of packages, served over HTTP on loopback, to publish new versions in."""

from __future__ import annotations

import hashlib
import os
import subprocess
import tempfile
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from email.utils import formatdate
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path


@dataclass(frozen=True)
class Package:
    """`control` is what its control file says beside name, version and architecture; `postinst` is
    a shell script.
    """

    name: str
    version: str
    control: str = ""
    postinst: str = ""


@dataclass(frozen=True)
class AptRepository:
    """The flat repository below `directory`, at `url`."""

    directory: Path
    url: str

    @property
    def source(self) -> str:
        """Its line for sources.list."""
        return f"deb [trusted=yes] {self.url} ./\n"

    def publish(self, packages: Sequence[Package], suite: str = "") -> None:
        """From now on the repository holds these packages and no others; with a release file if a
        suite is named.
        """
        for old in self.directory.glob("*.deb"):
            old.unlink()
        index = "\n".join(self._built(package) for package in packages)
        self._write("Packages", index)
        if suite:
            digest = hashlib.sha256(index.encode()).hexdigest()
            listed = f"SHA256:\n {digest} {len(index)} Packages\n"
            self._write("Release", f"Suite: {suite}\nDate: {formatdate(usegmt=True)}\n{listed}")

    def _write(self, name: str, text: str) -> None:
        """Apt fetches a file again when it is newer, in whole seconds, than the one it has."""
        path = self.directory / name
        oldest = path.stat().st_mtime + 1 if path.exists() else 0.0
        path.write_text(text)
        written_at = max(path.stat().st_mtime, oldest)
        os.utime(path, (written_at, written_at))

    def _built(self, package: Package) -> str:
        """Builds the package; its paragraph of the index."""
        fields = (
            f"Package: {package.name}\nVersion: {package.version}\nArchitecture: all\n"
            f"Maintainer: test <test@example.org>\n{package.control}Description: test\n"
        )
        name = f"{package.name}_{package.version}.deb"
        with tempfile.TemporaryDirectory() as root:
            scripts = Path(root, "DEBIAN")
            scripts.mkdir()
            Path(root).chmod(0o755)
            (scripts / "control").write_text(fields)
            if package.postinst:
                (scripts / "postinst").write_text(f"#!/bin/sh\nset -e\n{package.postinst}")
                (scripts / "postinst").chmod(0o755)
            build = ("dpkg-deb", "--root-owner-group", "--build", root, self.directory / name)
            subprocess.run(build, check=True, capture_output=True, timeout=60)
        content = (self.directory / name).read_bytes()
        digest = hashlib.sha256(content).hexdigest()
        return f"{fields}Filename: ./{name}\nSize: {len(content)}\nSHA256: {digest}\n"


class _Silent(SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: object) -> None:
        """Requests are nobody's news."""


@contextmanager
def apt_repositories(directory: Path, names: Sequence[str]) -> Iterator[list[AptRepository]]:
    """Empty repositories of these names, served until the block is left."""
    handler = partial(_Silent, directory=str(directory))
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever, name="apt-repositories")
    thread.start()
    try:
        found = []
        for name in names:
            (directory / name).mkdir(parents=True)
            url = f"http://127.0.0.1:{server.server_address[1]}/{name}"
            found.append(AptRepository(directory / name, url))
        yield found
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
