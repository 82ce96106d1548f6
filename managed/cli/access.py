"""`managed users`, `managed tokens` and `managed audit`."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from typing import Annotated, Any

import typer

from managed.cli.connection import client
from managed.cli.names import Names
from managed.cli.output import (
    AsJson,
    Cursor,
    Limit,
    console,
    moment,
    plain,
    print_json,
    print_table,
    say,
)
from managed.client import Document, ManagedClient
from managed.domain.audit import AuditEntry, Deed, chain_problem
from managed.domain.errors import EvidenceMissing, InvalidInput

users = typer.Typer(help="Who works here, and customers who look.", no_args_is_help=True)
tokens = typer.Typer(help="What users' programs show.", no_args_is_help=True)
audit = typer.Typer(help="Who did what, when and why.", no_args_is_help=True)

User = Annotated[str, typer.Argument(metavar="USER", help="E-mail address or id.")]


@users.command("add")
def add_user(
    email: Annotated[str, typer.Argument(help="By which they are known here.")],
    name: Annotated[str, typer.Argument(help="A person's name.")],
    role: Annotated[str, typer.Argument(help="customer, support or admin.")],
    customer: Annotated[
        str | None, typer.Option(help="For the role customer: whose servers they see.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Add a user."""
    body = {"email": email, "name": name, "role": role, "customer": customer}
    made = client().post("/v1/users", body)
    say(
        made,
        f"{name} is a user. A token: managed tokens make {made['email']} NAME",
        as_json=as_json,
    )


@users.command("list")
def list_users(
    role: Annotated[str | None, typer.Option(help="Only customer, support or admin.")] = None,
    as_json: AsJson = False,
) -> None:
    """List the users, by e-mail address."""
    service = client()
    found = list(service.items("/v1/users", role=role, limit=200))
    if as_json:
        print_json({"items": found})
        return
    names = Names(service)
    names.learn("customers", (u["customer_id"] for u in found))
    print_table(
        ("email", "name", "role", "customer", "disabled"),
        (
            (
                u["email"],
                u["name"],
                u["role"],
                names.customer(u["customer_id"]),
                moment(u["disabled_at"]),
            )
            for u in found
        ),
        "There are no such users. Add one with: managed users add EMAIL NAME ROLE",
    )


@users.command("disable")
def disable_user(user: User, as_json: AsJson = False) -> None:
    """End all that the user's tokens open, at once."""
    disabled = client().post(f"/v1/users/{user}/disable")
    say(disabled, f"{disabled['email']} can do nothing any more.", as_json=as_json)


@users.command("enable")
def enable_user(user: User, as_json: AsJson = False) -> None:
    """Let the user's tokens open again what they did."""
    enabled = client().post(f"/v1/users/{user}/enable")
    say(enabled, f"{enabled['email']} is a user as before.", as_json=as_json)


@users.command("invite")
def invite_user(user: User, as_json: AsJson = False) -> None:
    """Make the one-time link by which a user sets a password for the panel. It is shown this once;
    give it to nobody else.
    """
    service = client()
    made = service.post(f"/v1/users/{user}/invitation")
    if as_json:
        print_json(made)
        return
    console(as_json=True).print(
        f"It counts once, until {moment(made['expires_at'])}, and is not shown again:"
    )
    url = made["url"] or f"{service.base_url}{made['path']}"
    console().print(plain(url), soft_wrap=True)


@tokens.command("make")
def make_token(
    user: User,
    name: Annotated[str, typer.Argument(help="What it is for.")],
    scope: Annotated[
        list[str] | None, typer.Option(help="Limit it to this permission; can be repeated.")
    ] = None,
    days: Annotated[int, typer.Option(help="How long it counts.")] = 90,
    as_json: AsJson = False,
) -> None:
    """Make a token. It is shown this once: only its hash is kept."""
    body: dict[str, Any] = {"user": user, "name": name, "days": days}
    if scope:
        body["scopes"] = scope
    made = client().post("/v1/tokens", body)
    if as_json:
        print_json(made)
        return
    console(as_json=True).print(
        f"It counts until {moment(made['expires_at'])} and is not shown again:"
    )
    console().print(plain(made["token"]), soft_wrap=True)


@tokens.command("list")
def list_tokens(
    user: User,
    limit: Limit = 20,
    cursor: Cursor = None,
    as_json: AsJson = False,
) -> None:
    """List a user's tokens, newest first; never the tokens themselves."""
    page = client().get("/v1/tokens", user=user, limit=limit, cursor=cursor)
    if as_json:
        print_json(page)
        return
    print_table(
        ("id", "name", "scopes", "until", "last used", "revoked"),
        (
            (
                token["id"],
                token["name"],
                "all of the role" if token["scopes"] is None else ", ".join(token["scopes"]),
                moment(token["expires_at"]),
                moment(token["last_used_at"]),
                moment(token["revoked_at"]),
            )
            for token in page["items"]
        ),
        "This user has no token.",
        following=page["next"],
    )


@tokens.command("revoke")
def revoke_token(
    token: Annotated[str, typer.Argument(metavar="ID", help="The token's id.")],
    as_json: AsJson = False,
) -> None:
    """End a token at once."""
    revoked = client().delete(f"/v1/tokens/{token}")
    say(revoked, f"The token {revoked['name']!r} opens nothing any more.", as_json=as_json)


@audit.command("list")
def list_entries(
    server: Annotated[str | None, typer.Option(help="Only what was done to this server.")] = None,
    actor: Annotated[
        str | None, typer.Option(help="Only what they did; exactly as entries show it.")
    ] = None,
    action: Annotated[
        str | None, typer.Option(help="Only what was done like this, such as submit_job.")
    ] = None,
    since: Annotated[
        str | None, typer.Option(help="Only from this time on, such as 2026-11-24T02:00:00Z.")
    ] = None,
    limit: Limit = 50,
    cursor: Cursor = None,
    as_json: AsJson = False,
) -> None:
    """List who did what, newest first."""
    service = client()
    subject = service.get(f"/v1/servers/{server}")["id"] if server else None
    page = service.get(
        "/v1/audit",
        subject=subject,
        actor=actor,
        action=action,
        since=since,
        limit=limit,
        cursor=cursor,
    )
    if as_json:
        print_json(page)
        return
    names = Names(service)
    print_table(
        ("number", "when", "who", "what", "to", "why"),
        (
            (
                entry["number"],
                moment(entry["at"]),
                entry["actor"],
                entry["action"],
                entry["data"].get("name") or names.subject(entry["subject"]),
                entry["reason"],
            )
            for entry in page["items"]
        ),
        "There are no such entries.",
        following=page["next"],
    )


@audit.command("verify")
def verify(
    expect: Annotated[
        str | None,
        typer.Option(metavar="NUMBER:HASH", help="An entry as it was noted elsewhere before."),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Verify that no entry was changed, left out or cut off, by computing every hash here.

    Note the number and hash that it prints somewhere else, and give them with --expect next time:
    then not even somebody who rewrites the whole log goes unnoticed.
    """
    service = client()
    noted = _noted(expect) if expect else None
    seen = noted is None
    head = service.get("/v1/audit/head")

    def entries() -> Iterator[AuditEntry]:
        nonlocal seen
        for entry in _exported(service):
            seen = seen or (entry.number, entry.hash) == noted
            if entry.number <= head["number"]:
                yield entry

    problem = chain_problem(entries(), (head["number"], head["hash"]))
    if problem is None and not seen:
        problem = f"entry {expect} is not in the log"
    if problem is not None:
        raise EvidenceMissing(
            f"the audit log is not as it was written: {problem}",
            hint="Compare it with a backup of the database (managed restore-self --help).",
        )
    say(
        head,
        f"{head['number']} entries, all as they were written: {head['number']}:{head['hash']}",
        as_json=as_json,
    )


def _exported(service: ManagedClient) -> Iterator[AuditEntry]:
    after: str | None = "0"
    while after is not None:
        page = service.get("/v1/audit/export", after=after)
        yield from map(_entry, page["items"])
        after = page["next"]


def _entry(document: Document) -> AuditEntry:
    deed = Deed(
        at=datetime.fromisoformat(document["at"]),
        actor=document["actor"],
        action=document["action"],
        subject=document["subject"],
        reason=document["reason"],
        data=document["data"],
    )
    return AuditEntry(document["number"], deed, document["previous_hash"], document["hash"])


def _noted(text: str) -> tuple[int, str]:
    number, _, noted_hash = text.partition(":")
    if not number.isdecimal() or len(noted_hash) != 64:
        raise InvalidInput(f"{text!r} is no NUMBER:HASH", hint="`managed audit verify` prints it.")
    return int(number), noted_hash
