"""Which Debian mirror a build uses."""

import pytest

from images.errors import ImageError
from images.sources import (
    AptSources,
    FoundMirrors,
    is_web_address,
    mirrors_of_index_targets,
    mirrors_of_sources_list,
    proxy_of_shell_line,
    resolve_sources,
)


def test_mirrors_come_from_the_debian_entries_of_the_hosts_apt() -> None:
    text = (
        "Elsewhere|Debian|https://third.example/debian/\n"
        "Debian|Debian|http://mirror.example/debian/\n"
        "Debian|Debian|http://second.example/debian/\n"
        "Debian|Debian-Security|http://mirror.example/debian-security/\n"
    )
    assert mirrors_of_index_targets(text) == FoundMirrors(
        "http://mirror.example/debian", "http://mirror.example/debian-security"
    )


@pytest.mark.parametrize(
    "line",
    [
        "Ubuntu|Ubuntu|http://mirror.example/ubuntu/",
        "Debian|Debian|mirror+file:///etc/apt/mirrors/debian.list",
        "Debian|Debian|cdrom://disc/",
        "||http://mirror.example/debian/",
        "",
    ],
)
def test_what_is_no_debian_mirror_on_the_web_is_passed_over(line: str) -> None:
    assert mirrors_of_index_targets(line) == FoundMirrors()


def test_mirrors_come_from_what_mmdebstrap_wrote() -> None:
    text = (
        "I: some message\n"
        "deb [signed-by=/keyring.gpg] http://mirror.example/debian trixie main\n"
        "deb http://mirror.example/debian trixie-updates main\n"
        "deb http://security.example/debian-security/ trixie-security main\n"
    )
    assert mirrors_of_sources_list(text) == FoundMirrors(
        "http://mirror.example/debian", "http://security.example/debian-security"
    )


def test_settings_go_before_the_host() -> None:
    lines: list[str] = []
    sources = resolve_sources(
        "http://mine.example/debian/", "http://mine.example/sec/", "http://p.example", lines.append
    )
    assert sources == AptSources(
        "http://mine.example/debian", "http://mine.example/sec", "http://p.example"
    )


@pytest.mark.parametrize(
    "address",
    ["ftp://mirror.example", "mirror.example", "http://", 'http://a.example/" ; rm', "http://a b"],
)
def test_a_setting_that_is_no_web_address_is_refused(address: str) -> None:
    assert not is_web_address(address)
    with pytest.raises(ImageError, match="must be an http or https address"):
        AptSources(address, "http://s.example")


def test_the_source_line_names_debians_keyring_and_main_alone() -> None:
    line = AptSources("http://m.example/debian", "http://s.example").main_line("bookworm")
    assert line == (
        "deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] "
        "http://m.example/debian bookworm main"
    )


@pytest.mark.parametrize(
    ("printed", "proxy"),
    [
        ("proxy='http://127.0.0.1:3142/'\n", "http://127.0.0.1:3142"),
        ("proxy='DIRECT'", None),
        ("", None),
    ],
)
def test_the_hosts_proxy(printed: str, proxy: str | None) -> None:
    assert proxy_of_shell_line(printed) == proxy
