"""Signing in to the panel, staying signed in, and forms that are not ours."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace
from datetime import datetime, timedelta

import pytest
from fastapi.testclient import TestClient
from structlog.testing import capture_logs

from api.app import create_app
from api.panel.protection import CONTENT_SECURITY_POLICY
from managed.domain.access import Role
from managed.domain.sign_in import FAILURES_COUNTED_FOR, FAILURES_PER_USER, SESSION_IDLE
from managed.settings import Settings
from managed.storage.database import writing
from managed.wiring import utc_now
from tests.integration.api.conftest import ApiBench
from tests.support.panel import ORIGIN, PASSWORD, Browser, add_user, browser


class Clock:
    """Time that passes when a test says so."""

    def __init__(self) -> None:
        self.now = utc_now()

    def __call__(self) -> datetime:
        return self.now


@pytest.fixture
def clock(bench: ApiBench) -> Clock:
    """The clock of the bench's API."""
    clock = Clock()
    bench.app.state.services = replace(bench.app.state.services, clock=clock)
    return clock


@pytest.fixture
def kim(bench: ApiBench, clock: Clock) -> Iterator[Browser]:
    """Kim of support, not signed in yet."""
    add_user(bench.installation, "Kim")
    with browser(bench.app) as opened:
        yield opened


def sign_in(opened: Browser, password: str = PASSWORD, email: str = "kim@example.org") -> int:
    fields = {"email": email, "password": password}
    return opened.post("/panel/sign-in", fields).status_code


def is_signed_in(opened: Browser) -> bool:
    return opened.get("/panel/servers").status_code == 200


def test_an_invitation_sets_the_password_once_and_then_it_opens_the_panel(
    bench: ApiBench, api: TestClient
) -> None:
    body = {"email": "lee@example.org", "name": "Lee", "role": "support"}
    api.post("/v1/users", json=body)
    first = api.post("/v1/users/lee@example.org/invitation").json()["path"]
    made = api.post("/v1/users/lee@example.org/invitation")
    assert made.status_code == 201
    path = made.json()["path"]
    fields = {"password": PASSWORD, "again": PASSWORD}
    with capture_logs() as logs, browser(bench.app) as lee:
        assert lee.get(first).status_code == 404
        assert "lee@example.org" in lee.get(path).text
        short = lee.post(path, {"password": "short", "again": "short"})
        assert short.status_code == 422
        assert "12 to 256 characters" in short.text
        assert lee.post(path, {**fields, "again": "another one"}).status_code == 422
        assert lee.post(path, fields).status_code == 303
        assert lee.post(path, fields).status_code == 404
        assert sign_in(lee, email="Lee@Example.org") == 303
        assert is_signed_in(lee)
    actions = [entry["action"] for entry in api.get("/v1/audit").json()["items"]]
    assert actions[:3] == ["sign_in", "set_password", "invite_user"]
    assert any(entry.get("path") == "/panel/invitation/…" for entry in logs)
    assert not any(path.rpartition("/")[2] in str(entry) for entry in logs)
    state = bench.installation.settings.state
    files = [file.read_bytes() for file in state.glob("managed.db*")]
    assert not any(path.rpartition("/")[2].encode() in content for content in files)


def test_an_invitation_ends_with_its_time_and_its_user(
    bench: ApiBench, api: TestClient, clock: Clock
) -> None:
    add_user(bench.installation, "Lee")
    path = api.post("/v1/users/lee@example.org/invitation").json()["path"]
    with browser(bench.app) as lee:
        api.post("/v1/users/lee@example.org/disable")
        assert lee.get(path).status_code == 404
        assert api.post("/v1/users/lee@example.org/invitation").status_code == 409
        api.post("/v1/users/lee@example.org/enable")
        clock.now += timedelta(days=3)
        assert lee.get(path).status_code == 404


def test_wrong_passwords_and_unknown_users_are_told_the_same(bench: ApiBench, kim: Browser) -> None:
    answers = [
        kim.post("/panel/sign-in", {"email": email, "password": "wrong"})
        for email in ("kim@example.org", "nobody@example.org")
    ]
    texts = [re.sub(r'value="\w+@example.org"', "", answer.text) for answer in answers]
    assert [answer.status_code for answer in answers] == [403, 403]
    assert texts[0] == texts[1]
    assert not is_signed_in(kim)


def test_a_user_without_a_password_or_a_disabled_one_does_not_get_in(
    bench: ApiBench, api: TestClient, kim: Browser
) -> None:
    api.post("/v1/users", json={"email": "new@example.org", "name": "New", "role": "admin"})
    assert sign_in(kim, "", "new@example.org") == 403
    assert sign_in(kim) == 303
    api.post("/v1/users/kim@example.org/disable")
    assert not is_signed_in(kim)
    assert sign_in(kim) == 403


def test_too_many_failures_have_to_wait_even_with_the_right_password(
    kim: Browser, clock: Clock
) -> None:
    for _ in range(FAILURES_PER_USER):
        assert sign_in(kim, "wrong") == 403
    refused = kim.post("/panel/sign-in", {"email": "kim@example.org", "password": PASSWORD})
    assert refused.status_code == 429
    assert int(refused.headers["Retry-After"]) == FAILURES_COUNTED_FOR.total_seconds()
    assert sign_in(kim, "wrong", "lee@example.org") == 403
    clock.now += FAILURES_COUNTED_FOR
    assert sign_in(kim) == 303
    # What went well is not held against anybody.
    for _ in range(FAILURES_PER_USER + 1):
        assert sign_in(kim) == 303


def test_every_sign_in_has_a_new_session_and_ends_the_one_before(kim: Browser) -> None:
    sign_in(kim)
    before = kim.http.cookies["managed-session"]
    sign_in(kim)
    after = kim.http.cookies["managed-session"]
    assert before != after
    assert is_signed_in(kim)
    kim.http.cookies.set("managed-session", before, domain="testserver.local", path="/")
    assert not is_signed_in(kim)


def test_signing_out_ends_the_session_on_the_server(kim: Browser, bench: ApiBench) -> None:
    sign_in(kim)
    cookie = kim.http.cookies["managed-session"]
    assert kim.post("/panel/sign-out", {"csrf": kim.csrf()}).status_code == 303
    (last,) = bench.installation.audit.find(limit=1)
    assert (last.deed.actor, last.deed.action) == ("kim@example.org", "sign_out")
    assert not is_signed_in(kim)
    assert "managed-session" not in kim.http.cookies
    kim.http.cookies.set("managed-session", cookie)
    assert not is_signed_in(kim)


def test_a_session_ends_when_it_is_idle_and_pages_that_ask_by_themselves_are_no_use_of_it(
    kim: Browser, clock: Clock
) -> None:
    sign_in(kim)
    half = SESSION_IDLE / 2 + timedelta(minutes=1)
    clock.now += half
    assert is_signed_in(kim)
    clock.now += half
    asked = {"HX-Request": "true"}
    assert kim.get("/panel/tonight?seen=x", **asked).status_code == 200
    clock.now += half
    refused = kim.get("/panel/tonight?seen=x", **asked)
    assert refused.status_code == 401
    assert refused.headers["HX-Redirect"] == "/panel/sign-in?next=/panel/tonight"


def test_a_session_ends_after_twelve_hours_however_much_it_is_used(
    kim: Browser, clock: Clock
) -> None:
    sign_in(kim)
    for _ in range(23):
        clock.now += timedelta(minutes=30)
        assert is_signed_in(kim)
    clock.now += timedelta(minutes=30)
    assert not is_signed_in(kim)


def test_a_new_password_ends_the_sessions_of_the_old_one(
    bench: ApiBench, api: TestClient, kim: Browser
) -> None:
    sign_in(kim)
    path = api.post("/v1/users/kim@example.org/invitation").json()["path"]
    other = "another good password"
    with browser(bench.app) as elsewhere:
        elsewhere.post(path, {"password": other, "again": other})
    assert not is_signed_in(kim)
    assert sign_in(kim) == 403
    assert sign_in(kim, other) == 303


def test_after_the_sign_in_one_is_where_one_wanted_to_be_and_nowhere_else(kim: Browser) -> None:
    sent_away = kim.get("/panel/servers/shop")
    assert sent_away.headers["Location"] == "/panel/sign-in?next=/panel/servers/shop"
    fields = {"email": "kim@example.org", "password": PASSWORD}
    for target, reached in (
        ("/panel/servers/shop", "/panel/servers/shop"),
        ("https://evil.example/panel", "/panel/tonight"),
        ("//evil.example", "/panel/tonight"),
        ("/panel//evil.example", "/panel/tonight"),
        ("/panel/../v1", "/panel/tonight"),
    ):
        answer = kim.post("/panel/sign-in", {**fields, "next": target})
        assert answer.headers["Location"] == reached


def test_the_cookie_is_for_our_server_alone_and_over_https_for_nothing_else(
    bench: ApiBench, kim: Browser
) -> None:
    answer = kim.post("/panel/sign-in", {"email": "kim@example.org", "password": PASSWORD})
    plain = answer.headers["Set-Cookie"]
    assert plain.startswith("managed-session=")
    assert "HttpOnly" in plain
    assert "SameSite=lax" in plain
    assert "Secure" not in plain
    settings = bench.installation.settings
    public = Settings(**{**settings.model_dump(), "public_url": "https://panel.example.org"})
    app = create_app(replace(bench.installation, settings=public), bench.sent.append)
    with browser(app) as opened:
        fields = {"email": "kim@example.org", "password": PASSWORD}
        assert opened.post("/panel/sign-in", fields).status_code == 403
        answer = opened.post("/panel/sign-in", fields, Origin="https://panel.example.org")
        secure = answer.headers["Set-Cookie"]
    assert secure.startswith("__Host-managed-session=")
    assert "Secure" in secure
    assert "Path=/;" in secure
    assert "Domain" not in secure


def test_a_form_without_this_sessions_token_does_nothing(bench: ApiBench, kim: Browser) -> None:
    bench.add_server("shop")
    add_user(bench.installation, "Lee", Role.ADMIN)
    sign_in(kim)
    with browser(bench.app) as lee:
        sign_in(lee, email="lee@example.org")
        others = lee.csrf()
    fields = {"action": "check", "key": "k"}
    path = "/panel/servers/shop/jobs"
    for wrong in ({}, {"csrf": ""}, {"csrf": "0" * 64}, {"csrf": others}, {"csrf": "é"}):
        assert kim.post(path, {**fields, **wrong}).status_code == 403
        assert kim.post("/panel/sign-out", wrong).status_code == 403
    assert bench.sent == []
    assert kim.post(path, {**fields, "csrf": kim.csrf()}).status_code == 303
    assert len(bench.sent) == 1


@pytest.mark.parametrize(
    "headers",
    [
        {"Origin": "https://evil.example"},
        {"Origin": "null"},
        {"Origin": ""},
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site"},
        {"Sec-Fetch-Site": "none"},
    ],
)
def test_a_form_of_another_site_does_nothing(kim: Browser, headers: dict[str, str]) -> None:
    fields = {"email": "kim@example.org", "password": PASSWORD}
    assert kim.post("/panel/sign-in", fields, **headers).status_code == 403
    sign_in(kim)
    csrf = kim.csrf()
    assert kim.post("/panel/sign-out", {"csrf": csrf}, **headers).status_code == 403
    assert is_signed_in(kim)


def test_every_answer_says_what_browsers_may_load(bench: ApiBench, kim: Browser) -> None:
    sign_in(kim)
    page = kim.get("/panel/tonight").text
    asset = re.search(r'/panel/static/[^"]+', page)
    assert asset is not None
    paths = ("/panel/tonight", "/panel/sign-in", "/panel/servers/none", "/panel/none", asset[0])
    for path in paths:
        answer = kim.get(path)
        assert answer.headers["Content-Security-Policy"] == CONTENT_SECURITY_POLICY, path
        assert answer.headers["X-Content-Type-Options"] == "nosniff"
        assert answer.headers["Referrer-Policy"] == "same-origin"
    assert kim.get(asset[0]).headers["Cache-Control"] == "public, max-age=31536000, immutable"
    assert kim.get("/panel/tonight").headers["Cache-Control"] == "no-store"
    assert "Content-Security-Policy" not in kim.get("/healthz").headers


def test_the_installations_token_opens_no_page(bench: ApiBench, api: TestClient) -> None:
    answer = api.get("/panel/servers", follow_redirects=False)
    assert answer.headers["Location"].startswith("/panel/sign-in")


def test_a_session_opens_no_route_of_the_api(bench: ApiBench, kim: Browser) -> None:
    sign_in(kim)
    assert is_signed_in(kim)
    assert kim.get("/v1/servers").status_code == 401


def test_sessions_past_their_time_are_forgotten(
    bench: ApiBench, kim: Browser, clock: Clock
) -> None:
    sign_in(kim)
    clock.now += timedelta(hours=13)
    sign_in(kim)
    with writing(bench.installation.database) as connection:
        assert connection.exec_driver_sql("SELECT count(*) FROM panel_sessions").scalar() == 1


def test_a_character_that_no_text_has_is_refused(bench: ApiBench) -> None:
    with browser(bench.app) as stranger:
        assert sign_in(stranger, email="a\0b@example.org") == 422


def part(value: str, more: str = "") -> str:
    head = f'Content-Disposition: form-data; name="email"{more}'
    return f"--x\r\n{head}\r\n\r\n{value}\r\n--x--\r\n"


@pytest.mark.parametrize(
    ("media_type", "body"),
    [
        ("multipart/form-data; boundary=x; charset=utf-7", part("+2AA-")),
        ("multipart/form-data; boundary=x; charset=idna", part("a..b")),
        ("multipart/form-data; boundary=x", part("kim@example.org", '; filename="a.txt"')),
        ("multipart/form-data", part("kim@example.org")),
        ("application/json", '{"email": "kim@example.org"}'),
        ("application/x-www-form-urlencoded", "&".join(f"f{n}=x" for n in range(30))),
        ("application/x-www-form-urlencoded", f"email={'x' * 1024 * 1024}"),
    ],
)
def test_a_form_that_no_page_of_ours_sends_is_refused_on_a_page(
    bench: ApiBench, media_type: str, body: str
) -> None:
    with browser(bench.app) as stranger:
        headers = {"Origin": ORIGIN, "Content-Type": media_type}
        answer = stranger.http.post("/panel/sign-in", content=body, headers=headers)
    assert answer.status_code in {400, 413, 422}
    assert answer.headers["Content-Type"].startswith("text/html")
    assert "</html>" in answer.text


def test_bytes_that_are_no_text_are_an_unknown_user(bench: ApiBench) -> None:
    with browser(bench.app) as stranger:
        for odd in ("%ED%A0%80", "%FF", "%C3"):
            body = f"email={odd}&password={odd}"
            headers = {"Origin": ORIGIN, "Content-Type": "application/x-www-form-urlencoded"}
            answer = stranger.http.post("/panel/sign-in", content=body, headers=headers)
            assert answer.status_code == 403
