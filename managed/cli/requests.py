"""`managed requests`: what tickets ask for, and the decision on it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

import typer

from managed.cli.connection import client
from managed.cli.names import Names
from managed.cli.output import (
    AsJson,
    Cursor,
    Limit,
    Titled,
    console,
    moment,
    plain,
    print_fields,
    print_json,
    print_table,
)
from managed.domain.errors import InvalidInput

app = typer.Typer(help="What tickets ask for: look, approve, refuse.", no_args_is_help=True)

RequestId = Annotated[str, typer.Argument(metavar="REQUEST", help="The request's id.")]


@app.command("list")
def list_requests(
    status: Annotated[
        str | None, typer.Option(help="open, approved, refused, done, failed.")
    ] = None,
    server: Annotated[str | None, typer.Option(help="Only this server's.")] = None,
    customer: Annotated[str | None, typer.Option(help="Only this customer's.")] = None,
    limit: Limit = 20,
    cursor: Cursor = None,
    as_json: AsJson = False,
) -> None:
    """List requests, newest first."""
    page = client().get(
        "/v1/requests",
        status=status,
        server=server,
        customer=customer,
        limit=limit,
        cursor=cursor,
    )
    if as_json:
        print_json(page)
        return
    print_table(
        ("request", "status, proposed", "asked"),
        (
            (
                Titled(f"{one['ticket_number']}: {one['title']}", one["id"]),
                (one["status"], one["proposal"]["kind"]),
                (moment(one["created_at"]), f"by {one['sender']}"),
            )
            for one in page["items"]
        ),
        "There are no such requests.",
        following=page["next"],
    )


@app.command()
def show(request: RequestId, as_json: AsJson = False) -> None:
    """Show a request: the ticket's text, what is proposed, why, and what became of it."""
    service = client()
    found = service.get(f"/v1/requests/{request}")
    if as_json:
        print_json(found)
        return
    decision = found["decision"] or {}
    print_fields(
        {
            "request": found["id"],
            "status": found["status"],
            "ticket": f"{found['ticket_number']}: {found['title']}",
            "sender": found["sender"],
            "server": Names(service).server(found["server_id"]),
            "proposed": _action(found["proposal"]),
            "why": found["why"],
            "decided by": decision.get("by"),
            "action": _action(decision["action"]) if decision.get("action") else None,
            "reason": decision.get("reason"),
            "job": found["job_id"],
            "answer": _answer(found["reply"]),
        }
    )
    for writer, text in _said(found):
        console().print(plain(f"\n{writer}:", "dim"), soft_wrap=True)
        console().print(plain(text), soft_wrap=True)


@app.command()
def approve(
    request: RequestId,
    action: Annotated[
        str | None,
        typer.Option(help="Another one: restore-files, restore-server, rescue or patch."),
    ] = None,
    path: Annotated[
        list[str] | None, typer.Option(help="What restore-files restores; may be given again.")
    ] = None,
    as_of: Annotated[
        str | None, typer.Option(help="A restore's time, such as 2026-11-23T14:00:00+01:00.")
    ] = None,
    server: Annotated[str | None, typer.Option(help="Another server of the sender's.")] = None,
    as_json: AsJson = False,
) -> None:
    """Have it carried out, as proposed or otherwise. The sender is told of the end."""
    if action is None and (path or as_of):
        raise InvalidInput(
            "--path and --as-of belong to another action than the proposed one",
            hint="Give --action, too.",
        )
    body: dict[str, Any] = {"server": server}
    if action is not None:
        body["action"] = {"kind": action, "paths": path or [], "as_of": as_of}
    approved = client().post(f"/v1/requests/{request}/approve", body)
    _say(approved, f"Approved: watch it with managed jobs watch {approved['job_id']}", as_json)


@app.command()
def refuse(
    request: RequestId,
    reason: Annotated[str, typer.Argument(help="Why; the sender reads it.")],
    no_answer: Annotated[
        bool, typer.Option("--no-answer", help="Send nothing: it is answered otherwise.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Refuse a request."""
    body = {"reason": reason, "answer": not no_answer}
    _say(client().post(f"/v1/requests/{request}/refuse", body), "Refused.", as_json)


def _said(found: Mapping[str, Any]) -> list[tuple[str, str]]:
    notes = [
        (f"{note['sender']}, {moment(note['written_at'])}", note["text"]) for note in found["notes"]
    ]
    return [(f"{found['sender']}, {moment(found['written_at'])}", found["text"]), *notes]


def _action(action: Mapping[str, Any]) -> str:
    of = f" {' '.join(action['paths'])}" if action["paths"] else ""
    return f"{action['kind']}{of}" + (
        f" as of {moment(action['as_of'])}" if action["as_of"] else ""
    )


def _answer(reply: Mapping[str, Any] | None) -> str:
    if reply is None:
        return ""
    if reply["state"] == "sent":
        return f"sent {moment(reply['sent_at'])}"
    return f"{reply['state']}: {reply['error'] or 'not tried yet'}"


def _say(document: Mapping[str, Any], text: str, as_json: bool) -> None:
    if as_json:
        print_json(document)
    else:
        console().print(plain(text), soft_wrap=True)
