"""Tables of servers to be enrolled: what is read, and what is wrong where."""

from __future__ import annotations

import pytest

from managed.domain.enrolment import COLUMNS, MOST_ROWS, read_table
from managed.domain.spreadsheets import csv_text

KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIOLsP3DKpnFPzgtSiF2ZzwRrQuxZYFulbI3xVos5kyxR"
HEADER = "name,address,host_key"


def table(*lines: str, end: str = "\n") -> bytes:
    return (end.join(lines) + end).encode()


def wrong(content: bytes) -> list[tuple[int, str]]:
    return [(problem.line, problem.column) for problem in read_table(content).problems]


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize("mark", [b"", b"\xef\xbb\xbf"])
def test_columns_in_any_order_and_what_spreadsheets_write(mark: bytes, end: str) -> None:
    given = table("plan,host_key,name,address", f'plus,"{KEY} root@old",shop,2001:DB8::1', end=end)
    found = read_table(mark + given)
    assert list(found.problems) == []
    (row,) = found.rows
    assert (row.line, row.name, row.address) == (2, "shop", "2001:db8::1")
    assert (row.host_key, row.plan, row.customer) == (KEY, "plus", "")
    assert (row.ssh_port, row.ssh_user) == (22, "root")


def test_every_problem_is_told_by_line_and_column() -> None:
    header = "name,address,host_key,ssh_port,ssh_user,operating_system"
    content = table(
        header,
        f"shop,192.0.2.1,{KEY},22,root,",
        f"Shop!,-oProxy,{KEY}x,65536,Root,{'x' * 101}",
        "",
        f"shop,192.0.2.2,{KEY},,,",
        "short,192.0.2.3",
        f"mail,,{KEY},٣,,",
    )
    assert wrong(content) == [
        (3, "name"),
        (3, "address"),
        (3, "host_key"),
        (3, "ssh_port"),
        (3, "ssh_user"),
        (3, "operating_system"),
        (5, "name"),
        (6, ""),
        (7, "address"),
        (7, "ssh_port"),
    ]
    assert [row.name for row in read_table(content).rows] == ["shop"]


def test_lines_are_those_of_the_file_also_after_cells_of_several() -> None:
    content = table("name,address,host_key,customer", f'a,192.0.2.1,{KEY},"x', 'y"', "!,,,")
    assert wrong(content)[0] == (2, "customer")
    assert wrong(content)[1] == (4, "name")


@pytest.mark.parametrize(
    ("content", "line", "column"),
    [
        (b"", 1, ""),
        (b"\n\n", 1, ""),
        (table(HEADER), 1, ""),
        (table("name,address,host_key,colour", "a,b,c,d"), 1, "colour"),
        (table("name,address", "a,b"), 1, "host_key"),
        (table("name,name,address,host_key", "a,b,c,d"), 1, "name"),
        (table("name;address;host_key", "a;b;c"), 1, ""),
        (table(HEADER, 'shop,"192.0.2.1,x'), 2, ""),
        (table(HEADER) + b"caf\xe9,192.0.2.1,x\n", 2, ""),
    ],
)
def test_what_is_no_table_is_told_where(content: bytes, line: int, column: str) -> None:
    found = read_table(content)
    assert list(found.rows) == []
    assert [(one.line, one.column) for one in found.problems] == [(line, column)]


def test_a_table_has_an_end() -> None:
    rows = [f"s{number},192.0.2.1,{KEY}" for number in range(MOST_ROWS + 1)]
    assert wrong(table(HEADER, *rows[:-1])) == []
    assert wrong(table(HEADER, *rows)) == [(MOST_ROWS + 2, "")]


def test_a_private_key_is_not_repeated() -> None:
    content = table(HEADER, 'shop,192.0.2.1,"-----BEGIN PRIVATE KEY-----\nabcd"')
    (problem,) = read_table(content).problems
    assert problem.column == "host_key"
    assert "abcd" not in problem.message


def test_no_cell_is_a_formula() -> None:
    text = csv_text(("name", *COLUMNS[:1]), [("=cmd|x", "+1"), ("@a", "-b"), ("\tc", "plain")])
    assert text.splitlines()[1:] == ["'=cmd|x,'+1", "'@a,'-b", "'\tc,plain"]
