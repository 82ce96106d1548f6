"""What every Notifier keeps: the fake, mail over a real SMTP server, webhooks over real HTTP."""

from __future__ import annotations

import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from managed.domain.errors import NotDelivered
from managed.domain.notice_texts import Message
from managed.domain.notifications import Occasion, Target, TargetKind
from managed.domain.secrets import Secret
from managed.drivers.fakes.notifications import FakeNotifier
from managed.drivers.notifications.email import EmailNotifier, Tls
from managed.drivers.notifications.webhooks import WebhookNotifier
from managed.lab.ports import free_port
from managed.ports import Notifier
from tests.support.certificates import OwnCertificate, own_certificate
from tests.support.mail_server import Mailbox, mail_server
from tests.support.webhook_receiver import StandInReceiver, serving

KEY = Secret("a-webhook-key")
MESSAGE = Message(
    "managed: patch of shop failed", "Grüße.\n", {"type": "notification", "events": []}
)


def target(kind: TargetKind, address: str, customer_id: str | None = None) -> Target:
    return Target("t-1", kind, address, frozenset(Occasion), customer_id, datetime.now(UTC))


def webhooks(*, private: bool = True, tls: ssl.SSLContext | None = None) -> WebhookNotifier:
    return WebhookNotifier(lambda _: KEY, staff_may_be_private=private, tls=tls)


@dataclass
class Line:
    """A notifier with the other side of it: whom it tells, what came, how to make it refuse."""

    notifier: Notifier
    target: Target
    delivery_ids: Callable[[], list[str]]
    refuse: Callable[[], None]

    def deliver(self, delivery_id: str) -> None:
        self.notifier.deliver(self.target, MESSAGE, delivery_id, datetime.now(UTC))


def fake_line(_: ExitStack) -> Line:
    fake = FakeNotifier()
    return Line(
        fake,
        target(TargetKind.EMAIL, "ops@example.org"),
        lambda: [one.delivery_id for one in fake.delivered],
        lambda: setattr(fake, "is_down", True),
    )


def mail_line(stack: ExitStack) -> Line:
    mailbox = Mailbox()
    settings = stack.enter_context(mail_server(mailbox))
    return Line(
        EmailNotifier(settings),
        target(TargetKind.EMAIL, "ops@example.org"),
        lambda: [str(mail["Message-ID"])[1:].partition("@")[0] for mail in mailbox.mails],
        lambda: setattr(mailbox, "answer", "451 come later"),
    )


def webhook_line(stack: ExitStack) -> Line:
    receiver = StandInReceiver(KEY)
    url = stack.enter_context(serving(receiver))
    return Line(
        webhooks(),
        target(TargetKind.WEBHOOK, url),
        lambda: [call.delivery_id for call in receiver.calls],
        lambda: setattr(receiver, "status", 503) or receiver.calls.clear(),
    )


@pytest.fixture(params=[fake_line, mail_line, webhook_line], ids=["fake", "mail", "webhook"])
def line(request: pytest.FixtureRequest) -> Iterator[Line]:
    with ExitStack() as stack:
        yield request.param(stack)


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> OwnCertificate:
    return own_certificate(tmp_path_factory.mktemp("certificates"))


# -- the contract


def test_a_message_arrives_under_its_id(line: Line) -> None:
    line.deliver("d-1")
    line.deliver("d-2")
    assert line.delivery_ids() == ["d-1", "d-2"]


def test_a_second_try_has_the_same_id(line: Line) -> None:
    line.deliver("d-1")
    line.deliver("d-1")
    assert line.delivery_ids() == ["d-1", "d-1"]


def test_what_is_not_taken_is_said(line: Line) -> None:
    line.refuse()
    with pytest.raises(NotDelivered) as refused:
        line.deliver("d-1")
    assert refused.value.retryable


@pytest.mark.parametrize("kind", ["mail", "webhook"])
def test_nobody_there_is_not_delivered(kind: str) -> None:
    port = free_port()
    notifier: Notifier
    if kind == "webhook":
        notifier, told = webhooks(), target(TargetKind.WEBHOOK, f"http://127.0.0.1:{port}/")
    else:
        with mail_server(Mailbox()) as settings:
            pass
        notifier, told = EmailNotifier(settings), target(TargetKind.EMAIL, "ops@example.org")
    with pytest.raises(NotDelivered, match="cannot be"):
        notifier.deliver(told, MESSAGE, "d-1", datetime.now(UTC))


# -- mail

# aiosmtpd believes that a login over implicit TLS is one in the clear.
pytestmark = pytest.mark.filterwarnings("ignore:Requiring AUTH:UserWarning")


@pytest.mark.parametrize("tls", [Tls.STARTTLS, Tls.TLS])
def test_mail_goes_over_tls_with_a_login(tls: Tls, certificate: OwnCertificate) -> None:
    mailbox = Mailbox()
    with mail_server(mailbox, tls, certificate) as settings:
        told = target(TargetKind.EMAIL, "ops@example.org")
        EmailNotifier(settings).deliver(told, MESSAGE, "d-1", datetime.now(UTC))
    (mail,) = mailbox.mails
    assert (mail["From"], mail["To"], mail["Subject"]) == (
        "managed@example.org",
        "ops@example.org",
        MESSAGE.subject,
    )
    assert mail["Auto-Submitted"] == "auto-generated"
    assert mail.get_content().splitlines() == MESSAGE.text.splitlines()


@pytest.mark.parametrize("tls", [Tls.STARTTLS, Tls.TLS])
def test_a_certificate_that_nobody_vouches_for_gets_no_mail(
    tls: Tls, certificate: OwnCertificate
) -> None:
    mailbox = Mailbox()
    with mail_server(mailbox, tls, certificate) as settings:
        stranger = EmailNotifier(replace(settings, ca_file=None))
        with pytest.raises(NotDelivered, match="certificate"):
            stranger.deliver(
                target(TargetKind.EMAIL, "ops@example.org"), MESSAGE, "d", datetime.now(UTC)
            )
    assert mailbox.mails == []


def test_a_wrong_login_is_said_without_the_password(certificate: OwnCertificate) -> None:
    with mail_server(Mailbox(), Tls.STARTTLS, certificate) as settings:
        wrong = EmailNotifier(replace(settings, password=Secret("not-the-password")))
        with pytest.raises(NotDelivered, match="refused the login") as refused:
            wrong.deliver(
                target(TargetKind.EMAIL, "ops@example.org"), MESSAGE, "d", datetime.now(UTC)
            )
    assert "not-the-password" not in str(refused.value.as_json())


def test_a_server_without_starttls_gets_no_mail_in_the_clear() -> None:
    mailbox = Mailbox()
    with mail_server(mailbox) as settings:
        careful = EmailNotifier(replace(settings, tls=Tls.STARTTLS))
        with pytest.raises(NotDelivered, match="STARTTLS"):
            careful.deliver(
                target(TargetKind.EMAIL, "ops@example.org"), MESSAGE, "d", datetime.now(UTC)
            )
    assert mailbox.mails == []


# -- webhooks


def test_a_call_is_signed_and_names_its_host() -> None:
    receiver = StandInReceiver(KEY)
    with serving(receiver) as url:
        webhooks().deliver(target(TargetKind.WEBHOOK, url), MESSAGE, "d-1", datetime.now(UTC))
    (call,) = receiver.calls
    assert call.document == {"id": "d-1", **MESSAGE.document}
    assert (call.path, f"http://{call.host}{call.path}") == ("/hook?from=managed", url)


def test_a_call_with_another_key_or_of_another_day_is_refused_by_the_guides_code() -> None:
    receiver = StandInReceiver(Secret("another key"))
    with serving(receiver) as url:
        with pytest.raises(NotDelivered, match="401"):
            webhooks().deliver(target(TargetKind.WEBHOOK, url), MESSAGE, "d", datetime.now(UTC))
        receiver.secret = KEY
        yesterday = datetime.now(UTC) - timedelta(days=1)
        with pytest.raises(NotDelivered, match="401"):
            webhooks().deliver(target(TargetKind.WEBHOOK, url), MESSAGE, "d", yesterday)
    assert (receiver.calls, receiver.refused) == ([], 2)


def test_over_https_the_certificate_is_checked_against_the_urls_host(
    certificate: OwnCertificate, tmp_path: Path
) -> None:
    receiver = StandInReceiver(KEY)
    trusting = ssl.create_default_context(cafile=certificate.file)
    with serving(receiver, certificate.context()) as url:
        told = target(TargetKind.WEBHOOK, url)
        webhooks(tls=trusting).deliver(told, MESSAGE, "d-1", datetime.now(UTC))
        assert [call.host for call in receiver.calls] == [url.split("/")[2]]
        with pytest.raises(NotDelivered, match=r"(?i)certificate"):
            webhooks().deliver(told, MESSAGE, "d-2", datetime.now(UTC))
    other = own_certificate(tmp_path, "elsewhere.example.org")
    trusting = ssl.create_default_context(cafile=other.file)
    with serving(receiver, other.context()) as url:
        told = target(TargetKind.WEBHOOK, url)
        with pytest.raises(NotDelivered, match="localhost"):
            webhooks(tls=trusting).deliver(told, MESSAGE, "d-3", datetime.now(UTC))
    assert len(receiver.calls) == 1


def test_a_redirect_is_not_followed() -> None:
    elsewhere = StandInReceiver(KEY)
    with serving(elsewhere) as other_url:
        receiver = StandInReceiver(KEY, status=307, location=other_url)
        with serving(receiver) as url, pytest.raises(NotDelivered, match="307"):
            webhooks().deliver(target(TargetKind.WEBHOOK, url), MESSAGE, "d", datetime.now(UTC))
    assert elsewhere.calls == []


@pytest.mark.parametrize("customer_id", [None, "c-1"])
@pytest.mark.parametrize("name", ["127.0.0.1", "localhost"])
def test_a_private_address_is_not_called_unless_it_is_the_staffs_and_allowed(
    name: str, customer_id: str | None
) -> None:
    receiver = StandInReceiver(KEY)
    with serving(receiver) as url:
        told = target(TargetKind.WEBHOOK, url.replace("127.0.0.1", name), customer_id)
        notifier = webhooks(private=customer_id is not None)
        with pytest.raises(NotDelivered, match="is a private address"):
            notifier.deliver(told, MESSAGE, "d", datetime.now(UTC))
    assert receiver.calls == []


def answers(monkeypatch: pytest.MonkeyPatch, *addresses: str) -> list[str]:
    """The name server gives these addresses for every name; returns the names that it was asked."""
    asked: list[str] = []

    def getaddrinfo(host: str, port: int, *_: object, **__: object) -> list[Any]:
        asked.append(host)
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (one, port)) for one in addresses]

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    return asked


def test_one_private_address_among_public_ones_is_enough_not_to_call(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    answers(monkeypatch, "93.184.216.34", "10.0.0.1")
    told = target(TargetKind.WEBHOOK, "https://hooks.example.org/")
    with pytest.raises(NotDelivered, match=r"10\.0\.0\.1 is a private address"):
        webhooks(private=False).deliver(told, MESSAGE, "d", datetime.now(UTC))


def test_a_name_is_resolved_once_so_that_no_later_answer_leads_elsewhere(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    receiver = StandInReceiver(KEY)
    with serving(receiver) as url:
        asked = answers(monkeypatch, "127.0.0.1")
        named = url.replace("127.0.0.1", "hooks.example.org")
        webhooks().deliver(target(TargetKind.WEBHOOK, named), MESSAGE, "d", datetime.now(UTC))
    assert asked == ["hooks.example.org"]
    assert [call.host for call in receiver.calls] == [named.split("/")[2]]


@pytest.mark.parametrize("url", ["https://xn--/", "https://999.1.1.1/", "https://[v1.x]/"])
def test_a_host_that_is_none_is_said(url: str) -> None:
    with pytest.raises(NotDelivered, match="cannot be called"):
        webhooks().deliver(target(TargetKind.WEBHOOK, url), MESSAGE, "d", datetime.now(UTC))


def test_a_host_without_an_address_is_said() -> None:
    told = target(TargetKind.WEBHOOK, "https://nobody.invalid/")
    with pytest.raises(NotDelivered, match=r"nobody\.invalid has no address"):
        webhooks().deliver(told, MESSAGE, "d", datetime.now(UTC))


def test_an_answer_that_comes_by_single_bytes_is_cut_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("managed.drivers.notifications.webhooks._WHOLE_SECONDS", 0.3)
    with socket.create_server(("127.0.0.1", 0)) as tarpit:
        sent: list[int] = []
        dripping = threading.Thread(target=drip, args=(tarpit, sent))
        dripping.start()
        told = target(TargetKind.WEBHOOK, f"http://127.0.0.1:{tarpit.getsockname()[1]}/")
        with pytest.raises(NotDelivered, match="did not answer within"):
            webhooks().deliver(told, MESSAGE, "d", datetime.now(UTC))
        dripping.join(30)
    assert len(sent) > 1


def drip(tarpit: socket.socket, sent: list[int]) -> None:
    """A byte of one header now and then, until the caller hangs up."""
    connection, _ = tarpit.accept()
    with connection, suppress(OSError):
        connection.sendall(b"HTTP/1.1 200 OK\r\nX-Long: ")
        connection.settimeout(0.02)
        while True:
            sent.append(connection.send(b"a"))
            with suppress(TimeoutError):
                if not connection.recv(65536):
                    return
