"""Paths in texts: taken as they stand or not at all."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from managed.domain.errors import InvalidInput
from managed.domain.named_paths import MOST_PATHS, checked_paths, named_paths, path_refusal


@pytest.mark.parametrize(
    ("text", "paths"),
    [
        ("restore /var/www", ("/var/www",)),
        ("restore /var/www/.", ("/var/www",)),
        ("(/etc/nginx/nginx.conf), please", ("/etc/nginx/nginx.conf",)),
        ("/a,/b;/c and /a/", ("/a", "/b", "/c")),
        ('"/srv/my files/a b"', ("/srv/my files/a b",)),
        ("'/srv/x y' und „/srv/ä ö“", ("/srv/x y", "/srv/ä ö")),
        ("`/etc/hosts`!", ("/etc/hosts",)),
        ("/home/anna/Prüfung_1.pdf", ("/home/anna/Prüfung_1.pdf",)),
        ("/etc/.ssh/..hidden", ("/etc/.ssh/..hidden",)),
        ("and/or, 23/11/2026, https://example.org/x/y, TCP/IP, ../etc, ./x, ~/www", ()),
        ("restore /", ()),
    ],
)
def test_plain_paths_are_found(text: str, paths: tuple[str, ...]) -> None:
    found = named_paths(text)
    assert found.paths == paths
    assert found.odd == ()


@pytest.mark.parametrize(
    ("text", "odd"),
    [
        ("/etc/../root", "/etc/../root"),
        ("/etc/..", "/etc/.."),
        ("/var//www", "/var//www"),
        ("/var/./www", "/var/./www"),
        ("/etc/$(reboot)", "/etc/$(reboot"),
        ("/etc/`id`", "/etc/`id`"),
        ("/etc;reboot", "/etc;reboot"),
        ("/etc|sh", "/etc|sh"),
        ("/etc&&sh", "/etc&&sh"),
        ("/etc/*", "/etc/*"),
        ("/etc/<name>", "/etc/<name"),
        ("/etc/{a,b}", "/etc/{a,b"),
        ("/etc\\x", "/etc\\x"),
        ("/" + "x" * 256, "/" + "x" * 256),
    ],
)
def test_an_odd_path_is_not_cut_down_to_a_larger_folder(text: str, odd: str) -> None:
    found = named_paths(f"restore {text} please")
    assert found.paths == ()
    assert found.odd == (odd,)


@given(st.text(max_size=300))
def test_whatever_is_found_can_be_restored(text: str) -> None:
    for path in named_paths(text).paths:
        assert path_refusal(path) is None


@pytest.mark.parametrize(
    "path",
    [
        "",
        "x",
        "/",
        "//x",
        "/x/",
        "/a/../b",
        "/a/./b",
        "/a\nb",
        "/a\x00",
        "/\u202ea",
        "/" + "a/" * 3000,
    ],
)
def test_paths_that_are_none(path: str) -> None:
    with pytest.raises(InvalidInput):
        checked_paths([path])


def test_each_path_counts_once_and_there_is_a_limit() -> None:
    assert checked_paths(["/b", "/a", "/b"]) == ("/b", "/a")
    assert checked_paths(["/srv/$HOME; rm"]) == ("/srv/$HOME; rm",), "a name may hold anything"
    with pytest.raises(InvalidInput, match="51 paths"):
        checked_paths([f"/{n}" for n in range(MOST_PATHS + 1)])
