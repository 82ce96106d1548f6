"""The panel in a real Chromium: what people do with it, and what the browser has to complain of."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import expect

from managed.client import ManagedClient
from managed.domain.access import User
from managed.domain.jobs import JobKind
from tests.integration.api.conftest import ApiBench
from tests.support.chromium import Watched, chromium
from tests.support.nights import HOSTILE, asked_by_ticket, failed_job, patched, work_on
from tests.support.panel import PASSWORD, add_customer, add_user

pytestmark = pytest.mark.integration

NARROWEST = 360


@pytest.fixture
def kim(bench: ApiBench) -> User:
    return add_user(bench.installation, "Kim")


@pytest.fixture
def window() -> Iterator[Watched]:
    with chromium() as watched:
        yield watched


def sign_in(window: Watched, live: ManagedClient) -> None:
    window.page.goto(f"{live.base_url}/panel")
    window.page.get_by_label("E-mail address").fill("kim@example.org")
    window.page.get_by_label("Password").fill(PASSWORD)
    window.page.get_by_role("button", name="Sign in").click()
    expect(window.page.get_by_role("heading", name="Tonight")).to_be_visible()


def test_from_tonight_to_the_server_to_a_log_that_grows(
    bench: ApiBench, live: ManagedClient, kim: User, window: Watched
) -> None:
    page, installation = window.page, bench.installation
    server = bench.add_server("shop")
    patched(installation, server)
    failed_job(installation, server, f"the disk is full {HOSTILE}")
    sign_in(window, live)
    expect(page.get_by_text(f"the disk is full {HOSTILE}")).to_be_visible()

    # What begins while the page is open appears on it; the focus stays where it was.
    log_link = page.get_by_role("link", name="log", exact=True)
    log_link.focus()
    worker = work_on(installation, server, JobKind.CHECK)
    worker.begin("check")
    expect(page.get_by_role("link", name="live log")).to_be_visible()
    expect(log_link).to_be_focused()

    page.get_by_role("link", name="shop").first.click()
    expect(page.get_by_role("heading", name="shop")).to_be_visible()
    expect(page.get_by_text("unit old.service has failed")).to_be_visible()
    page.get_by_role("link", name="check", exact=True).click()
    log = page.get_by_role("log")
    expect(log).to_contain_text("begins check")
    worker.say("playbook_output", text=f"a new line {HOSTILE}")
    expect(log).to_contain_text(f"a new line {HOSTILE}")
    worker.record("check", {"found": HOSTILE})
    worker.say("job_ended", status="succeeded")
    worker.finish()
    expect(page.locator("#job")).to_contain_text("✓ succeeded")

    page.get_by_text("What it found").click()
    expect(page.locator("pre")).to_contain_text("<script>")
    assert window.complaints == []
    assert {url for url in window.requests if not url.startswith(live.base_url)} == set()


def test_a_log_goes_on_where_it_broke(
    bench: ApiBench, live: ManagedClient, kim: User, window: Watched
) -> None:
    worker = work_on(bench.installation, bench.add_server("shop"), JobKind.CHECK)
    sign_in(window, live)
    window.page.goto(f"{live.base_url}/panel/jobs/{worker.job.job_id}")
    log = window.page.get_by_role("log")
    worker.say("playbook_output", text="before the break")
    expect(log).to_contain_text("before the break")
    window.context.set_offline(True)
    worker.say("playbook_output", text="in the break")
    expect(window.page.get_by_text("gets no news any more")).to_be_visible()
    window.context.set_offline(False)
    worker.say("playbook_output", text="after the break")
    expect(log).to_contain_text("after the break")
    for text in ("before the break", "in the break", "after the break"):
        expect(log.get_by_text(text)).to_have_count(1)
    expect(window.page.get_by_text("gets no news any more")).to_be_hidden()


def test_work_is_confirmed_before_it_is_asked_for(
    bench: ApiBench, live: ManagedClient, kim: User, window: Watched
) -> None:
    page = window.page
    bench.add_server("shop")
    sign_in(window, live)
    page.goto(f"{live.base_url}/panel/servers/shop")
    page.get_by_role("link", name="Reboot").click()
    expect(page.get_by_text("what they have not written to the disk is lost")).to_be_visible()
    page.get_by_role("button", name="Reboot shop").click()
    assert bench.sent == [], "a reboot needs a reason"
    page.get_by_label("Why").fill("ticket 4711")
    page.get_by_role("button", name="Reboot shop").click()
    expect(page.get_by_role("heading", name="power on shop")).to_be_visible()
    assert len(bench.sent) == 1
    page.get_by_role("button", name="Sign out").click()
    expect(page.get_by_role("heading", name="Sign in")).to_be_visible()
    page.go_back()
    expect(page.get_by_role("heading", name="Sign in")).to_be_visible()
    assert window.complaints == []


def test_a_tickets_request_is_read_and_approved(
    bench: ApiBench, live: ManagedClient, kim: User, window: Watched
) -> None:
    page, installation = window.page, bench.installation
    server = bench.add_server("shop")
    add_customer(installation, "Anna", server)
    asked_by_ticket(installation, 4711, f"it does not boot {HOSTILE}", server)
    sign_in(window, live)
    page.get_by_role("link", name="ticket 4711").click()
    expect(page.get_by_text(HOSTILE).first).to_be_visible()
    expect(page.get_by_role("paragraph").filter(has_text="boots the rescue image")).to_be_visible()
    page.get_by_role("button", name="Refuse").click()
    assert page.get_by_label("Why, for the sender").evaluate("one => !one.checkValidity()")
    page.get_by_role("button", name="Approve rescue on shop").click()
    expect(page.get_by_role("heading", name="rescue on shop")).to_be_visible()
    assert len(bench.sent) == 1
    page.goto(f"{live.base_url}/panel/tonight")
    expect(page.get_by_text("No ticket waits for a decision.")).to_be_visible()
    assert window.complaints == []


def test_the_panel_works_without_scripts(
    bench: ApiBench, live: ManagedClient, kim: User, window: Watched
) -> None:
    job = failed_job(bench.installation, bench.add_server("shop"), "the disk is full")
    browser = window.context.browser
    assert browser is not None
    plain = browser.new_context(java_script_enabled=False)
    page = plain.new_page()
    sign_in(Watched(plain, page), live)
    page.get_by_role("link", name="log", exact=True).click()
    assert page.url.endswith(job.job_id)
    expect(page.get_by_role("log")).to_contain_text("the disk is full")
    page.get_by_role("button", name="Sign out").click()
    expect(page.get_by_role("heading", name="Sign in")).to_be_visible()


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1200, NARROWEST])
def test_nothing_is_wider_than_the_window(
    bench: ApiBench, live: ManagedClient, kim: User, scheme: str, width: int, tmp_path: Path
) -> None:
    """Screenshots of every page are left in the test's folder, to be looked at by people."""
    installation = bench.installation
    server = bench.add_server("a-shop-with-quite-a-long-name-that-does-not-fit")
    patched(installation, server)
    failed = failed_job(installation, server, "restic ended with status 1: " + "x" * 200)
    running = work_on(installation, server, JobKind.BACKUP)
    running.begin("take_snapshot")
    running.say("backup_progress", percent=42)
    asked = asked_by_ticket(installation, 4711, "My shop does not boot " + "x" * 200, server)
    with chromium(width, scheme=scheme) as window:
        page = window.page
        sign_in(window, live)
        for name, path in (
            ("tonight", "tonight"),
            ("servers", "servers"),
            ("server", f"servers/{server.name}"),
            ("ask", f"servers/{server.name}/ask/reset"),
            ("failed", f"jobs/{failed.job_id}"),
            ("running", f"jobs/{running.job.job_id}"),
            ("request", f"requests/{asked}"),
            ("missing", "servers/none"),
        ):
            page.goto(f"{live.base_url}/panel/{path}")
            page.evaluate("document.querySelectorAll('details').forEach(d => d.open = true)")
            page.screenshot(path=tmp_path / f"{name}-{width}-{scheme}.png", full_page=True)
            assert page.evaluate("document.documentElement.scrollWidth") <= width, path
