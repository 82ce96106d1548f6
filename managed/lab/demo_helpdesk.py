"""The customer's side of the demo: an account on a managed plan, and a helpdesk to write to.

The helpdesk is a stand-in for Zammad that speaks its documented protocol on loopback.
"""

from __future__ import annotations

import json
import secrets
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, Final

import httpx
from pydantic import SecretStr

from managed.client import ManagedClient
from managed.domain.errors import EvidenceMissing
from managed.lab.helpdesk_stand_in import ZammadStandIn, headers, payload
from managed.settings import Settings

CUSTOMER: Final = {"name": "Bakery Ltd", "email": "anna@example.org"}
PLAN: Final = "managed-plus"
TICKET: Final = "My shop is gone and I need it. Please restore the whole server from the backup."
_TICKET_ID: Final = 81
_SOON: Final = timedelta(seconds=20)
_PATIENCE_SECONDS: Final = 180.0
# Until the window opens, and as long as the survey of an emulated server may take.
_WINDOW_SECONDS: Final = 900.0


@dataclass(frozen=True)
class DemoHelpdesk:
    """Tickets are written into it; what the service answers is found in it."""

    zammad: ZammadStandIn
    secret: str = field(repr=False)

    def known_to(self, settings: Settings) -> Settings:
        """The settings of a service that this helpdesk talks to."""
        return settings.model_copy(
            update={
                "zammad_url": self.zammad.url,
                "zammad_token": SecretStr(self.zammad.token),
                "zammad_webhook_secret": SecretStr(self.secret),
            }
        )

    def write(self, service: str, text: str, server: str) -> dict[str, Any]:
        """A customer's ticket about a server; the service at that address is told of it as Zammad
        tells. Returns what it answered.
        """
        written_at = f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%S.000Z}"
        document = payload(
            text,
            title="Shop is gone",
            sender=CUSTOMER["email"],
            ticket_id=_TICKET_ID,
            server=server,
            written_at=written_at,
        )
        body = json.dumps(document).encode()
        answer = httpx.post(
            f"{service}/v1/webhooks/zammad",
            content=body,
            headers=headers(body, secret=self.secret),
            timeout=30,
            trust_env=False,
        )
        answer.raise_for_status()
        told: dict[str, Any] = answer.json()
        return told

    def answer(self) -> dict[str, Any]:
        """What the service has answered to the ticket; waited for, because its clock sends it."""
        deadline = time.monotonic() + _PATIENCE_SECONDS
        while not (found := self.zammad.of_ticket(_TICKET_ID)):
            if time.monotonic() > deadline:
                raise EvidenceMissing("no answer to the ticket has come back to the helpdesk")
            time.sleep(0.5)
        return found[-1]


@contextmanager
def demo_helpdesk() -> Iterator[DemoHelpdesk]:
    zammad = ZammadStandIn(token=secrets.token_hex(16), tickets={_TICKET_ID})
    with zammad.serving():
        yield DemoHelpdesk(zammad, secrets.token_hex(24))


def make_customers(client: ManagedClient, server_id: str) -> None:
    """Make the server a customer's, on a managed plan."""
    client.post("/v1/customers", CUSTOMER, idempotency_key="demo-customer")
    client.post("/v1/plans", {"name": PLAN}, idempotency_key="demo-plan")
    placement = {"customer": CUSTOMER["name"], "plan": PLAN}
    client.put(f"/v1/servers/{server_id}/placement", placement)


def open_window(client: ManagedClient, job_kind: str) -> dict[str, Any]:
    """A window of the plan that opens at the next full minute, or at the one after that."""
    start = (datetime.now(UTC) + _SOON).replace(second=0, microsecond=0) + timedelta(minutes=1)
    body = {
        "owner": "plan",
        "owner_id": PLAN,
        "job_kind": job_kind,
        "rule": f"FREQ=DAILY;BYHOUR={start.hour};BYMINUTE={start.minute};BYSECOND=0",
        "zone": "UTC",
        "minutes": 240,
    }
    return client.post("/v1/windows", body, idempotency_key=f"demo-window-{job_kind}")


def job_of_the_clock(client: ManagedClient, server_id: str, kind: str) -> dict[str, Any]:
    """The job that the clock starts on the server when the window has opened and a survey has found
    something to do; waited for.
    """
    deadline = time.monotonic() + _WINDOW_SECONDS
    while time.monotonic() < deadline:
        page = client.get("/v1/jobs", server_id=server_id, kind=kind)
        for job in page["items"]:
            return dict(job)
        time.sleep(0.5)
    raise EvidenceMissing(f"the window has opened, and no {kind} job was started")
