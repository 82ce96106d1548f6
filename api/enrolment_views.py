"""Answers about servers that are taken under management by a table."""

from __future__ import annotations

from api import enrolment_examples as examples
from api.views import View, shown_as
from managed.domain.enrolment import EnrolmentRow, RowProblem
from managed.domain.servers import Server


class RowProblemView(View):
    """What is wrong at a line; `column` is empty where the line as a whole is meant."""

    model_config = shown_as(examples.ROW_PROBLEM)
    line: int
    column: str
    message: str

    @classmethod
    def of(cls, problem: RowProblem) -> RowProblemView:
        return cls(line=problem.line, column=problem.column, message=problem.message)


class EnrolledRowView(View):
    """A server of the table. In a dry run it has neither an id nor a key yet."""

    model_config = shown_as(examples.ENROLLED_ROW)
    line: int
    name: str
    address: str
    ssh_port: int
    ssh_user: str
    server_id: str | None
    authorized_keys_line: str | None

    @classmethod
    def planned(cls, row: EnrolmentRow) -> EnrolledRowView:
        return cls(
            line=row.line,
            name=row.name,
            address=row.address,
            ssh_port=row.ssh_port,
            ssh_user=row.ssh_user,
            server_id=None,
            authorized_keys_line=None,
        )

    @classmethod
    def stored(cls, row: EnrolmentRow, server: Server, public_key: str) -> EnrolledRowView:
        given = cls.planned(row).model_dump()
        made = {
            "server_id": server.server_id,
            "authorized_keys_line": f"{public_key} managed",
        }
        return cls(**{**given, **made})


class EnrolledTableView(View):
    """The rows that are good, in the order of the table. Of a dry run also what is wrong with
    others; without one a single problem refuses all of it.
    """

    model_config = shown_as(examples.ENROLLED_TABLE)
    dry_run: bool
    items: list[EnrolledRowView]
    problems: list[RowProblemView]
