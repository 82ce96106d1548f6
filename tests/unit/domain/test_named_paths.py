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
        ('"/srv/My Documents/a.txt" please', ("/srv/My Documents/a.txt",)),
        ("'/srv/My Documents' und `/srv/b c`", ("/srv/My Documents", "/srv/b c")),
        (
            "“/srv/b c”, \u2018/srv/d e\u2019, «/srv/f g» und \u201a/srv/h i\u2018",
            ("/srv/b c", "/srv/d e", "/srv/f g", "/srv/h i"),
        ),
        ("/srv/x as it was, /srv/y from yesterday", ("/srv/x", "/srv/y")),
        (
            "/srv/x 2026-11-23 18:00, /srv/y 18:00, /srv/z 23.11. 18 Uhr, /srv/t 20/11/2026",
            ("/srv/x", "/srv/y", "/srv/z", "/srv/t"),
        ),
        (
            "/srv/x November 20, /srv/y 20 November, /srv/z Monday, /srv/t 18 Uhr",
            ("/srv/x", "/srv/y", "/srv/z", "/srv/t"),
        ),
        ("/srv/x Stand gestern. Bitte /srv/y vom Freitag wiederherstellen", ("/srv/x", "/srv/y")),
        ("/srv/x and let me know. See https://example.org/a and www.example.org/b", ("/srv/x",)),
        ("/srv/x - thanks", ("/srv/x",)),
        ("/srv/x (it was my shop)", ("/srv/x",)),
        ("/srv/x\n/srv/y\n\nAnna Shop Ltd, IT/Sales", ("/srv/x", "/srv/y")),
        ("we need PHP 8.2/8.3, it is 24/7 and/or TCP/IP, HTTP/1.1 for /srv/x", ("/srv/x",)),
        ("the /srv/new folder, /srv/Shop and let us know", ("/srv/new", "/srv/Shop")),
        ("/srv/x is gone, /srv/y vanished and /srv/z fehlt", ("/srv/x", "/srv/y", "/srv/z")),
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
        ("/etc/\ufffd", "/etc/\ufffd"),
        ("/etc/…", "/etc/…"),
        ("/etc/cut sho…", "/etc/cut sho…"),
        ("/srv/foo...", "/srv/foo..."),
        ("/srv/My Documents", "/srv/My Documents"),
        ("/srv/My Documents/a.txt", "/srv/My Documents/a.txt"),
        ("/srv/My\nDocuments/a.txt", "/srv/My Documents/a.txt"),
        ("/srv/my documents", "/srv/my documents"),
        ("/srv/my old things/a.txt", "/srv/my old"),
        ("/srv/New Folder", "/srv/New Folder"),
        ("/srv/Neuer Ordner", "/srv/Neuer Ordner"),
        ("/srv/New folder", "/srv/New folder"),
        ("/srv/New folder/a.txt", "/srv/New folder/a.txt"),
        ("/srv/Old files", "/srv/Old files"),
        ("/srv/Back up", "/srv/Back up"),
        ("/srv/All my files", "/srv/All my"),
        ("/srv/Anna and friends", "/srv/Anna and friends"),
        ("/srv/report (1).pdf", "/srv/report (1).pdf"),
        ("/srv/report (copy)", "/srv/report (copy)"),
        ("/srv/report 2", "/srv/report 2"),
        ("/srv/report 2.pdf", "/srv/report 2.pdf"),
        ("/srv/a - B/c.txt", "/srv/a - B/c.txt"),
        ("/srv/Terms and Conditions", "/srv/Terms and Conditions"),
        ("/srv/Kraut & Rüben", "/srv/Kraut & Rüben"),
        ("/srv/x and data/y", "data/y"),
        ("uploads/2026 in /srv/x", "uploads/2026"),
        ("/srv/x from host:/etc", "host:/etc"),
        ("/srv/x and ~/www", "~/www"),
        ('/srv/x "b c"', '/srv/x "b'),
    ],
)
def test_an_odd_path_is_not_cut_down_to_a_larger_folder(text: str, odd: str) -> None:
    found = named_paths(f"restore {text} please")
    assert odd in found.odd
    assert not [path for path in found.paths if odd.startswith(path)]


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
