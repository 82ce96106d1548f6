"""A stand-in for Zammad: a real HTTP server that speaks what Zammad's documentation says of ticket
articles (docs.zammad.org, "Articles") and of webhooks (admin-docs.zammad.org, "Webhook payload").

It is strict where Zammad is: token, content type and fields are checked. It is no Zammad: groups,
permissions, mail and triggers are not there.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import threading
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

SECRET = "a secret of the tests, long enough"  # noqa: S105
_CONTENT_TYPES = ("text/html", "text/plain")
_TYPES = ("note", "email", "phone", "web")


@dataclass
class ZammadStandIn:
    """`failing_status` is answered instead of anything else; with `loses_answers` an article is
    stored and the connection closed before anybody hears of it.
    """

    token: str
    tickets: set[int] = field(default_factory=set)
    articles: list[dict[str, Any]] = field(default_factory=list)
    failing_status: int = 0
    loses_answers: bool = False
    port: int = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def of_ticket(self, ticket_id: int) -> list[dict[str, Any]]:
        return [article for article in self.articles if article["ticket_id"] == ticket_id]

    def add(self, ticket_id: int, sender: str, body: str) -> None:
        self.articles.append(
            {
                "id": len(self.articles) + 1,
                "ticket_id": ticket_id,
                "sender": sender,
                "body": body,
                "content_type": "text/plain",
                "type": "note",
                "internal": False,
            }
        )

    @contextmanager
    def serving(self) -> Iterator[ZammadStandIn]:
        """Listen, at the same port as the last time if there was one."""
        server = ThreadingHTTPServer(
            ("127.0.0.1", self.port), type("Handler", (_Handler,), {"zammad": self})
        )
        server.daemon_threads = True
        self.port = server.server_port
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        try:
            yield self
        finally:
            server.shutdown()
            thread.join(10)
            server.server_close()


class _Handler(BaseHTTPRequestHandler):
    zammad: ZammadStandIn

    def do_GET(self) -> None:
        place, _, number = self.path.rpartition("/")
        if self._is_refused():
            return
        if place != "/api/v1/ticket_articles/by_ticket" or not number.isdecimal():
            self._answer(404, {"error": "No route matches"})
        elif int(number) not in self.zammad.tickets:
            self._answer(404, {"error": f"Couldn't find Ticket with 'id'={number}"})
        else:
            self._answer(200, self.zammad.of_ticket(int(number)))

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", "0")))
        if self._is_refused():
            return
        if self.path != "/api/v1/ticket_articles":
            self._answer(404, {"error": "No route matches"})
            return
        if self.headers.get("Content-Type") != "application/json":
            self._answer(422, {"error": "no JSON"})
            return
        article = json.loads(body)
        status, reason = _refusal(self.zammad, article)
        if status:
            self._answer(status, {"error": reason})
            return
        made = {**article, "id": len(self.zammad.articles) + 1, "sender": "Agent"}
        self.zammad.articles.append(made)
        if self.zammad.loses_answers:
            self.close_connection = True
            return
        self._answer(201, made)

    def log_message(self, format: str, *args: Any) -> None:
        """Nothing: tests say what they see."""

    def _is_refused(self) -> bool:
        if self.zammad.failing_status:
            self._answer(self.zammad.failing_status, {"error": "try again"})
        elif self.headers.get("Authorization") != f"Token token={self.zammad.token}":
            self._answer(401, {"error": "Authentication required"})
        else:
            return False
        return True

    def _answer(self, status: int, document: Any) -> None:
        content = json.dumps(document).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json; charset=utf-8")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)


def _refusal(zammad: ZammadStandIn, article: Any) -> tuple[int, str]:
    if article.get("ticket_id") not in zammad.tickets:
        return 404, f"Couldn't find Ticket with 'id'={article.get('ticket_id')}"
    if not isinstance(article.get("body"), str) or not article["body"]:
        return 422, "Need at least an 'body' attribute"
    if article.get("content_type") not in _CONTENT_TYPES or article.get("type") not in _TYPES:
        return 422, "unknown content_type or type"
    if not isinstance(article.get("internal"), bool):
        return 422, "internal is true or false"
    if article["type"] == "email" and "@" not in article.get("to", ""):
        return 422, "an e-mail needs 'to'"
    return 0, ""


def payload(
    text: str,
    *,
    title: str = "Help",
    sender: str = "anna@example.org",
    ticket_id: int = 81,
    article_id: int = 104,
    server: str | None = None,
    is_html: bool = False,
    by: str = "Customer",
    internal: bool = False,
    kind: str = "email",
    written_at: str = "2026-11-24T09:30:00.318Z",
    origin_by: str | None = None,
) -> dict[str, Any]:
    """Zammad's default payload, with more in it than we read."""
    customer = {"id": 8, "email": sender, "login": sender, "firstname": "Anna", "active": True}
    author = customer if origin_by is None else {"id": 3, "email": "agent@example.net"}
    return {
        "ticket": {
            "id": ticket_id,
            "number": f"10{ticket_id:03}",
            "title": title,
            "state": "open",
            "priority": {"id": 2, "name": "2 normal"},
            "customer": customer,
            "vps_id": server,
            "article_ids": [article_id],
        },
        "article": {
            "id": article_id,
            "ticket_id": ticket_id,
            "body": text,
            "content_type": "text/html" if is_html else "text/plain",
            "created_at": written_at,
            "created_by": author,
            "from": "Somebody Else <else@example.com>",
            "internal": internal,
            "origin_by": origin_by,
            "sender": by,
            "type": kind,
            "attachments": [],
        },
    }


def signature(body: bytes, secret: str = SECRET) -> str:
    return "sha1=" + hmac.new(secret.encode(), body, hashlib.sha1).hexdigest()


def headers(body: bytes, delivery_id: str | None = None, secret: str = SECRET) -> dict[str, str]:
    """The headers of a delivery; each has an id of its own."""
    return {
        "Content-Type": "application/json",
        "User-Agent": "Zammad User Agent",
        "X-Zammad-Trigger": "to managed",
        "X-Zammad-Delivery": delivery_id or str(uuid.uuid4()),
        "X-Hub-Signature": signature(body, secret),
    }
