"""What strangers wrote becomes plain text: bounded, visible, and read in one pass."""

from __future__ import annotations

import pytest

from managed.domain.plain_text import LONGEST_TEXT, one_line, plain_text, sentences, visible


@pytest.mark.parametrize(
    ("html", "text"),
    [
        ("<p>one</p><p>two</p>", "one\n\ntwo"),
        ("one<br>two<br/>three", "one\ntwo\nthree"),
        ("<b>bo</b>ld &amp; &lt;small&gt; &#65;&#x42; &nbsp;x", "bold & <small> AB  x"),
        ("a\n   b\tc", "a b c"),
        ("<SCRIPT>x</SCRIPT >after", "after"),
        ("<script>never closed", ""),
        ("<style><p>x</p></style>y", "y"),
        ("<script>if (a < b) '</p>'</script>z", "z"),
        ("<title>t</title><body>b", "b"),
        ("<!-- <p>x</p> -->y<!-- never closed", "y"),
        ("<!DOCTYPE html><?xml?>x", "x"),
        ("<blockquote>old <blockquote>older</blockquote> old</blockquote>new", "new"),
        ('<div style="display: none">hidden<div>too</div></div>seen', "seen"),
        ("<span hidden>hidden</span>seen", "seen"),
        ('<p class="x" hidden>hidden</p>seen', "seen"),
        ('<img style="display:none">seen', "seen"),
        ('<p style="overflow: hidden" class="a hidden b">seen</p>', "seen"),
        ("1 < 2 and 3 > 2", "1 < 2 and 3 > 2"),
        ("</p></b>x", "x"),
        ("<a href=\"javascript:x\" title='y'>link</a>", "link"),
        ("&lt;script&gt;shown, not run&lt;/script&gt;", "<script>shown, not run</script>"),
        ("", ""),
    ],
)
def test_html_is_read_as_a_person_sees_it(html: str, text: str) -> None:
    assert plain_text(html, is_html=True) == text


def test_plain_text_keeps_its_signs_and_loses_its_quotes() -> None:
    text = "see <b>\n> what you wrote\n > and before\nmine"
    assert plain_text(text, is_html=False) == "see <b>\nmine"


@pytest.mark.parametrize(
    ("given", "seen"),
    [
        ("a\u202eb\u2066c\u200bd\ufeffe", "abcde"),
        ("a\x00b\x1b[31mc\x7f", "a\ufffdb\ufffd[31mc\ufffd"),
        ("a\ud800b\ue000c\u0378", "a\ufffdb\ufffdc\ufffd"),
        ("f\x81r", "f\ufffdr"),
        ("a\r\nb\u00a0c\u2003d\te", "a\nb c d e"),
        ("e\u0301", "é"),
        ("soft\u00adhyphen", "softhyphen"),
    ],
)
def test_nothing_invisible_is_left(given: str, seen: str) -> None:
    assert visible(given) == seen


@pytest.mark.parametrize(
    ("text", "pieces"),
    [
        ("It is lost. Help! Please?", ["It is lost.", " Help!", " Please?", ""]),
        ("one\ntwo", ["one\n", "two"]),
        ("on Nov. 28 at 6 p.m. please", ["on Nov. 28 at 6 p.m. please"]),
        ("am 28. November. Danke", ["am 28. November.", " Danke"]),
    ],
)
def test_sentences_end_where_one_would_stop(text: str, pieces: list[str]) -> None:
    assert sentences(text) == pieces


def test_text_has_an_end() -> None:
    text = plain_text("x" * 300_000, is_html=False)
    assert len(text) == LONGEST_TEXT
    assert text.endswith("…")
    assert one_line("a\nb  c" * 100, 10) == "a b ca b …"
    assert one_line("a" + " " * 100 + "b", 10) == "a…", "that there is more is said"


@pytest.mark.timeout(20)
def test_a_run_of_combining_marks_takes_no_longer_than_other_text() -> None:
    """To compose all of it takes minutes."""
    run = "a" + "\u0301\u0316" * 262_144
    assert len(one_line(run, 300)) == 300
    assert plain_text(run, is_html=False).endswith("…")


@pytest.mark.timeout(20)
@pytest.mark.parametrize(
    "piece",
    ["<", "<a ", '<a href="', "<a b=", "<!--", "</", "&", "&#", "<![CDATA[", "<script>", "<div>"],
)
def test_malformed_html_takes_no_longer_than_other(piece: str) -> None:
    """html.parser needs minutes for some of these."""
    plain_text(piece * (262_144 // len(piece)), is_html=True)


def test_a_character_reference_without_end_is_no_error() -> None:
    assert plain_text("a&#" + "9" * 100_000 + ";b", is_html=True) == "a\N{REPLACEMENT CHARACTER}b"
