"""`make demo`: has the images, starts a service of its own, runs the demo, and ends it all."""

from __future__ import annotations

import os
import shlex
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

from rich.console import Console
from rich.text import Text

from managed.domain.errors import ManagedError
from managed.domain.text import without_controls
from managed.drivers.local_ports import port_is_free
from managed.lab.demo import SERVER_NAME, STEPS, Demo
from managed.lab.demo_helpdesk import demo_helpdesk
from managed.lab.demo_images import build_missing_images
from managed.lab.demo_report import DemoReport
from managed.lab.demo_service import DemoService, clean_up
from managed.lab.demo_settings import demo_settings
from managed.lab.demo_signals import interruptible
from managed.lab.disk_space import require_disk_space
from managed.lab.locks import only_holder
from managed.lab.ports import free_port
from managed.lab.service import service_url
from managed.settings import Settings

HELD, FAILED, INTERRUPTED = 0, 1, 130

Say = Callable[[str], None]


def run_demo(settings: Settings, console: Console, *, keep: bool) -> int:
    """Run the demo in the state folder's demo/, with no other installation's database or bucket.

    Exit status: HELD only when every step did, INTERRUPTED by Ctrl-C, TERM or a closed terminal.
    Cleans up in any case; with `keep` not when every step held. Conflict when another demo runs.
    """
    own = demo_settings(settings)
    own = own.model_copy(update={"listen_port": _own_port(own)})
    say = _teller(console)
    with _only_demo(settings):
        report = DemoReport.begin(settings.state / "demo" / "report.json", STEPS)
        kept, status = False, FAILED
        try:
            with interruptible(), demo_helpdesk() as helpdesk:
                clean_up(own, say)
                require_disk_space(settings.state)
                build_missing_images(settings, say)
                service = DemoService(helpdesk.known_to(own), say)
                service.start()
                demo = Demo(service.client(), helpdesk, report, console)
                demo.run()
                kept, status = keep, HELD
        except KeyboardInterrupt:
            status = INTERRUPTED
            say("interrupted")
        except ManagedError as error:
            say(f"{error.message}  {error.hint}".rstrip())
        finally:
            if not kept:
                say("cleaning up")
                clean_up(own, say)
        if kept:
            say(how_to_look(own, demo.site_url, is_sudo="SUDO_USER" in os.environ))
        with suppress(OSError):
            report.show(console)
        say(f"report: {report.path}")
    return status


def end_demo(settings: Settings, say: Say) -> None:
    """End what a demo has left up; Conflict while one is at work."""
    with _only_demo(settings):
        clean_up(demo_settings(settings), say)


def how_to_look(own: Settings, site_url: str, *, is_sudo: bool) -> str:
    """Lines to copy, each complete: with sudo, a variable that is exported does not get through."""
    command = shlex.join(
        (
            *(("sudo",) if is_sudo else ()),
            "env",
            f"MANAGED_STATE_DIR={own.state}",
            f"MANAGED_IMAGES_DIR={own.images}",
            f"MANAGED_LISTEN_PORT={own.listen_port}",
            ".venv/bin/managed",
        )
    )
    return (
        f"\nService and server are still up. To look at them:\n"
        f"  {command} servers list\n"
        f"  {command} jobs list\n"
        f"  {command} lab ssh {SERVER_NAME}\n"
        f"  {site_url}   (the server's web site)\n"
        f"  {service_url(own)}/docs   (token: {own.api_token})\n"
        f"To end them: make demo-down"
    )


@contextmanager
def _only_demo(settings: Settings) -> Iterator[None]:
    with only_holder(
        settings.state / "demo" / "lock",
        f"a demo is at work in {settings.state / 'demo'}",
        hint="Wait for its end, or end it with Ctrl-C where it runs.",
    ):
        yield


def _teller(console: Console) -> Say:
    """Prints lines; a terminal that is gone must not keep us from cleaning up."""

    def say(line: str) -> None:
        with suppress(OSError):
            console.print(Text(without_controls(line)), soft_wrap=True)

    return say


def _own_port(settings: Settings) -> int:
    """Another service may be up on the port that is set; the demo starts its own all the same."""
    port = settings.listen_port
    return port if port_is_free(port, settings.listen_address) else free_port()
