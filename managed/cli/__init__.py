"""The command line: `managed …`. Talks to the service over HTTP; `lab`, `cells`, `images` and
`doctor` work on this machine. What only they need is imported when they run, because it takes
seconds and a command that only asks the service should not.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from typing import Annotated, NoReturn

import typer
from rich.console import Console
from rich.text import Text
from typer.exceptions import Abort, TyperException

from managed.cli import (
    access,
    bulk,
    cells,
    changes,
    control_plane,
    enrolment,
    images,
    jobs,
    lab,
    nodes,
    notifications,
    planning,
    production,
    requests,
    rescues,
    restores,
    servers,
    service,
    snapshots,
)
from managed.cli.connection import because
from managed.cli.output import plain
from managed.domain.errors import InvalidInput, ManagedError, Unavailable

REFUSED, USAGE, UNAVAILABLE, INTERRUPTED = 1, 2, 3, 130

app = typer.Typer(
    name="managed",
    help="Patches, hardens, backs up, rescues and restores the servers of managed-VPS plans.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog="Every command takes --json. Exit status: 0 done, 1 refused or failed, 2 misused, "
    "3 the service does not answer, 130 interrupted.",
)


@app.callback()
def common(
    reason: Annotated[
        str,
        typer.Option(envvar="MANAGED_REASON", help="Why, for the audit log: a ticket's number."),
    ] = "",
) -> None:
    because(reason)


service.add_to(app)
restores.add_to(servers.app, snapshots.app)
control_plane.add_to(app)
production.add_to(app)
changes.add_to(servers.app, planning.customers, planning.plans, planning.windows)
jobs.app.command("submit-many")(bulk.submit_many)
servers.app.command("enrol-csv")(enrolment.enrol_csv)
for name, commands in (
    ("servers", servers.app),
    ("jobs", jobs.app),
    ("snapshots", snapshots.app),
    ("rescues", rescues.app),
    ("customers", planning.customers),
    ("plans", planning.plans),
    ("windows", planning.windows),
    ("pause", planning.pause),
    ("nodes", nodes.app),
    ("users", access.users),
    ("tokens", access.tokens),
    ("audit", access.audit),
    ("notifications", notifications.app),
    ("requests", requests.app),
    ("lab", lab.app),
    ("cells", cells.app),
    ("images", images.app),
):
    app.add_typer(commands, name=name)


def main() -> NoReturn:
    """The entry point of the program."""
    sys.exit(run(sys.argv[1:]))


def run(arguments: Sequence[str]) -> int:
    """One command; returns its exit status. Errors are one sentence and what to do about it."""
    try:
        status = app(args=list(arguments), prog_name="managed", standalone_mode=False)
    except ManagedError as error:
        _show(error, as_json="--json" in arguments)
        return UNAVAILABLE if isinstance(error, Unavailable) else REFUSED
    except TyperException as error:
        _show_misuse(error, as_json="--json" in arguments)
        return USAGE
    except (Abort, KeyboardInterrupt):
        Console(stderr=True).print("interrupted")
        return INTERRUPTED
    return status if isinstance(status, int) else 0


def _show(error: ManagedError, *, as_json: bool) -> None:
    if as_json:
        sys.stderr.write(json.dumps({"error": error.as_json()}) + "\n")
        return
    console = Console(stderr=True)
    console.print(Text("error:", "bold red"), plain(error.message), soft_wrap=True)
    if error.hint:
        console.print(plain(error.hint, "dim"), soft_wrap=True)
    if log := error.details.get("log"):
        console.print(plain(log, "dim"), soft_wrap=True)


def _show_misuse(error: TyperException, *, as_json: bool) -> None:
    """A wrong option or argument; nothing to say where only the help was shown."""
    message = str(getattr(error, "format_message", lambda: error)())
    if message:
        _show(InvalidInput(message, hint="See: managed --help"), as_json=as_json)
