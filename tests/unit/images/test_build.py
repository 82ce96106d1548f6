"""Commands, versions, and errors of a build."""

from pathlib import Path

import pytest

from images.bootstrap import Bootstrap, bootstrap_command, squashfs_command
from images.errors import ImageError, MirrorUnreachable
from images.prerequisites import require_space, require_tools
from images.process import failure, run
from images.restic import apt_options, parsed_version
from images.sources import AptSources
from managed.domain.errors import MissingRequirement

SOURCES = AptSources("http://m.example/debian", "http://s.example/sec", "http://127.0.0.1:3142")


def test_a_root_comes_from_main_alone_through_the_proxy() -> None:
    argv = bootstrap_command(
        Bootstrap("bookworm", ("sudo", "curl")), SOURCES, Path("/w/root"), None
    )
    assert "--include=sudo,curl" in argv
    assert '--aptopt=Acquire::http::Proxy "http://127.0.0.1:3142"' in argv
    assert argv[-3:] == ("bookworm", "/w/root", SOURCES.main_line("bookworm"))
    assert not any("security" in word or "updates" in word for word in argv)


def test_packing_keeps_extended_attributes() -> None:
    argv = squashfs_command(Path("/r"), Path("/o"), ("-comp", "lz4"), ("boot",))
    assert "-xattrs" in argv
    assert argv[-2:] == ("-e", "boot")


def test_the_private_apt_touches_its_own_directory_alone() -> None:
    options = apt_options(Path("/w"), None)
    assert "Dir::State::Lists=/w/lists" in options
    assert "Dir::Etc::SourceParts=/dev/null" in options
    assert not any("Proxy" in word for word in options)


def test_restics_version_is_read() -> None:
    assert parsed_version("restic 0.18.0 compiled with go1.24") == (0, 18, 0)
    with pytest.raises(ImageError):
        parsed_version("command not found")


def test_a_failed_download_is_the_mirrors_fault_and_may_be_retried() -> None:
    error = failure("mmdebstrap", "installing", 1, "E: Failed to fetch http://m.example/x  timeout")
    assert isinstance(error, MirrorUnreachable)
    assert error.retryable
    assert isinstance(failure("mksquashfs", "packing", 1, "FATAL ERROR"), ImageError)


def test_a_program_that_fails_is_reported_with_its_last_words() -> None:
    lines: list[str] = []
    with pytest.raises(ImageError, match="status 3: last words"):
        run(("sh", "-c", "echo first; echo last words >&2; exit 3"), "testing", lines.append)
    with pytest.raises(ImageError, match="does not have the program"):
        run(("no-such-program",), "testing", lines.append)


def test_missing_tools_are_named_with_their_packages() -> None:
    require_tools({"sh": "dash"})
    with pytest.raises(MissingRequirement, match="no-such-tool") as raised:
        require_tools({"no-such-tool": "its-package", "sh": "dash"})
    assert raised.value.hint == "Run: apt-get install its-package"


def test_missing_space_is_seen_before_the_build(tmp_path: Path) -> None:
    require_space(tmp_path, 1)
    with pytest.raises(MissingRequirement, match="MiB free"):
        require_space(tmp_path, 10**9)
