"""Times in texts, on the clock of a zone, from when the text was written (a Tuesday, 10:30)."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from managed.domain.named_times import NamedTime, named_times

BERLIN = "Europe/Berlin"
WRITTEN = datetime(2026, 11, 24, 9, 30, tzinfo=UTC)


def utc(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


def read(text: str) -> tuple[NamedTime, ...]:
    """The moments, where nothing is left that was not understood."""
    found = named_times(text, WRITTEN, BERLIN)
    assert found.unread == ()
    return found.times


@pytest.mark.parametrize(
    ("text", "at"),
    [
        ("as of yesterday 18:00", "2026-11-23 17:00"),
        ("as of yesterday at 6pm", "2026-11-23 17:00"),
        ("as of yesterday at 6:15 p.m.", "2026-11-23 17:15"),
        ("as of yesterday, 12 am", "2026-11-22 23:00"),
        ("at 18:00 yesterday", "2026-11-23 17:00"),
        ("gestern um 18 Uhr", "2026-11-23 17:00"),
        ("gestern 18.30 Uhr", "2026-11-23 17:30"),
        ("um 18 Uhr gestern", "2026-11-23 17:00"),
        ("vorgestern um 7 Uhr", "2026-11-22 06:00"),
        ("the day before yesterday at 07:00", "2026-11-22 06:00"),
        ("2026-11-23 14:00", "2026-11-23 13:00"),
        ("2026-11-23T14:00", "2026-11-23 13:00"),
        ("on 2026-11-23 at 14:00", "2026-11-23 13:00"),
        ("vom 23.11.2026 um 14 Uhr", "2026-11-23 13:00"),
        ("vom 23. 11. 2026, 14:00 Uhr", "2026-11-23 13:00"),
        ("am 23.11. um 14 Uhr", "2026-11-23 13:00"),
        ("am 24.12. um 14 Uhr", "2025-12-24 13:00"),
        ("today at 8:00", "2026-11-24 07:00"),
        ("heute um 8 Uhr", "2026-11-24 07:00"),
        ("on Monday at 9 am", "2026-11-23 08:00"),
        ("am Montag um 9 Uhr", "2026-11-23 08:00"),
        ("on Tuesday at 9:00", "2026-11-17 08:00"),
        ("2 hours ago", "2026-11-24 07:30"),
        ("vor zwei Stunden", "2026-11-24 07:30"),
        ("an hour ago", "2026-11-24 08:30"),
        ("vor 5 Minuten", "2026-11-24 09:25"),
        ("on 2026-07-01 at 14:00", "2026-07-01 12:00"),
        ("2026-11-23T14:00:30", "2026-11-23 13:00:30"),
        ("on 2026/11/23 at 14:00", "2026-11-23 13:00"),
        ("on 20 November 2026 at 18:00", "2026-11-20 17:00"),
        ("on 20 November, 6 pm", "2026-11-20 17:00"),
        ("on the 20th of November 18:00", "2026-11-20 17:00"),
        ("on November 20 at 18:00", "2026-11-20 17:00"),
        ("on November 20th, 2026, 6:00 PM", "2026-11-20 17:00"),
        ("on Nov. 20, 2026 18:00", "2026-11-20 17:00"),
        ("18:00 on Nov 20", "2026-11-20 17:00"),
        ("at 6pm on the 20th of Nov", "2026-11-20 17:00"),
        ("on 1st March 2026 at 18:00", "2026-03-01 17:00"),
        ("on 3 May at 18:00", "2026-05-03 16:00"),
        ("on December 24 at 18:00", "2025-12-24 17:00"),
        ("on 29 February at 18:00", "2024-02-29 17:00"),
        ("on 20-Nov-2026 at 18:00", "2026-11-20 17:00"),
        ("on Friday, 20 November at 18:00", "2026-11-20 17:00"),
        ("on Fri, 20 Nov 2026 18:00", "2026-11-20 17:00"),
        ("vom 20. November 2026, 18 Uhr", "2026-11-20 17:00"),
        ("am 20. Nov. um 18 Uhr", "2026-11-20 17:00"),
        ("am Freitag, den 20. November um 18:00 Uhr", "2026-11-20 17:00"),
        ("am Fr., 20.11. um 18 Uhr", "2026-11-20 17:00"),
        ("vom 5. März 2026 um 18 Uhr", "2026-03-05 17:00"),
        ("vom 24. Dezember um 18 Uhr", "2025-12-24 17:00"),
        ("on 20/11/2026 at 18:00", "2026-11-20 17:00"),
        ("on 11/20/2026 at 18:00", "2026-11-20 17:00"),
        ("on 05/05/2026 at 18:00", "2026-05-05 16:00"),
        ("on 20-11-2026 at 18:00", "2026-11-20 17:00"),
        ("gestern Abend um 20 Uhr", "2026-11-23 19:00"),
        ("yesterday evening at 8 pm", "2026-11-23 19:00"),
        ("yesterday morning, 8:00", "2026-11-23 07:00"),
        ("two days ago at 18:00", "2026-11-22 17:00"),
        ("vor zwei Tagen um 18 Uhr", "2026-11-22 17:00"),
        ("um 18 Uhr vor zwei Tagen", "2026-11-22 17:00"),
        ("ten minutes ago", "2026-11-24 09:20"),
        ("yesterday\n18:00", "2026-11-23 17:00"),
    ],
)
def test_a_time_is_read_on_the_wall_clock(text: str, at: str) -> None:
    (found,) = read(f"Please restore /var/www as it was {text}, thank you")
    assert found.at == utc(at)
    assert found.words in text


@pytest.mark.parametrize(
    ("text", "at"),
    [
        ("as it was yesterday", "2026-11-23 22:59:59"),
        ("Stand gestern", "2026-11-23 22:59:59"),
        ("from 3 days ago", "2026-11-21 22:59:59"),
        ("of the day before yesterday", "2026-11-22 22:59:59"),
        ("as of day before yesterday", "2026-11-22 22:59:59"),
        ("von vor einer Woche", "2026-11-17 22:59:59"),
        ("as it was yesterday 3 files were there", "2026-11-23 22:59:59"),
        ("the state of today", "2026-11-24 09:30"),
        ("it was deleted yesterday", "2026-11-22 23:00"),
        ("gestern gelöscht", "2026-11-22 23:00"),
        ("it is broken since 2026-11-23", "2026-11-22 23:00"),
        ("as of Monday, before the update", "2026-11-22 23:00"),
        ("on Monday 3 new files were there", "2026-11-23 22:59:59"),
        ("am Montag waren zwei Ordner da", "2026-11-23 22:59:59"),
        ("the folders of yesterday:\n1. /srv/a\n2. /srv/b", "2026-11-23 22:59:59"),
        ("two of the folders of yesterday, the big one from yesterday", "2026-11-23 22:59:59"),
        ("yesterday my two colleagues looked at it", "2026-11-23 22:59:59"),
        ("den Stand von gestern nach /srv/y", "2026-11-23 22:59:59"),
        ("since the day before yesterday", "2026-11-21 23:00"),
        ("as it was yesterday\n\n12 Main Street\nBerlin", "2026-11-23 22:59:59"),
        ("as it was on 20 November 2026", "2026-11-20 22:59:59"),
        ("as of November 20", "2026-11-20 22:59:59"),
        ("as of Nov. 20", "2026-11-20 22:59:59"),
        ("vom 20. November", "2026-11-20 22:59:59"),
        ("vom 20.11. bitte", "2026-11-20 22:59:59"),
        ("as of 20/11/2026.", "2026-11-20 22:59:59"),
        ("as of 11/20/2026", "2026-11-20 22:59:59"),
        ("on 20 November my shop was hacked", "2026-11-19 23:00"),
        ("I removed /srv/x. Please take the state of yesterday", "2026-11-23 22:59:59"),
        ("the folder /srv/broken as it was yesterday", "2026-11-23 22:59:59"),
    ],
)
def test_a_day_alone_is_its_end_and_its_beginning_where_something_was_lost(
    text: str, at: str
) -> None:
    (found,) = read(text)
    assert found.at == utc(at)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        # What is to come, and what never was.
        ("as of 2099-01-01 10:00", "2099-01-01 10:00"),
        ("as of 1 December 2026", "1 December 2026"),
        ("vom 24.12.2026", "24.12.2026"),
        ("as of today at 23:00", "today at 23:00"),
        ("heute um 23 Uhr", "heute um 23 Uhr"),
        ("tomorrow at 18:00", "tomorrow"),
        ("morgen um 18 Uhr", "morgen"),
        ("next Friday", "next Friday"),
        ("nächsten Freitag", "nächsten Freitag"),
        ("2026-13-45", "2026-13-45"),
        ("as of 31.02.2026", "31.02.2026"),
        ("vom 31.02.", "31.02."),
        ("as of 31 February 2026", "31 February 2026"),
        ("0001-01-01 00:00", "0001-01-01 00:00"),
        ("9999-12-31", "9999-12-31"),
        ("2026-03-29 02:30", "2026-03-29 02:30"),
        ("on Monday, 20 November 2026", "Monday, 20 November 2026"),
        ("yesterday 25:00", "yesterday"),
        # Numbers that may be read in two ways.
        ("as of 05/11/2026", "05/11/2026"),
        ("as of 5-11-2026 18:00", "5-11-2026 18:00"),
        ("as of 20/11/26", "20/11/26"),
        ("as of 20.11.26", "20.11.26"),
        ("as of 20/11", "20/11"),
        ("as of 11/20", "11/20"),
        ("as of 11.20.2026", "11.20.2026"),
        ("am 20.11 um 18 Uhr", "am 20.11"),
        ("vom 8.2", "vom 8.2"),
        ("it was 20.11 I think", "20.11"),
        ("we run Foo 8.2. Please", "8.2."),
        ("as of 20261120", "20261120"),
        ("as of 2026.11.20", "2026.11.20"),
        ("the dump shop_2026-11-20.sql", "2026-11-20"),
        # Parts of a date.
        ("as of November 2026", "November 2026"),
        ("from November", "November"),
        ("aus dem Oktober", "Oktober"),
        ("im Mai", "Mai"),
        ("in May", "in May"),
        ("in 2025", "in 2025"),
        ("from 2026-11", "2026-11"),
        ("as of 20 11 2026", "2026"),
        ("as of XX.11.2026", "2026"),
        ("as of 2026 November 20", "2026"),
        ("20 Novemeber 2026", "Novemeber"),
        ("20 Nov '26", "'26"),
        ("vom 20.11.'26", "'26"),
        ("aus KW 47", "KW 47"),
        ("from 11/2026", "11/2026"),
        ("from the 20th", "the 20th"),
        ("vom 20.", "vom 20."),
        ("on 27 or 28 November 2025", "27 or 28 November 2025"),
        ("28./29. Oktober", "Oktober"),
        ("28.-29.10.2026", "29.10.2026"),
        ("from last Friday", "last Friday"),
        ("letzten Freitag", "letzten Freitag"),
        ("every Friday", "every Friday"),
        ("on Fri", "on Fri"),
        ("seit Freitagabend", "Freitagabend"),
        ("Friday evening", "Friday evening"),
        ("yesterday noon", "yesterday noon"),
        ("gestern mittag", "gestern mittag"),
        ("gestern zur Mittagszeit", "Mittagszeit"),
        ("yesterday @6pm", "6pm"),
        ("heute früh", "heute früh"),
        ("heute Morgen", "heute Morgen"),
        ("heute Nacht", "heute Nacht"),
        ("yesterday morning at 6 pm", "yesterday morning at 6 pm"),
        ("earlier today", "earlier today"),
        ("early yesterday", "early yesterday"),
        ("gestern 18.", "gestern 18"),
        ("2026-11-20 1800", "2026-11-20 1800"),
        ("20 November between 18 and 19", "20 November between 18"),
        ("yesterday after lunch", "lunch"),
        ("yesterday EOD", "EOD"),
        ("the 0300 backup", "0300 backup"),
        ("yesteday's state", "yesteday"),
        ("der gestrige Stand", "gestrige"),
        # Clocks.
        ("at 6pm", "at 6pm"),
        ("as it was at 18:00", "at 18:00"),
        ("call 18:00", "18:00"),
        ("um 18 Uhr", "um 18 Uhr"),
        ("um sechs", "um sechs"),
        ("at 6", "at 6"),
        ("yesterday at 6", "yesterday at 6"),
        ("gestern um 6", "gestern um 6"),
        ("half past six", "half past"),
        ("6 o'clock", "6 o'clock"),
        ("18h30", "18h30"),
        ("yesterday 18:00 UTC", "yesterday 18:00 UTC"),
        ("2026-11-23T14:00Z", "2026-11-23T14:00Z"),
        ("2026-11-23 14:00+01:00", "2026-11-23 14:00+01:00"),
        ("yesterday between 10:00 and 12:00", "10:00"),
        ("2 hours ago at 6 pm", "2 hours ago at 6 pm"),
        # Words.
        ("this morning", "this morning"),
        ("noon", "noon"),
        ("mittags", "mittags"),
        ("in der Früh", "in der Früh"),
        ("last night's backup", "last night"),
        ("last month", "last month"),
        ("letzte Woche", "letzte Woche"),
        ("letztes Jahr", "letztes Jahr"),
        ("vorige Woche", "vorige Woche"),
        ("the weekend", "weekend"),
        ("before the weekend", "weekend"),
        ("a month ago", "ago"),
        ("a few days ago", "few days ago"),
        ("half an hour ago", "half an hour ago"),
        ("1.5 hours ago", "hours ago"),
        ("two or three days ago", "two or three days ago"),
        ("an hour and 20 minutes ago", "and 20 minutes ago"),
        ("vor einem Monat", "vor einem Monat"),
        ("vor ein paar Tagen", "vor ein paar Tagen"),
        ("vor dreizehn Tagen", "vor dreizehn Tagen"),
        ("two days before yesterday", "two days"),
        ("kürzlich", "kürzlich"),
        ("over Christmas", "Christmas"),
        # A time, perhaps, but nobody named it for this.
        ("On Mon, 23 Nov 2026 at 18:00 Support wrote:\nhello", "On Mon, 23 Nov 2026"),
        ("Gesendet: Montag, 23. November 2026 18:00\nhello", "Gesendet: Montag, 23. November"),
        # Where no other time is named.
        ("as it was before the update", "before the update"),
        ("der Stand von vor dem Update", "vor dem Update"),
        ("bevor ich es gelöscht habe", "bevor ich"),
        ("the previous version", "previous version"),
        ("eine ältere Version", "ältere Version"),
        ("as of D-2", "as of D-2"),
        ("dated 1795132800", "dated 1795132800"),
        ("Stand irgendwann", "Stand irgendwann"),
        ("back to 20 noviembre", "noviembre"),
        ("back to 20 11", "to 20"),
        ("when it still worked", "when it still"),
        ("als es noch ging", "als es"),
        ("the point in time 1800", "point in time"),
    ],
)
def test_what_looks_like_a_time_and_is_not_plain_is_unread(text: str, words: str) -> None:
    found = named_times(text, WRITTEN, BERLIN)
    assert any(words in unread for unread in found.unread), found


@pytest.mark.parametrize(
    ("text", "words"),
    [
        # Before it.
        ("Stand vom vorletzten Montag", "vorletzten Montag"),
        ("vorvorigen Montag", "vorvorigen Montag"),
        ("as it was before yesterday", "before yesterday"),
        ("the state from before Monday", "before Monday"),
        ("before 20 November 18:00", "before 20 November 18:00"),
        ("vor dem 20.11.", "vor dem 20.11."),
        ("vor Montag", "vor Montag"),
        ("prior to 20 November", "prior to 20 November"),
        ("the previous Monday", "previous Monday"),
        ("penultimate Friday", "penultimate Friday"),
        ("first Monday", "first Monday"),
        ("the second Friday", "second Friday"),
        ("am ersten Montag", "ersten Montag"),
        ("the 2nd Monday", "2nd Monday"),
        ("from the day after 20 November 2026", "after 20 November 2026"),
        ("the day before 20 November", "before 20 November"),
        ("shortly before yesterday 18:00", "before yesterday 18:00"),
        ("shortly after 18:00 yesterday", "after 18:00 yesterday"),
        ("kurz vor gestern 18 Uhr", "vor gestern 18 Uhr"),
        ("kurz nach 18 Uhr gestern", "nach 18 Uhr gestern"),
        ("after 20 November", "after 20 November"),
        ("nach dem 20.11.2026", "nach dem 20.11.2026"),
        ("until 20 November", "until 20 November"),
        ("bis gestern", "bis gestern"),
        ("older than yesterday", "than yesterday"),
        ("älter als gestern", "älter als gestern"),
        ("not from yesterday", "not from yesterday"),
        ("around 20 November", "around 20 November"),
        ("the end of yesterday", "end of yesterday"),
        ("five thirty yesterday", "five thirty yesterday"),
        ("halb sechs gestern", "halb sechs gestern"),
        ("vom vorvergangenen Freitag", "vorvergangenen Freitag"),
        ("the second-last Friday", "second-last Friday"),
        ("übernächsten Freitag", "übernächsten Freitag"),
        ("late on 20 November", "late on 20 November"),
        ("up to 20 November", "up to 20 November"),
        ("the working day before yesterday", "working day before yesterday"),
        # Behind it.
        ("Friday last", "Friday last"),
        ("yesterday's previous version", "yesterday's previous"),
        ("20 November plus one", "20 November plus"),
        ("Montag (16.)", "Montag (16."),
        ("Monday - 16", "Monday - 16"),
        ("Sonntag den 15ten", "Sonntag den 15ten"),
        ("yesterday 6ish", "yesterday 6ish"),
        ("yesterday @ 6", "yesterday @ 6"),
        ("yesterday: six thirty", "yesterday: six thirty"),
        ("yesterday one", "yesterday one"),
        ("gestern einundzwanzig dreißig", "gestern einundzwanzig dreißig"),
        ("yesterday 18:00 in New York", "yesterday 18:00 in New York"),
        ("from Monday before last", "Monday before last"),
        ("the Friday\nbefore last", "Friday\nbefore last"),
        ("the Friday before the update", "Friday before the update"),
        ("Friday 18:00 before the update", "Friday 18:00 before the update"),
        ("yesterday before it was hacked", "yesterday before it"),
        ("gestern vor dem Update", "gestern vor dem Update"),
        ("gestern nach dem Update", "gestern nach dem Update"),
        ("yesterday 18:00 or earlier", "yesterday 18:00 or"),
        ("Montag davor", "Montag davor"),
        ("am 20.11., danach", "20.11., danach"),
        ("Montag der Vorwoche", "Montag der Vorwoche"),
        ("vom 20. November des Vorjahres", "20. November des Vorjahres"),
        ("to 20 November, the year before", "20 November, the year before"),
        ("20 November of the previous year", "20 November of the previous"),
        ("20. November vorletzten Jahres", "20. November vorletzten"),
        ("am Freitag den 13.", "Freitag den 13."),
        ("Friday 13th", "Friday 13th"),
        ("Monday 16 please", "Monday 16"),
        ("yesterday 5 please", "yesterday 5"),
        ("gestern 18 Uhr 30", "gestern 18 Uhr 30"),
        ("2026-11-23T14:00:30.123Z", "2026-11-23T14:00:30.1"),
        ("2026-11-23T14 please", "2026-11-23T14"),
        ("yesterday 18:00 (UTC)", "yesterday 18:00 (UTC"),
        ("yesterday 18:00 JST", "yesterday 18:00 JST"),
        ("yesterday 18:00 London time", "yesterday 18:00 London time"),
        ("wie gestern halb sechs", "gestern halb sechs"),
        ("as of yesterday around six", "yesterday around six"),
        ("yesterday five thirty", "yesterday five"),
        ("yesterday\nsix-thirty", "yesterday\nsix"),
        ("yesterday, perhaps at about six", "six"),
        ("gestern achtzehn dreißig", "gestern achtzehn"),
        ("yesterday one thirty", "yesterday one thirty"),
        # Beside no time that is read.
        ("vor 3 Nächten", "vor 3 Nächten"),
        ("three nights back", "three nights"),
        ("a fortnight back", "fortnight back"),
        ("a day back", "day back"),
        ("zwanzig Tage her", "zwanzig Tage"),
        ("vom Vortag", "Vortag"),
        ("the week before", "week before"),
        ("das vorletzte Backup", "vorletzte Backup"),
        ("the penultimate backup", "penultimate backup"),
        ("around six", "around six"),
        ("Sat 28", "Sat 28"),
        ("Fri, 20th", "Fri, 20"),
        ("Sa. 28.", "Sa. 28"),
    ],
)
def test_words_beside_a_time_that_change_it_make_it_unread(text: str, words: str) -> None:
    found = named_times(f"Please restore /srv/x {text}", WRITTEN, BERLIN)
    assert found.times == ()
    assert any(words in unread for unread in found.unread), found


@pytest.mark.parametrize(
    "text",
    [
        "as of yesterday 18:00, before it was hacked",
        "as of yesterday 18:00 before it was hacked",
        "as of around 18:00 yesterday",
        "von gestern 18 Uhr, bevor alles weg war",
        "yesterday 18:00 for two users",
        "yesterday 18:00, the one with 3 files",
        "the two folders from yesterday 18:00",
        "gestern 18 Uhr nach /srv/y",
        "den Ordner von gestern 18 Uhr, vielen Dank im Voraus",
    ],
)
def test_words_beside_a_time_that_leave_it_as_it_is_keep_it_plain(text: str) -> None:
    (found,) = read(f"Please restore /srv/x {text}")
    assert found.at == utc("2026-11-23 17:00")


@pytest.mark.parametrize(
    "text",
    [
        "version 1.2.3 on port 8080",
        "PHP 8.2.1, PHP 8.2.10 and php 8.2. Then MariaDB 10.11.6 and nginx/1.22.1",
        "MariaDB from 10.6 to 10.11, PHP from 8.1 to 8.3, updated to 8.3",
        "Debian 12.10, Ubuntu 22.04 LTS, kernel 6.1.0-28-amd64, v20.11.1, Node 20.11",
        "10.11.12.13 and 192.168.20.11:8080 and 2001:db8::10:20 and 00:16:3e:12:34:56",
        "/srv/backup-2026-11-20/x and /srv/2026-11-20 and /var/log/20.11.2026.log",
        "\"/srv/my backup of 20 November/18:00\" and '/srv/last night'",
        "https://example.org/2026/11/20/18:00 and www.example.org/20-11-2026",
        "[Ticket#2026112010000012] and ticket 10081 and order 2026-4711, CVE-2026-1120",
        "It costs 20.11 €, EUR 20.11, $11.20 or 11,20 and needs 20.11 GB or 11.10 %",
        "Tel. +49 30 20112026 and 030/201126, fax 030 20-11-26, (0171) 11 20 26",
        "24/7, 1/2 of it, and/or, office hours: Mon-Fri 9:00-17:00, Mo-Fr 9-17 Uhr",
        "We pay 12 EUR per month, 144 pro Jahr. \u00a9 2026 Shop Ltd",
        "Good morning! Guten Morgen, guten Abend, schönes Wochenende, have a nice weekend",
        "the last backup, das letzte Backup, the newest backup, aus der letzten Sicherung",
        "Es geht um 3 Ordner, at least 5 files may be broken, you may march on",
        "as soon as possible, so früh wie möglich, at once, at the moment",
        "In the second folder, the 3 files of 18 users",
        "So 28 files, about two customers, we sat with ten colleagues, first of all thanks",
        "Do 3 things, one per night, sechs Ordner nach /srv/y",
    ],
)
def test_what_is_no_time_is_not_taken_for_one(text: str) -> None:
    found = named_times(text, WRITTEN, BERLIN)
    assert (found.times, found.unread, found.later) == ((), (), ())


@pytest.mark.parametrize(
    ("text", "may_be_later"),
    [
        ("tomorrow at 5", True),
        ("morgen um 5", True),
        ("at 18:00", True),
        ("tonight", True),
        ("heute Nacht", True),
        ("on Monday at 9:00", True),
        ("am 24.12. um 9 Uhr", True),
        ("on 24 December", True),
        ("next week", True),
        ("in 2 hours", True),
        ("in zwei Stunden", True),
        ("later", True),
        ("im Wartungsfenster", True),
        ("on 2026-12-24", True),
        ("today", False),
        ("yesterday 18:00", False),
        ("gestern mittag", False),
        ("2 hours ago", False),
        ("on 2026-11-20", False),
        ("last month", False),
        ("a month ago", False),
        ("before the update", False),
    ],
)
def test_what_may_be_meant_for_later_is_known(text: str, may_be_later: bool) -> None:
    assert bool(named_times(text, WRITTEN, BERLIN).later) == may_be_later


def test_times_are_each_found_once() -> None:
    text = "yesterday 10:00, gestern 10 Uhr, or 2026-11-22 12:00"
    found = [named.at for named in read(text)]
    assert found == [utc("2026-11-23 09:00"), utc("2026-11-22 11:00")]


def test_the_hour_that_comes_twice_is_the_first() -> None:
    """Clocks go back on 25 October; the hour that is skipped on 29 March is no time."""
    (fold,) = read("2026-10-25 02:30")
    assert fold.at == utc("2026-10-25 00:30")


def test_the_zone_counts() -> None:
    (found,) = named_times("yesterday 18:00", WRITTEN, "America/New_York").times
    assert found.at == utc("2026-11-23 23:00")


@given(st.text(alphabet="0123456789.:- TZamgestrnvoyUhu\n", max_size=200))
def test_no_text_is_an_error_and_no_time_is_in_the_future(text: str) -> None:
    for named in named_times(text, WRITTEN, BERLIN).times:
        assert named.at <= WRITTEN
