"""Requests made from the OpenAPI document by schemathesis, right ones and wrong: no defect, and
no answer that the document does not promise. `MANAGED_FUZZ_EXAMPLES` makes more of them.
"""

from __future__ import annotations

import os
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from datetime import timedelta
from http import HTTPStatus
from pathlib import Path
from typing import Any, Final

import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st
from pydantic import SecretStr
from schemathesis.checks import not_a_server_error
from schemathesis.core.failures import FailureGroup
from schemathesis.generation import GenerationMode
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
)
from sqlalchemy import Engine

from api.app import create_app
from managed.domain.access import Role, User
from managed.domain.customers import Customer, Plan, PlanKind
from managed.domain.jobs import JobKind
from managed.domain.servers import Server
from managed.domain.tokens import ApiToken, new_token
from managed.settings import Settings
from managed.storage.database import open_database, writing
from managed.wiring import open_installation, prepare_installation, utc_now
from tests.integration.api.conftest import ApiBench
from tests.support.postgres import empty

pytestmark = pytest.mark.integration

# Moments as the document has them, and those that the calendar cannot move to another zone.
schemathesis.openapi.format(
    "date-time",
    st.datetimes(timezones=st.timezones()).map(lambda moment: moment.isoformat())
    | st.sampled_from(["0001-01-01T00:00:00+14:00", "9999-12-31T23:59:59-14:00"]),
)

EXAMPLES: Final = int(os.environ.get("MANAGED_FUZZ_EXAMPLES", "12"))
SHOWN_KEY: Final = (
    "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIOLsP3DKpnFPzgtSiF2ZzwRrQuxZYFulbI3xVos5kyxR"
)


def no_defect(context: Any, response: Any, case: Any) -> bool | None:
    """503 is an honest answer here: there are no bucket, broker, gateway and helpdesk."""
    if response.status_code == HTTPStatus.SERVICE_UNAVAILABLE:
        return None
    found: bool | None = not_a_server_error(context, response, case)
    return found


CHECKS: Final = [
    no_defect,
    status_code_conformance,
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
]


@dataclass
class Fuzzed:
    """An API over PostgreSQL with an admin's token. What leads out of this machine, the look at
    a stranger's host key and the look at a node, is a stand-in.
    """

    bench: ApiBench
    headers: dict[str, str]

    def there(self, name: str) -> str:
        """Something for a parameter of paths that is there, made anew when it has gone."""
        makers: dict[str, Callable[[], str]] = {
            "server": self.server,
            "job_id": self.job,
            "customer": self.customer,
            "plan": self.plan,
            "node_id": lambda: "local",
            "user": lambda: "joe@example.org",
            "request_id": lambda: self.bench.add_request(self.quiet),
            "snapshot_id": self.snapshot,
            "target_id": lambda: str(uuid.uuid4()),
            "window_id": lambda: str(uuid.uuid4()),
            "session_id": lambda: str(uuid.uuid4()),
            "token_id": lambda: self.headers["Authorization"][len("Bearer mgd_") :][:12],
        }
        return makers[name]()

    def server(self) -> str:
        found = self.bench.installation.inventory.named("shop") or self.bench.add_server("shop")
        return found.server_id

    def job(self) -> str:
        ended = self.bench.installation.queue.find(server_id=self.ended_on)
        return ended[0].job_id

    def snapshot(self) -> str:
        found = self.bench.installation.catalogue.of_server(self.ended_on)
        return found[0].snapshot_id

    @property
    def quiet(self) -> Server:
        found = self.bench.installation.inventory.named("quiet")
        if found is None:
            found = self.bench.add_server("quiet")
            self.bench.end_job(self.bench.add_job(found, JobKind.CHECK))
            self.bench.add_snapshot(found, utc_now(), verified=True)
        return found

    @property
    def ended_on(self) -> str:
        return self.quiet.server_id

    def customer(self) -> str:
        customers = self.bench.installation.customers
        if customers.named("Anna") is None:
            with writing(self.bench.installation.database) as connection:
                anna = Customer(str(uuid.uuid4()), "Anna", "anna@example.org")
                customers.add(connection, anna, utc_now())
        return "Anna"

    def plan(self) -> str:
        customers = self.bench.installation.customers
        if all(plan.name != "plus" for plan in customers.plans()):
            with writing(self.bench.installation.database) as connection:
                plus = Plan(str(uuid.uuid4()), "plus", PlanKind.MANAGED)
                customers.add_plan(connection, plus, utc_now())
        return "plus"


def admin_token(bench: ApiBench) -> str:
    joe = User(str(uuid.uuid4()), "joe@example.org", "Joe", Role.ADMIN, None, utc_now())
    token_id, text = new_token()
    now = utc_now()
    token = ApiToken(token_id, joe.user_id, "of a test", now, now + timedelta(days=1))
    with writing(bench.installation.database) as connection:
        bench.installation.access.add_user(connection, joe)
        bench.installation.access.add_token(connection, token, text)
    return text.reveal()


@pytest.fixture
def emptied(postgres_url: str) -> Iterator[Engine]:
    engine = open_database(postgres_url)
    empty(engine)
    yield engine
    engine.dispose()


@pytest.fixture
def fuzzed(tmp_path: Path, postgres_url: str, emptied: Engine) -> Iterator[Fuzzed]:
    chosen = Settings(
        state_dir=tmp_path / "state",
        runtime_dir=tmp_path / "run",
        database_url=postgres_url,
        zammad_webhook_secret=SecretStr("a secret of the tests"),
    )
    chosen.state.mkdir()
    prepare_installation(chosen)
    installation = open_installation(chosen)
    sent: list[str] = []
    app = create_app(installation, sent.append)
    app.state.services = replace(
        app.state.services,
        shown_host_key=lambda _address, _port: SHOWN_KEY,
        check_node=lambda _node: None,
    )
    bench = ApiBench(installation, app, chosen.api_token.read_text().strip(), sent)
    bench.add_node()
    yield Fuzzed(bench, {"Authorization": f"Bearer {admin_token(bench)}"})
    installation.database.dispose()


def test_every_answer_is_as_the_document_says(fuzzed: Fuzzed) -> None:
    document = schemathesis.openapi.from_asgi("/openapi.json", fuzzed.bench.app)
    wrong: dict[str, str] = {}
    for found in document.get_all_operations():
        operation = found.ok()
        cases = st.one_of(operation.as_strategy(generation_mode=mode) for mode in GenerationMode)
        try:
            _ask(cases, fuzzed)
        except (FailureGroup, ExceptionGroup) as error:
            wrong[operation.label] = "\n".join(map(str, error.exceptions))
    assert not wrong, "\n\n".join(f"== {label}\n{what}" for label, what in wrong.items())


def _ask(cases: st.SearchStrategy[schemathesis.Case], fuzzed: Fuzzed) -> None:
    """Each as it was made, and, where its address names something, of what is there."""

    @seed(20261125)
    @settings(
        max_examples=EXAMPLES,
        deadline=None,
        database=None,
        phases=[Phase.explicit, Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(case=cases)
    def ask(case: schemathesis.Case) -> None:
        case.call_and_validate(headers=fuzzed.headers, checks=CHECKS)
        if case.path_parameters:
            case.path_parameters = {name: fuzzed.there(name) for name in case.path_parameters}
            case.call_and_validate(headers=fuzzed.headers, checks=CHECKS)

    ask()
