"""`managed serve`, `managed demo`, `managed doctor` and `managed openapi`."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated

import typer

from managed.cli.connection import open_client
from managed.cli.output import AsJson, console, print_json, print_table, progress
from managed.settings import settings


def serve(as_json: AsJson = False) -> None:
    """Start the embedded service and stay up: API, worker, clock, S3 and gateway."""
    from managed.lab.service import serve as serve_here
    from managed.logs import configure_logs

    configure_logs(settings())
    out = console()

    def say(line: str) -> None:
        if as_json:
            out.print_json(data={"message": line}, indent=None)
        else:
            out.print(line, markup=False, soft_wrap=True)

    raise typer.Exit(serve_here(settings(), say))


def demo(
    keep: Annotated[
        bool, typer.Option("--keep", help="Leave service and server up at the end.")
    ] = False,
    down: Annotated[
        bool, typer.Option("--down", help="Only end what an earlier demo has left up.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Run the main job on a real VPS: patch, harden, back up, destroy, rescue, restore, prove."""
    from managed.lab.demo_run import end_demo, run_demo

    if down:
        end_demo(settings(), progress(as_json=as_json))
        if as_json:
            print_json({"ok": True})
        return
    status = run_demo(settings(), console(as_json=as_json), keep=keep)
    if as_json:
        print_json({"ok": status == 0, "report": str(settings().state / "demo" / "report.json")})
    raise typer.Exit(status)


def doctor(as_json: AsJson = False) -> None:
    """Check every tool, version and permission that is needed, and say how to mend it."""
    from managed.lab.doctor import Need, examine

    findings = examine(settings())
    wanting = [f for f in findings if not f.is_well and f.need is Need.REQUIRED]
    if as_json:
        print_json(
            {"ok": not wanting, "checks": [asdict(f) | {"status": f.word} for f in findings]}
        )
    else:
        print_table(
            ("status", "check", "found", "how to mend it"),
            ((f.word, f.name, f.found, "" if f.is_well else f.remedy) for f in findings),
            "",
        )
        console().print(
            f"\n[red]Missing: {', '.join(finding.name for finding in wanting)}.[/]"
            if wanting
            else "\n[green]All that is needed is here.[/]"
        )
    if wanting:
        raise typer.Exit(1)


def openapi(as_json: AsJson = True) -> None:
    """Print the OpenAPI document of the service, from which clients in other languages are made.
    It is JSON in any case.
    """
    print_json(open_client().get("/openapi.json"))


def add_to(app: typer.Typer) -> None:
    """Register the commands at the top level."""
    for command in (serve, demo, doctor, openapi):
        app.command()(command)
