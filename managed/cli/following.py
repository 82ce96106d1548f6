"""Following a job to its end on the terminal."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from typing import Any

import typer
from rich.text import Text

from managed.cli.output import console, duration, moment, plain, print_fields, print_table
from managed.client import ManagedClient
from managed.lab.job_display import JobDisplay


def follow(client: ManagedClient, job: Mapping[str, Any], *, as_json: bool, verbose: bool) -> None:
    """Show the job's events until it ends; exit status 1 unless it succeeded.

    As JSON: one event per line, then the job.
    """
    if as_json:
        ended = client.wait_for_job(job["id"], _print_line)
        _print_line({"job": ended})
    else:
        with JobDisplay(console(), f"{job['kind']}", verbose=verbose) as display:
            ended = client.wait_for_job(job["id"], display.show)
        show_end(ended)
    if ended["status"] != "succeeded":
        raise typer.Exit(1)


def show_end(job: Mapping[str, Any]) -> None:
    """One line on how the job ended, with warnings and the error."""
    out = console()
    for warning in job["warnings"]:
        out.print(Text("warning:", "yellow"), plain(warning))
    colour = {"succeeded": "green", "cancelled": "yellow"}.get(job["status"], "red")
    took = duration(job["started_at"] or job["created_at"], job["finished_at"])
    out.print(f"{job['kind']} [{colour}]{job['status']}[/]" + (f" after {took}" if took else ""))
    error = job["error"] or {}
    if error:
        out.print(plain(error.get("detail", ""), "red"))
        if error.get("hint"):
            out.print(plain(error["hint"], "dim"))


def show_job(job: Mapping[str, Any], server: str) -> None:
    """All about one job; `server` is the name of its server."""
    print_fields(
        {
            "job": job["id"],
            "kind": job["kind"],
            "server": server,
            "status": job["status"],
            "ending as": job["ending"],
            "asked by": job["requested_by"],
            "asked for": moment(job["created_at"]),
            "ended": moment(job["finished_at"]),
            "parameters": job["parameters"],
            "at": job["present_step"],
            "waiting for": job["waiting_for"],
            "cancel": job["cancel_requested"],
            "warnings": "; ".join(job["warnings"]),
            "error": (job["error"] or {}).get("detail"),
            "hint": (job["error"] or {}).get("hint"),
        }
    )
    console().print()
    print_table(
        ("step", "status", "attempt", "time"),
        (
            (s["name"], s["status"], s["attempt"], duration(s["started_at"], s["finished_at"]))
            for s in job["steps"]
        ),
        "no step is done yet",
    )


def _print_line(document: Mapping[str, Any]) -> None:
    sys.stdout.write(json.dumps(document) + "\n")
    sys.stdout.flush()
